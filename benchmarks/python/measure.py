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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REPETITIONS = 7


@dataclass(frozen=True)
class Row:
    """One figure."""

    name: str
    value: float
    unit: str
    repetitions: int
    spread: float = 0.0
    note: str = ""


def cpu_ns(work: Callable[[], object], calls: int = 1) -> float:
    """Processor time of one call, of this thread, in nanoseconds."""
    rounds = range(calls)
    start = time.thread_time_ns()
    for _ in rounds:
        work()
    return (time.thread_time_ns() - start) / calls


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
        print(f"{row.name:<48} {row.value:>12.2f} {row.unit:<10} +-{row.spread:.0%}  {row.note}")
        taken.append(asdict(row))
    if options.json:
        options.json.write_text(json.dumps(taken, indent=1) + "\n")
