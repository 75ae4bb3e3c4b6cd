"""Interrupt loads from a disk that hangs, and print what became of them, as JSON.

``LD_PRELOAD=faulty_disk.so python interrupted_load.py MODEL SHARE``; the disk is healed once the load was cancelled.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "python"))

from faulty_run import FaultyDisk
from streamed_runs import difference, generate, plan_share, prompt_of

from tierpool import _core
from tierpool.storage import engine_llama
from tierpool.storage.engine_llama import load_engine
from tierpool.storage.gguf import read_model
from tierpool.storage.limits import read_limits
from tierpool.storage.plan import Plan
from tierpool.storage.profile import Profile


class EnoughError(Exception):
    pass


def kept(path: Path) -> list[str]:
    """What a load left in the process."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    threads = [thread.name for thread in threading.enumerate() if thread.name == "tierpool-engine"]
    return [line for line in maps if str(path) in line or "/memfd:" in line] + threads


def attempt(plan: Plan, disk: FaultyDisk, reads_before: int, by_progress: bool) -> dict[str, Any]:
    """Load until the disk hangs; then Ctrl-C, or an exception of what is told the progress."""

    class Watch(_core.LoadingWatch):
        def cancel(self) -> None:
            super().cancel()
            disk.heal()

    def interrupt() -> None:
        while not disk.waiting():
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        waiting = disk.waiting()
        told.append((done, total))
        if waiting:
            raise EnoughError

    engine_llama.LoadingWatch = Watch  # type: ignore[misc]
    begin, raised = disk.reads(), ""
    disk.break_at(reads_before, "hangs")
    interrupter = threading.Thread(target=interrupt)
    if not by_progress:
        interrupter.start()
    try:
        load_engine(plan, progress=tell if by_progress else None).close()
    except (KeyboardInterrupt, EnoughError) as error:
        raised = type(error).__name__
    if not by_progress:
        interrupter.join()
    engine_llama.LoadingWatch = _core.LoadingWatch  # type: ignore[misc]
    return {
        "expected": "EnoughError" if by_progress else "KeyboardInterrupt",
        "raised": raised,
        "reads_before": reads_before,
        "reads": disk.reads() - begin,
        "told": told,
        "kept": kept(Path(plan.path)),
    }


def main() -> None:
    path, share = Path(sys.argv[1]).resolve(), float(sys.argv[2])
    disk = FaultyDisk(path)
    plan = plan_share(read_model(path), Profile(str(path), True, 2e9, 1.5e9, 20e9, read_limits()), share)
    progress: list[tuple[int, int]] = []
    engine = load_engine(plan, progress=lambda done, total: progress.append((done, total)))
    reads = disk.reads()
    prompt = prompt_of(11, engine.vocabulary_size)
    expected = generate(engine, prompt, 3)
    engine.close()
    places = (0, reads // 3, reads // 2)
    attempts = [attempt(plan, disk, place, by_progress) for by_progress in (False, True) for place in places]
    engine = load_engine(plan)
    found = difference(generate(engine, prompt, 3), expected)
    engine.close()
    print(
        json.dumps({"mode": plan.mode, "reads": reads, "progress": progress, "attempts": attempts, "difference": found})
    )


if __name__ == "__main__":
    main()
