"""Start measured runs: each in a process and, if there is a limit, a control group of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tierpool._core import TierpoolError
from tierpool.storage.memory_group import MemoryGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tierpool.storage.gguf import ModelFile

Outcome = Literal["finished", "killed", "failed"]

_COMMAND = [sys.executable, "-m", "tierpool.storage.bench_run"]
_SHOWN = 300


class BenchError(TierpoolError):
    """A measured run that could not be made."""


@dataclass(frozen=True)
class ChildResult:
    """How a run ended, and what it reported.

    Attributes
    ----------
    outcome : str
        ``finished``; ``killed``: by the kernel, for lack of memory; ``failed``: `message` says why.
    values : mapping
        The event ``done``, and the event ``loaded`` with ``load_seconds``.
    group_peak_bytes : int or None
        The most that its group held, page cache too.
    kills : int
        Processes of the group that the kernel killed.
    """

    outcome: Outcome
    message: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    group_peak_bytes: int | None = None
    kills: int = 0


def run_child(
    task: Mapping[str, Any], limit_bytes: int | None, on_event: Callable[[str], None] = lambda _event: None
) -> ChildResult:
    """Run a task to its end; when this is interrupted, the run is ended first.

    Raises
    ------
    MemoryGroupError
        When there is a limit and no control group for it.
    """
    with ExitStack() as stack:
        group = stack.enter_context(MemoryGroup(limit_bytes)) if limit_bytes is not None else None
        errors = stack.enter_context(tempfile.TemporaryFile())
        child = subprocess.Popen(
            group.command(_COMMAND) if group else _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for us, who end it in order
        )
        stack.callback(_end, child)
        values, last = _follow(child, task, on_event)
        status = child.wait()
        kills = group.kills if group else 0
        if last == "failed":
            outcome, message = "failed", str(values["message"])
        elif status == 0 and last == "done":
            outcome, message = "finished", ""
        elif status == -signal.SIGKILL:
            outcome, message = "killed", f"killed by the kernel, which counts {kills} for lack of memory"
        else:
            errors.seek(0)
            outcome, message = "failed", f"ended with {status}: {errors.read().decode(errors='replace')[-_SHOWN:]}"
        peak = group.peak_bytes if group else None
        return ChildResult(outcome, message, values, peak, kills)  # type: ignore[arg-type]


def drop_page_cache(files: Iterable[ModelFile]) -> None:
    """Drop a model's clean pages from memory; what was just written is written out first."""
    for file in files:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _follow(
    child: subprocess.Popen[str], task: Mapping[str, Any], on_event: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """Hand the task over, read all events, and return what they said and the kind of the last."""
    assert child.stdin is not None
    assert child.stdout is not None
    values: dict[str, Any] = {}
    kind = ""
    try:
        with child.stdin:
            json.dump(task, child.stdin)
    except BrokenPipeError:
        pass  # it ended at once; its status says why
    for line in child.stdout:
        if not line.endswith("\n"):
            return values, ""  # it was killed while it wrote
        event = json.loads(line)
        kind = event.pop("event")
        if kind == "loaded":
            values["load_seconds"] = event.pop("seconds")
        if kind in {"loaded", "done", "failed"}:
            values |= event
        on_event(kind)
    return values, kind


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()
