"""Generate greedily while reads of the weights fail, and print what each failure did, as JSON.

``LD_PRELOAD=faulty_disk.so python faulty_run.py MODEL SHARE TOKENS``; what the file is harmed by, it is healed from.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "python"))

from streamed_runs import difference, generate, plan_share, prompt_of

from tierpool import ReadError
from tierpool.storage.engine_llama import LlamaEngine, load_engine
from tierpool.storage.gguf import read_model
from tierpool.storage.limits import read_limits
from tierpool.storage.profile import Profile

KINDS = ("fails", "ends", "is cut", "hangs")  # as faulty_disk.c numbers them


class FaultyDisk:
    """What the preloaded library does to the model's file."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._path = path
        self._bytes = path.read_bytes()
        self._status = path.stat()
        self.break_at(-1, "fails")

    def break_at(self, reads_before: int, kind: str) -> None:
        name, size = os.fsencode(self._path), ctypes.c_long(len(self._bytes) // 2)
        self._library.disk_break(name, ctypes.c_long(reads_before), KINDS.index(kind), size)

    def reads(self) -> int:
        return int(self._library.disk_reads())

    def waiting(self) -> int:
        return int(self._library.disk_waiting())

    def heal(self) -> int:
        """How many faults there were."""
        if self._path.stat().st_size != len(self._bytes):
            self._path.write_bytes(self._bytes)  # into the same file
            os.utime(self._path, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))
        return int(self._library.disk_heal())


def disturbed(engine: LlamaEngine, disk: FaultyDisk, calls: list[list[int]], expected: np.ndarray) -> dict[str, Any]:
    """Make the calls; one that fails is made again after the disk healed."""
    found: dict[str, Any] = {"failed_calls": [], "messages": [], "lost": [], "faults": 0}
    engine.truncate(0)
    rows = []
    for number, tokens in enumerate(calls):
        position = engine.position
        try:
            rows.append(engine.evaluate(tokens))
        except ReadError as error:
            found["failed_calls"].append(number)
            found["messages"].append(str(error))
            if engine.position != position:
                found["lost"].append(number)
            found["faults"] += disk.heal()
            rows.append(engine.evaluate(tokens))
    found["faults"] += disk.heal()
    found["difference"] = difference(np.stack(rows), expected)
    return found


def main() -> None:
    path, share, tokens = Path(sys.argv[1]).resolve(), float(sys.argv[2]), int(sys.argv[3])
    disk = FaultyDisk(path)
    plan = plan_share(read_model(path), Profile(str(path), True, 2e9, 1.5e9, 20e9, read_limits()), share)
    engine = load_engine(plan, strict=True)  # anything computed from what did not arrive would end the process
    prompt = prompt_of(2 * plan.n_ubatch + 3, engine.vocabulary_size)
    before = disk.reads()
    expected = generate(engine, prompt, tokens)
    reads = disk.reads() - before
    calls = [prompt, *([int(row.argmax())] for row in expected[:-1])]
    runs = []
    for kind in KINDS[:3]:
        for reads_before in (0, 1, 2, reads // 4, reads // 2, 3 * reads // 4):
            disk.break_at(reads_before, kind)
            run = disturbed(engine, disk, calls, expected)
            runs.append({"kind": kind, "reads_before": reads_before, **run})
    engine.close()
    print(json.dumps({"mode": plan.mode, "reads": reads, "runs": runs}))


if __name__ == "__main__":
    main()
