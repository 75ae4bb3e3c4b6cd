"""The README's plot: the pool beside its peers, one panel a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from results import OURS, Row, by_workload

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

PANELS = {
    "fixed-64KiB": "64 KiB, again and again",
    "trace-llama-1b-decode": "Llama decode trace",
    "batch-1750-256B-1MiB": "1,750 at once, 256 B to 1 MiB",
    "churn-256B-1MiB/live:1000": "random turnover, 1,000 live",
}
TITLE = "Nanoseconds for an allocation and its free: one thread, memory untouched, logarithmic scale"
TICKS_NS = (1, 10, 100, 1_000)
OURS_COLOR, OUR_VARIANT_COLOR, PEER_COLOR = "#c2410c", "#fdba74", "#94a3b8"


def draw(rows: list[Row], path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same rows."""
    workloads = by_workload(row for row in rows if row.group == "pool")
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flat
    for axes, (workload, title) in zip(panels, PANELS.items(), strict=True):
        _draw_panel(axes, list(workloads[workload].values()), title)
    figure.suptitle(TITLE, fontsize=11)
    with mpl.rc_context({"svg.hashsalt": "tierpool", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_panel(axes: Axes, rows: list[Row], title: str) -> None:
    names = [row.contender for row in rows]
    bars = axes.barh(names, [row.value for row in rows], color=[_color(name) for name in names], zorder=2)
    axes.bar_label(bars, [f"{row.value:.3g}" for row in rows], padding=3, fontsize=9)
    axes.set_title(title, fontsize=10)
    # The same in every panel, so that bars may be compared, and with room for the labels behind them.
    axes.set_xscale("log")
    axes.set_xlim(TICKS_NS[0], 5 * TICKS_NS[-1])
    axes.set_xticks(TICKS_NS, [f"{tick:,}" for tick in TICKS_NS])
    axes.tick_params(which="minor", bottom=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(labelsize=9)
    axes.grid(axis="x", color="#e2e8f0", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _color(name: str) -> str:
    if name == OURS:
        return OURS_COLOR
    return OUR_VARIANT_COLOR if name.startswith(OURS) else PEER_COLOR
