"""Results as Markdown: tables with ratios, and a comparison of two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from results import OURS, Results, Row, by_workload

if TYPE_CHECKING:
    from collections.abc import Iterable

TITLES = {
    "pool": "The pool beside general-purpose mallocs",
    "two-threads": "Throughput of two threads over that of one",
    "block-allocator": "The block allocator alone, by placement",
    "utilisation": "Utilisation when a request first fails",
    "python": "From Python",
    "cuda": "On a GPU",
}
SMALLEST_CHANGE = 0.05


def markdown(results: Results) -> str:
    """Give the whole report."""
    machine = "; ".join(f"{key}: {value}" for key, value in results.machine.items())
    parts = ["# Benchmark results", f"Medians. {machine}.", *_tables(results.rows)]
    return "\n\n".join(parts) + "\n"


def _tables(rows: list[Row]) -> Iterable[str]:
    groups = list(dict.fromkeys(row.group for row in rows))
    for group in groups:
        yield f"## {TITLES.get(group, group)}"
        yield from map(_table, _sets_of_contenders([row for row in rows if row.group == group]))


def _sets_of_contenders(rows: list[Row]) -> list[list[Row]]:
    """Split rows whose contenders do not meet, so that no table is mostly empty."""
    if rows[0].group not in {"python", "cuda"}:
        return [rows]
    sets: dict[tuple[str, ...], list[Row]] = {}
    for contenders in by_workload(rows).values():
        sets.setdefault(tuple(sorted(contenders)), []).extend(contenders.values())
    return list(sets.values())


def _table(rows: list[Row]) -> str:
    contenders = list(dict.fromkeys(row.contender for row in rows))
    lines = ["| workload | unit | " + " | ".join(contenders) + " |", "|---" * (len(contenders) + 2) + "|"]
    for workload, of_workload in by_workload(rows).items():
        first = next(iter(of_workload.values()))
        unit = first.unit + (f", {first.note}" if first.note.startswith("memory") else "")
        cells = [_cell(of_workload, contender) for contender in contenders]
        lines.append(f"| {workload} | {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(of_workload: dict[str, Row], contender: str) -> str:
    row, ours = of_workload.get(contender), of_workload.get(OURS)
    if row is None:
        return ""
    if row.higher_is_better:
        return f"{row.value:.3f}" + (f" ({row.note})" if row.note.startswith("lowest") else "")
    ratio = "" if ours is None or row is ours else f" ({_rounded(ours.value / row.value)})"
    return _rounded(row.value) + ratio


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def comparison(before: Results, now: Results) -> tuple[str, list[str]]:
    """Give a table of the changed rows, and the names of those that became worse beyond noise."""
    earlier = {row.name: row for row in before.rows}
    lines = ["| row | before | now | now / before | |", "|---|---|---|---|---|"]
    worse = []
    for row in now.rows:
        old = earlier.pop(row.name, None)
        if old is None or not old.value:
            lines.append(f"| {row.name} | | {_rounded(row.value)} | | new |")
            continue
        verdict = _verdict(old, row)
        if verdict == "worse":
            worse.append(row.name)
        cells = (row.name, _rounded(old.value), _rounded(row.value), f"{row.value / old.value:.2f}", verdict)
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"| {name} | {_rounded(row.value)} | | | gone |" for name, row in earlier.items()]
    return "\n".join(lines) + "\n", worse


def _verdict(old: Row, new: Row) -> str:
    change = new.value / old.value - 1
    if new.higher_is_better:
        change = -change
    noise = max(SMALLEST_CHANGE, 2 * (old.spread + new.spread))
    if new.unit == "requested / capacity":
        noise = 0.001  # no matter of time: only code changes it
    if abs(change) <= noise:
        return ""
    return "worse" if change > 0 else "better"
