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
OURS_COLOR, PEER_COLOR = "#c2410c", "#94a3b8"


def draw(rows: list[Row], path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same rows."""
    workloads = by_workload(row for row in rows if row.group == "pool")
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes, (workload, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        _draw_panel(axes, list(workloads[workload].values()), title)
    figure.suptitle("Nanoseconds for an allocation and its free, one thread, memory untouched", fontsize=10)
    with mpl.rc_context({"svg.hashsalt": "tierpool", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def _draw_panel(axes: Axes, rows: list[Row], title: str) -> None:
    names = [row.contender for row in rows]
    colors = [OURS_COLOR if name.startswith(OURS) else PEER_COLOR for name in names]
    bars = axes.barh(names, [row.value for row in rows], color=colors)
    axes.bar_label(bars, [f"{row.value:.3g}" for row in rows], padding=3, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
