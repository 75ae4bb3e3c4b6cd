"""One measured run, a program of its own: a task as JSON on standard input, events as lines of JSON on standard output.

A process of its own begins without memory, page cache and threads of another run, and the kernel may kill it.

A task has ``side`` (``streamed``, ``plain`` or ``measure``), ``path``, ``prompt`` (tokens), ``tokens`` (how many to
generate in each of the phases cold and warm), and either what `make_plan` takes or what `load_plain` takes as
``settings``. Events are ``loaded``, ``prompt``, ``token`` and, last, ``done`` or ``failed``.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tierpool._core import TierpoolError
from tierpool.storage.engine_llama import load_engine, load_plain
from tierpool.storage.limits import read_limits
from tierpool.storage.llama_library import llama_library
from tierpool.storage.loading import make_plan
from tierpool.storage.model_statistics import StatisticsGatherer
from tierpool.storage.profile import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tierpool.storage.engine import Engine

    Report = Callable[..., None]

PHASES = ("prompt", "cold", "warm")


def load_side(task: Mapping[str, Any]) -> Engine:
    """Load the model the way the task's side does."""
    settings = task["settings"]
    if task["side"] == "plain":
        return load_plain(task["path"], **settings)
    return load_engine(make_plan(task["path"], **{**settings, "profile": Profile.from_dict(settings["profile"])}))


def run(
    engine: Engine, prompt: Sequence[int], tokens: int, given: Sequence[int] | None, report: Report
) -> dict[str, Any]:
    """Compute a prompt, then two phases of `given` or greedy tokens; what generation would end goes on here.

    Cold begins with nothing but what loading left in memory, warm with what cold left.
    """
    gatherer = StatisticsGatherer(engine)
    digests = {phase: hashlib.blake2b(digest_size=16) for phase in PHASES}
    generated: list[int] = []
    faults = 0

    def compute(phase: str, step: Sequence[int]) -> None:
        with gatherer.measure(phase, len(step)):
            logits = engine.evaluate(step)
        digests[phase].update(logits.tobytes())
        generated.append(int(np.argmax(logits)))

    compute("prompt", prompt)
    report("prompt", seconds=gatherer.phase("prompt").seconds)
    for phase in ("cold", "warm"):
        for _ in range(tokens):
            done = len(generated) - 1  # of the tokens after the prompt
            compute(phase, generated[-1:] if given is None else given[done : done + 1])
            if len(generated) == 2:  # the first that was computed after the prompt
                faults = major_faults()
            report("token", phase=phase)
    statistics = gatherer.snapshot()
    return {
        "phases": {phase: gatherer.phase(phase).to_dict() for phase in PHASES},
        "digests": {phase: digest.hexdigest() for phase, digest in digests.items()},
        "tokens": generated,
        "major_faults": major_faults() - faults,
        "loaded_bytes": statistics.loaded_bytes,
        "process_peak_bytes": statistics.peak_bytes,
    }


def major_faults() -> int:
    """Faults of this process, all threads, that waited for a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def perform(task: Mapping[str, Any], report: Report) -> None:
    """Do a task and report it."""
    if task["side"] == "measure":
        llama_library()
        report("done", process_bytes=read_limits().process_bytes)
        return
    begin = time.perf_counter()
    engine = load_side(task)
    try:
        report("loaded", seconds=time.perf_counter() - begin, mode=engine.plan.mode, n_ubatch=engine.plan.n_ubatch)
        report("done", **run(engine, task["prompt"], task["tokens"], task["given"], report))
    finally:
        engine.close()


def main() -> int:
    """Read the task, keep the standard output to ourselves, and say what went wrong as an event."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not end up between the events

    def report(event: str, **values: object) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")
        events.flush()

    try:
        perform(json.load(sys.stdin), report)
    except (TierpoolError, OSError, ValueError, ImportError, MemoryError) as error:
        report("failed", message=str(error) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
