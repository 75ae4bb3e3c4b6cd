"""The command line: ``tierpool`` and ``python -m tierpool``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import tierpool
from tierpool import demo as demo_run
from tierpool.cli_bench import commands as bench_commands
from tierpool.cli_output import Json, new_console, one_line_errors, print_json
from tierpool.cli_run import commands as run_commands
from tierpool.cli_storage import commands as storage_commands
from tierpool.cli_tables import show_demo, show_fit, show_replay
from tierpool.trace import fit as fit_trace
from tierpool.trace import read_trace
from tierpool.trace import replay as replay_trace

if TYPE_CHECKING:
    from rich.console import Console

DEVICES = "host, simulated, cuda:0 or another GPU, or pinned; by default host."

app = typer.Typer(
    help="Memory for LLM inference: pre-warmed heaps, honest statistics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (storage_commands, run_commands, bench_commands):
    app.add_typer(commands)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(tierpool.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Memory for LLM inference: pre-warmed heaps, honest statistics."""


def _run_demo_with_progress(console: Console, device: str) -> demo_run.DemoResult:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415  (the demo's only)

    columns = (TextColumn("Warming up"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("warm-up", total=None)
        return demo_run.run(lambda done, total: bar.update(task, completed=done, total=total), device)


@app.command()
def demo(
    device: Annotated[str, typer.Option(help=DEVICES)] = "host",
    as_json: Json = False,
) -> None:
    """Replay the decode of a small Llama from the default pool and from direct allocation.

    Takes some seconds and at most 1 GB.
    """
    with one_line_errors():
        if as_json:
            print_json(demo_run.run(device=device).to_dict())
        else:
            console = new_console()
            show_demo(console, _run_demo_with_progress(console, device))


def _build_pool(settings: dict[str, Any]) -> tierpool.MemoryPool:
    try:
        return tierpool.MemoryPool({**settings, "track_statistics": True})
    except TypeError as error:  # a value of a wrong type in the file that TIERPOOL_CONFIG names
        raise tierpool.ConfigError(str(error)) from error


@app.command()
def replay(  # noqa: PLR0913, PLR0917  (one argument an option)
    trace: Annotated[Path, typer.Argument(help="A gzip CSV trace: '# {json}', 'op,id,bytes', then events.")],
    device: Annotated[str | None, typer.Option(help=DEVICES)] = None,
    heap_size_mb: Annotated[float | None, typer.Option(help="Size of each heap in MB.")] = None,
    num_heaps: Annotated[int | None, typer.Option(help="Number of heaps.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Which heap is tried first.")] = None,
    placement: Annotated[str | None, typer.Option(help="Which free block inside a heap is taken.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Find the smallest heap that serves the whole trace.")] = False,
    as_json: Json = False,
) -> None:
    """Replay an allocation trace from a pool, or find the smallest heap that would serve it."""
    pool_options = {"device": device, "heap_size_mb": heap_size_mb, "num_heaps": num_heaps, "strategy": strategy}
    given = {name: value for name, value in pool_options.items() if value is not None}
    with one_line_errors():
        if fit:
            if given:
                options = ", ".join("--" + name.replace("_", "-") for name in given)
                raise tierpool.ConfigError(f"--fit asks the block allocator alone: leave out {options}")
            _fit(trace, (placement,) if placement else None, as_json)
        else:
            _replay(trace, given | ({"placement": placement} if placement else {}), as_json)


def _fit(path: Path, placements: tuple[str, ...] | None, as_json: bool) -> None:
    trace = read_trace(path)
    rows = fit_trace(trace, placements)
    if as_json:
        print_json(rows)
    else:
        show_fit(new_console(), trace.header, rows)


def _replay(path: Path, settings: dict[str, Any], as_json: bool) -> None:
    trace = read_trace(path)
    with _build_pool(settings) as pool:
        result = replay_trace(trace, pool)
    if as_json:
        print_json(result)
    else:
        show_replay(new_console(), result)
