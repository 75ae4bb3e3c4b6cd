"""How the command line shows results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from tierpool import _core
    from tierpool.demo import Comparison, DemoResult

_MIB = 2**20
_TORCH_FIGURES = {
    "torch_reserved_over_peak": "PyTorch, default allocator",
    "torch_expandable_segments_over_peak": "PyTorch, expandable segments",
}
_ALIASES = ("total_acquired", "total_released", "fallback_events", "pool_size")


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def statistics_table(statistics: _core.PoolStatistics) -> Table:
    """Every field once, without those that are another's second name."""
    table = _table("Statistics of one replay", "field", "value")
    for name, value in statistics.to_dict().items():
        if name not in _ALIASES:
            table.add_row(name, _number(value))
    return table


def findings_table(findings: list[_core.Finding]) -> Table:
    """Each verdict with its advice."""
    table = Table(title="Findings", title_justify="left", title_style="bold")
    for column in ("metric", "value", "verdict", "advice"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for finding in findings:
        table.add_row(finding.metric, f"{finding.value * 100:.1f}%", finding.verdict, finding.advice)
    return table


def comparison_table(untouched: Comparison, written: Comparison | None) -> Table:
    """Nanoseconds per event of the pool, the device and malloc, and their ratios."""
    table = _table(
        "Nanoseconds per allocation or free", "buffers", "pool", "device", "malloc", "device/pool", "malloc/pool"
    )
    for name, times in (("untouched", untouched), ("written in full", written)):
        if times is None:
            continue
        table.add_row(
            name,
            f"{times.pool_ns_per_event:,.0f}",
            f"{times.direct_ns_per_event:,.0f}",
            f"{times.malloc_ns_per_event:,.0f}",
            f"{times.direct_over_pool:.2f}x",
            f"{times.malloc_over_pool:.2f}x",
        )
    return table


def show_demo(console: Console, result: DemoResult) -> None:
    """Print everything the demo found."""
    committed_mb = result.warmup.committed_bytes / _MIB
    console.print(f"Warmed {committed_mb:,.0f} MB in {result.warmup.milliseconds:,.0f} ms.")
    console.print(
        f"Replayed {result.trace_name}: {result.events:,} events, at most "
        f"{result.peak_live_bytes / _MIB:.1f} MB live at once.\n"
    )
    console.print(statistics_table(result.statistics))
    console.print(findings_table(result.statistics.diagnose()))
    console.print(comparison_table(result.untouched, result.written))


def show_replay(console: Console, result: dict[str, int | float]) -> None:
    """Print one replay."""
    table = _table("Replay", "field", "value")
    for name, value in result.items():
        table.add_row(name, _number(value))
    console.print(table)


def show_fit(console: Console, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print the smallest heaps, next to what PyTorch reserved when the trace was recorded."""
    table = _table("Smallest heap that serves the whole trace", "allocator", "MB", "over live peak")
    for row in rows:
        table.add_row(
            f"tierpool, {row['placement']}",
            f"{row['capacity_bytes'] / _MIB:,.2f}",
            f"{row['capacity_over_peak']:.3f}",
        )
    for key, name in _TORCH_FIGURES.items():
        figure = header.get(key)
        if isinstance(figure, (int, float)):
            table.add_row(name, "", f"{figure:.3f}")
    console.print(table)
