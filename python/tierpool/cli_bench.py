"""The command ``bench``: streamed against mapped, under one memory limit."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tierpool._core import ConfigError
from tierpool.cli_output import FAILURE, INTERRUPTED, Json, new_console, one_line_errors, print_json, progress_bar
from tierpool.cli_storage import ModelFile, Threads
from tierpool.config_values import byte_limit
from tierpool.storage.bench import bench
from tierpool.storage.bench_result import PHASES, BenchResult, Side
from tierpool.storage.memory_group import MemoryGroupError

if TYPE_CHECKING:
    from rich.console import Console

commands = typer.Typer()

_MIB = 2**20
_SIDES: tuple[tuple[Side, str], ...] = (
    ("streamed", "tierpool"),
    ("plain", "mmap, same settings"),
    ("defaults", "llama.cpp's defaults"),
)


@commands.command(name="bench")
def run_bench(  # noqa: PLR0913, PLR0917  (one argument an option)
    model: ModelFile,
    memory: Annotated[
        str | None,
        typer.Option(help="What each run may hold, such as 2GiB; with --no-limit by default what the system allows."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens generated cold, and as many again warm.")] = 32,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each side, alternating.")] = 3,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 32,
    threads: Threads = None,
    random_tokens: Annotated[
        bool, typer.Option("--random-tokens", help="Compute random tokens, not greedy ones, which repeat themselves.")
    ] = False,
    no_limit: Annotated[
        bool, typer.Option("--no-limit", help="Compare without a control group: nothing limits the mapped runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare streaming with a plain mapping in the same memory control group: speed, reads, logits.

    A model that fits is compared with plain llama.cpp with the same parameters. Ends with 1 when a streamed run does
    not finish, a mapped one has an error, logits differ, or no memory limit can be enforced.
    """
    with one_line_errors():
        limit_bytes = byte_limit("--memory", memory)
        if limit_bytes is None and not no_limit:
            raise ConfigError("--memory is missing: say what each run may hold, such as 2GiB, or give --no-limit")
        try:
            with progress_bar() as progress:
                result = bench(
                    model,
                    limit_bytes,
                    tokens=tokens,
                    pairs=pairs,
                    prompt_tokens=prompt_tokens,
                    threads=threads,
                    random_tokens=random_tokens,
                    limited=not no_limit,
                    progress=progress,
                )
        except MemoryGroupError as error:
            raise MemoryGroupError(f"NO MEMORY LIMIT: {error}; --no-limit compares without one") from error
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends; being asked again must not end it any other way
            typer.echo("tierpool: interrupted; the run under way was ended, nothing was measured", err=True)
            raise typer.Exit(INTERRUPTED) from None
        if no_limit:
            typer.echo("tierpool: NO MEMORY LIMIT was enforced: the mapped runs could use all memory", err=True)
        if as_json:
            print_json(result.to_dict())
        else:
            show_bench(new_console(), result)
        if not result.succeeded:
            raise typer.Exit(FAILURE)


def show_bench(console: Console, result: BenchResult) -> None:
    """Print speeds, what was read, and whether all sides computed the same."""
    plan = result.plan
    limit = "no limit" if result.limit_bytes is None else f"{result.limit_bytes / _MIB:,.0f} MiB for each run's group"
    console.print(
        f"{plan.path}: mode {plan.mode}, {plan.budget.limit_bytes / _MIB:,.0f} MiB, {limit}; "
        f"n_ubatch {plan.n_ubatch}, {plan.threads} threads, "
        f"{'random' if result.random_tokens else 'greedy'} tokens, medians of {len(result.of_side('streamed'))}",
        markup=False,
    )
    console.print(_speeds(result))
    for name, value in _facts(result):
        console.print(f"{name}: {value}", markup=False)
    for run in result.runs:
        if run.child.outcome == "failed":
            console.print(f"{run.side} failed: {run.child.message}", markup=False)


def _speeds(result: BenchResult) -> Table:
    table = Table(title="Tokens per second", title_justify="left", title_style="bold")
    table.add_column()
    for column in (*PHASES, "load s", "peak MiB", "faults"):
        table.add_column(column, justify="right")
    for side, name in _SIDES:
        children = [run.child for run in result.of_side(side)]
        outcomes = {child.outcome for child in children} - {"finished"}
        speeds = [result.speed(side, phase) for phase in PHASES]
        shown = [f"{speed:,.2f}" if speed is not None else "/".join(sorted(outcomes)) for speed in speeds]
        peaks = [child.group_peak_bytes for child in children if child.group_peak_bytes is not None]
        faults = [child.values["major_faults"] for child in children if child.outcome == "finished"]
        table.add_row(
            escape(name),
            *shown,
            _shown(result.load_seconds(side), ",.1f"),
            f"{max(peaks) / _MIB:,.0f}" if peaks else "-",
            f"{max(faults):,}" if faults else "-",
        )
    table.add_row("tierpool / mmap", *(_shown(result.ratio(phase), ",.2f") for phase in PHASES), "", "", "")
    return table


def _facts(result: BenchResult) -> list[tuple[str, str]]:
    facts = []
    if result.plan.mode == "resident":
        same = "nothing, the model fits: plain llama.cpp with the same parameters on both sides"
        facts.append(("Streamed", same))
    elif result.streamed("warm", "bytes_per_token") is not None:
        facts += _streaming_facts(result)
    verdicts = {True: "equal, bit for bit", False: "DIFFERENT", None: "not compared, no run of one side finished"}
    facts.append(("Logits of tierpool and mmap", verdicts[result.equal_logits()]))
    for side, name in _SIDES[1:]:
        count = result.differing_tokens(side)
        facts.append((f"Tokens that differ from {name}", "not compared" if count is None else f"{count:,}"))
    kills = sum(run.child.kills for run in result.runs)
    facts.append(("Kills", f"{kills}"))
    return facts


def _streaming_facts(result: BenchResult) -> list[tuple[str, str]]:
    def both(name: str, form: str) -> str:
        return ", ".join(f"{_shown(result.streamed(phase, name), form)} {phase}" for phase in ("cold", "warm"))

    def mib(size_bytes: float | None) -> str:
        return f"{(size_bytes or 0) / _MIB:,.1f} MiB"

    facts = [
        (
            "Read per token",
            f"{mib(result.streamed('warm', 'bytes_per_token'))} warm, {mib(result.plan.estimate.read_bytes)} planned; "
            f"off the plan by {both('plan_deviation', '+.1%')}",
        ),
        ("Hit rate", f"{both('hit_rate', '.2f')}; misses: {both('misses', ',.0f')}"),
    ]
    if result.unit_bytes is not None:
        facts.append((f"Read / (misses x {mib(result.unit_bytes)})", both("reads_over_misses", ".3f")))
    direct = (result.direct_bytes_per_second or 0) / 1e9
    return [
        *facts,
        (
            "While reading",
            f"{both('read_gb_per_second', ',.2f')} GB/s; direct reads before and after the runs {direct:,.2f} GB/s; "
            f"share of these {both('bandwidth_share', '.2f')}",
        ),
        ("Budget unused", f"{_shown(result.unused_share, '.1%')}, by the plan {result.planned_unused_share:.1%}"),
    ]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
