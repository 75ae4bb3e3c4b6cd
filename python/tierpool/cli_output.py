"""What every command shares: JSON or tables, and errors in one line."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

import tierpool
from tierpool.storage.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BAD_INPUT = 2
FAILURE = 1
INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of tables.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what the user can cause into one line and an exit code."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader has seen enough; click ends quietly
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), BAD_INPUT)
    except (tierpool.ConfigError, tierpool.DeviceError, tierpool.TraceError, ModelError) as error:
        _fail(str(error), BAD_INPUT)
    except (tierpool.TierpoolError, MemoryError, ImportError) as error:
        _fail(str(error) or type(error).__name__, FAILURE)


def _fail(problem: str, code: int) -> None:
    typer.echo(f"tierpool: {problem}", err=True)
    raise typer.Exit(code)


def new_console() -> Console:
    """Make a console that colours nothing by itself."""
    return Console(highlight=False)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show steps on the terminal while the results go elsewhere; without a terminal, show nothing."""
    # Only what takes long needs it.
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda step, done, total: bar.update(task, description=step, completed=done, total=total)


def print_json(value: object) -> None:
    """Print one JSON value."""
    typer.echo(json.dumps(value, indent=2))
