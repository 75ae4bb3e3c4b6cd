"""Rows of figures: how programs hand them over, and how they are kept."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OURS = "tierpool"
HIGHER_IS_BETTER = {"requested / capacity", "x"}
_RUN_SUFFIX = re.compile(r"(/(iterations|repeats|threads):\d+)+$")


@dataclass(frozen=True)
class Row:
    """One figure: `name` is "group/workload/contender", `spread` half the distance of the quartiles over `value`."""

    name: str
    value: float
    unit: str
    repetitions: int
    spread: float = 0.0
    note: str = ""

    @property
    def group(self) -> str:
        """What kind of measurement this is."""
        return self.name.split("/", 1)[0]

    @property
    def workload(self) -> str:
        """What is done."""
        return self.name.split("/", 1)[1].rpartition("/")[0]

    @property
    def contender(self) -> str:
        """Who does it."""
        return self.name.rpartition("/")[2]

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return self.unit in HIGHER_IS_BETTER


@dataclass(frozen=True)
class Results:
    """All rows of a run and the machine they are from."""

    machine: dict[str, Any]
    rows: list[Row]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(
            json.dumps({"machine": self.machine, "rows": [asdict(row) for row in self.rows]}, indent=1) + "\n"
        )

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        stored = json.loads(path.read_text())
        return cls(stored["machine"], [Row(**row) for row in stored["rows"]])


def load_rows(path: Path) -> list[Row]:
    """Read a plain list of rows, as the Python programs write it."""
    return [Row(**row) for row in json.loads(path.read_text())]


def load_google_benchmark(paths: Iterable[Path]) -> list[Row]:
    """Read google-benchmark's JSON, repetitions of a row wherever they are.

    Raises RuntimeError for a row that could not run, with its reason.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        for run in json.loads(path.read_text())["benchmarks"]:
            if run.get("error_occurred"):
                raise RuntimeError(f"{run['name']}: {run['error_message']}")
            if run["run_type"] == "iteration":
                runs.setdefault(run["run_name"], []).append(run)
    rows = [_row_of(name, repetitions) for name, repetitions in runs.items()]
    return rows + _scaling(runs)


def _name(run_name: str, threads: int) -> str:
    group_and_workload, _, contender = _RUN_SUFFIX.sub("", run_name).rpartition("/")
    return f"{group_and_workload}{f'/{threads}-threads' if threads > 1 else ''}/{contender}"


def _row_of(run_name: str, runs: list[dict[str, Any]]) -> Row:
    first = runs[0]
    name = _name(run_name, first["threads"])
    what, _, note = first["label"].partition("; ")
    if "mean" in first:
        return Row(name, first["mean"], what, len(runs), 0.0, f"lowest {first['min']:.3f}")
    # Several threads share the clock's time; the processor time of one says nothing about waiting.
    clock = "real_time" if first["threads"] > 1 else "cpu_time"
    figures = [run[clock] for run in runs]
    return Row(name, statistics.median(figures), f"ns/{what}", len(runs), _spread(figures), note)


def _spread(figures: list[float]) -> float:
    if len(figures) < 4:
        return 0.0
    first, middle, third = statistics.quantiles(figures, n=4)
    return (third - first) / 2 / middle


def _scaling(runs: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """Throughput of two threads over that of one, both by the clock."""
    rows = []
    for run_name, two in runs.items():
        one = runs.get(run_name.replace("/threads:2", "/threads:1"))
        if two[0]["threads"] == 2 and one is not None:
            ratio = statistics.median(r["real_time"] for r in one) / statistics.median(r["real_time"] for r in two)
            workload = _name(run_name, 1).split("/", 1)[1]
            rows.append(Row(f"two-threads/{workload}", ratio, "x", len(two), 0.0, "throughput of one thread = 1"))
    return rows


def by_workload(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Group rows as workload -> contender -> row, in the order they come."""
    grouped: dict[str, dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault(row.workload, {})[row.contender] = row
    return grouped
