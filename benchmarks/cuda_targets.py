"""What a GPU run has to show: figures from its rows, beside the bounds that were set for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from results import Row

    Figure = Callable[[Mapping[str, float]], float]

GRANULE_MIB = 2.0
WORKLOADS = {"llama-serving-mix": 1.10, "moe-prefill": 1.20, "gpt2-training": 1.10}


@dataclass(frozen=True)
class Target:
    """A figure that must not exceed a bound, or not fall below it."""

    what: str
    figure: Figure
    bound: float
    at_most: bool = True

    @property
    def rule(self) -> str:
        """The bound as the table shows it."""
        return f"{'<=' if self.at_most else '>='} {self.bound:,g}"

    def verdict(self, values: Mapping[str, float]) -> Verdict:
        """Judge by rows' values; what was not measured is neither met nor missed."""
        try:
            figure = self.figure(values)
        except KeyError:
            return Verdict(self.what, None, self.rule, "not measured")
        met = figure <= self.bound if self.at_most else figure >= self.bound
        return Verdict(self.what, figure, self.rule, "met" if met else "missed")


@dataclass(frozen=True)
class Verdict:
    """A target and how it went."""

    what: str
    figure: float | None
    target: str
    verdict: str


def _over(row: str, peer: str) -> Figure:
    return lambda values: values[f"{row}/tierpool"] / values[f"{row}/{peer}"]


def _times_faster(row: str, peer: str) -> Figure:
    return lambda values: values[f"{row}/{peer}"] / values[f"{row}/tierpool"]


def _value(row: str) -> Figure:
    return lambda values: values[row]


def _more_than_either(row: str, *peers: str) -> Figure:
    return lambda values: values[f"{row}/tierpool"] - min(values[f"{row}/{peer}"] for peer in peers)


TARGETS = (
    Target("allocate + release, decode sizes, over CuPy's pool", _over("cuda/decode-sizes", "cupy.MemoryPool"), 0.2),
    Target("allocate + release, decode sizes, over torch.empty", _over("cuda/decode-sizes", "torch.empty"), 0.06),
    Target("Llama decode, over PyTorch's tok/s", _value("cuda/llama-decode-ratio/tierpool"), 1.0, at_most=False),
    *(
        Target(f"{name}: reserved / live peak", _value(f"cuda/reserved-{name}/tierpool"), bound)
        for name, bound in WORKLOADS.items()
    ),
    *(
        Target(
            f"{name}: MiB reserved above PyTorch's, the better of both",
            _more_than_either(f"cuda/reserved-bytes-{name}", "torch", "torch-expandable-segments"),
            GRANULE_MIB,
        )
        for name in WORKLOADS
    ),
    Target("pinned 32 MB, times faster", _times_faster("cuda/pinned-32MB", "cuMemHostAlloc"), 5000, at_most=False),
    Target(
        "pinned 16 GiB made ready, times faster",
        _times_faster("cuda/pinned-warm-up-16GiB", "cuMemHostAlloc"),
        3,
        at_most=False,
    ),
    Target("host to device, share of the link", _over("cuda/host-to-device-pinned", "the link"), 0.95, at_most=False),
)


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Judge all targets."""
    values = {row.name: row.value for row in rows}
    return [target.verdict(values) for target in TARGETS]


def markdown(judged: Iterable[Verdict]) -> str:
    """Give the verdicts as a table."""
    lines = ["## Targets", "", "| what | figure | target | |", "|---|---|---|---|"]
    for one in judged:
        figure = "" if one.figure is None else f"{one.figure:,.4g}"
        lines.append(f"| {one.what} | {figure} | {one.target} | {one.verdict} |")
    return "\n".join(lines) + "\n"
