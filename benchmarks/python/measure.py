"""What the Python benchmarks share: rows of medians, taken in turn so that what disturbs one contender disturbs all.

A program defines its rows and calls `main`; `--json FILE` writes them as a list of objects: `name` is
"python/workload/contender", `value` the median, `spread` half the distance of the quartiles over it, `note` says
whether memory is touched.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import timeit
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

REPETITIONS = 7
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Row:
    """One figure."""

    name: str
    value: float
    unit: str
    repetitions: int
    spread: float = 0.0
    note: str = ""


def cpu_ns(work: Callable[[], object]) -> float:
    """Processor time of one call, of this thread, in nanoseconds."""
    start = time.thread_time_ns()
    work()
    return float(time.thread_time_ns() - start)


class Statement:
    """Code for what takes too little time to be called: samples run it in a loop and take the loop's own time off."""

    def __init__(self, code: str, names: dict[str, Any], objects: int = 1) -> None:
        self._objects = objects
        self._timer = timeit.Timer(code, timer=time.thread_time, globals=names)
        self._empty_timer = timeit.Timer(timer=time.thread_time)
        self._loops = 0

    def ns(self) -> float:
        """Processor time for each of the objects that the code makes, of this thread, in nanoseconds."""
        if self._loops == 0:
            self._loops = self._enough_loops()
        seconds = self._timer.timeit(self._loops) - self._empty_timer.timeit(self._loops)
        return seconds * 1e9 / self._loops / self._objects

    def _enough_loops(self) -> int:
        loops = 1
        while self._timer.timeit(loops) < SAMPLE_SECONDS:
            loops *= 2
        return loops


def wall_ms(work: Callable[[], object]) -> float:
    """Time of one call on the clock, in milliseconds: for work that has several threads."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e6


def spread(samples: list[float]) -> float:
    """Half the distance of the quartiles, over the median."""
    if len(samples) < 4:
        return 0.0
    first, middle, third = statistics.quantiles(samples, n=4)
    return (third - first) / 2 / middle if middle else 0.0


def compare(
    workload: str, unit: str, contenders: Mapping[str, Callable[[], float]], repetitions: int, note: str = ""
) -> list[Row]:
    """Sample every contender `repetitions` times, in turn, after one round that is not counted."""
    samples: dict[str, list[float]] = {contender: [] for contender in contenders}
    for repetition in range(repetitions + 1):
        for contender, sample in contenders.items():
            figure = sample()
            if repetition > 0:
                samples[contender].append(figure)
    return [
        Row(f"{workload}/{contender}", statistics.median(figures), unit, repetitions, spread(figures), note)
        for contender, figures in samples.items()
    ]


def main(description: str, rows: Callable[[int], Iterable[Row]]) -> None:
    """Run `rows(repetitions)`, print each row and write all as JSON when asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    taken = []
    for row in rows(options.repetitions):
        print(f"{row.name:<48} {row.value:>12.2f} {row.unit:<10} +-{row.spread:.0%}  {row.note}", flush=True)
        taken.append(asdict(row))
    if options.json:
        options.json.write_text(json.dumps(taken, indent=1) + "\n")
