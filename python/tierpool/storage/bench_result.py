"""What a comparison of runs found, and what follows from it. Values only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tierpool.storage.bench_child import ChildResult
    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

Side = Literal["streamed", "plain", "defaults"]

PHASES: Final = ("prompt", "cold", "warm")
SIDES: Final[tuple[Side, ...]] = ("streamed", "plain", "defaults")

_COUNTED = ("bytes_per_token", "hit_rate", "misses", "read_gb_per_second", "stall_ms")
_DERIVED = ("reads_over_misses", "bandwidth_share", "plan_deviation")


@dataclass(frozen=True)
class BenchRun:
    """One run of one side.

    Attributes
    ----------
    pair : int
        From 1; ``defaults`` has none.
    direct_bytes_per_second : tuple of float
        Bandwidth of direct reads of the model's file right before and after a run that streams.
    """

    side: Side
    pair: int
    child: ChildResult
    direct_bytes_per_second: tuple[float, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it computed everything."""
        return self.child.outcome == "finished"

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """Digests of all its logits, by phase."""
        return tuple(sorted(self.child.values["digests"].items()))

    def speed(self, phase: str) -> float | None:
        """Tokens per second in a phase; None when it did not finish."""
        return float(self.figure(phase, "tokens_per_second")) if self.finished else None

    def figure(self, phase: str, name: str) -> Any:
        """What a finished run counted in a phase."""
        return self.child.values["phases"][phase][name]

    def to_dict(self) -> dict[str, Any]:
        """All of it, flat."""
        values = asdict(self.child)
        return {
            "side": self.side,
            "pair": self.pair,
            "direct_bytes_per_second": list(self.direct_bytes_per_second),
            **values.pop("values"),
            **values,
        }


@dataclass(frozen=True)
class BenchResult:
    """All runs of a model under one limit, and what follows from them.

    Attributes
    ----------
    limit_bytes : int or None
        What each run's control group may hold; None when none was made.
    """

    plan: Plan
    profile: Profile
    limit_bytes: int | None
    prompt_tokens: int
    tokens: int
    random_tokens: bool
    runs: tuple[BenchRun, ...]

    def of_side(self, side: Side) -> list[BenchRun]:
        """Runs of one side, in order."""
        return [run for run in self.runs if run.side == side]

    def speed(self, side: Side, phase: str) -> float | None:
        """Median tokens per second; None when any run of the side did not finish."""
        return _median(run.speed(phase) for run in self.of_side(side))

    def ratio(self, phase: str) -> float | None:
        """Median over the pairs of streamed over plain; None when a run did not finish."""
        pairs = zip(self.of_side("streamed"), self.of_side("plain"), strict=True)
        return _median(_over(streamed.speed(phase), plain.speed(phase)) for streamed, plain in pairs)

    def streamed(self, phase: str, name: str) -> float | None:
        """Median of one figure of the streamed runs; None when one did not finish, or where it means nothing.

        Beside what `PhaseStatistics` counts there are ``reads_over_misses``: bytes read over those of the experts that
        were missing; ``bandwidth_share``: bandwidth while reading over that of direct reads right before and after the
        run; ``plan_deviation``: bytes read for a token over those that were planned, less one.
        """
        return _median(self._figure(run, phase, name) for run in self.of_side("streamed"))

    def load_seconds(self, side: Side) -> float | None:
        """Median time from the start of loading to its end; None when a run did not finish."""
        return _median(run.child.values["load_seconds"] if run.finished else None for run in self.of_side(side))

    @property
    def direct_bytes_per_second(self) -> float | None:
        """Median of the direct reads around the streamed runs; None where nothing is streamed."""
        return _median(value for run in self.runs for value in run.direct_bytes_per_second)

    @property
    def unit_bytes(self) -> float | None:
        """The mean size of what a miss brings; None where misses do not tell what is read.

        A ring reads every layer that goes around, and those that arrive in time are no misses.
        """
        if self.plan.mode != "experts":
            return None
        return sum(placed.size_bytes for placed in self.plan.placements if placed.tier == "nvme") / self.plan.units

    @property
    def unused_share(self) -> float | None:
        """Share of the budget that the process never held, by the median of the runs' peaks."""
        runs = self.of_side("streamed")
        peak = _median(run.child.values["process_peak_bytes"] if run.finished else None for run in runs)
        return None if peak is None else 1 - peak / self.plan.budget.limit_bytes

    @property
    def planned_unused_share(self) -> float:
        """Share of the budget that the plan has no use for."""
        return self.plan.budget.unused_bytes / self.plan.budget.limit_bytes

    def differing_tokens(self, side: Side) -> int | None:
        """Tokens of a side's finished runs that differ from a streamed run's; None when there is no such pair."""
        runs = [run for run in self.of_side(side) if run.finished]
        streamed = [run for run in self.of_side("streamed") if run.finished]
        if not runs or not streamed:
            return None
        first, *others = (list[int](run.child.values["tokens"]) for run in (streamed[0], *runs))
        return sum(one != other for tokens in others for one, other in zip(first, tokens, strict=True))

    def equal_logits(self) -> bool | None:
        """Whether all logits of all streamed and plain runs that finished are equal, bit for bit.

        None when on one side no run finished, so that there is nothing to compare with.
        """
        finished = [run for run in self.of_side("streamed") + self.of_side("plain") if run.finished]
        if len({run.digests for run in finished}) > 1:
            return False
        return True if len({run.side for run in finished}) > 1 else None

    @property
    def succeeded(self) -> bool:
        """Whether every streamed run finished, and computed what every plain run that finished computed.

        The kernel may have killed plain runs, as it does where a model does not fit; an error of theirs is no result.
        """
        return (
            all(run.finished for run in self.of_side("streamed"))
            and all(run.child.outcome != "failed" for run in self.of_side("plain"))
            and self.equal_logits() is not False
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, medians and ratios included; the plan without its list of tensors."""
        plan = self.plan.to_dict()
        del plan["placements"]
        return {
            "plan": plan,
            "profile": self.profile.to_dict(),
            "limit_bytes": self.limit_bytes,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "random_tokens": self.random_tokens,
            "tokens_per_second": {side: {phase: self.speed(side, phase) for phase in PHASES} for side in SIDES},
            "load_seconds": {side: self.load_seconds(side) for side in SIDES},
            "ratio": {phase: self.ratio(phase) for phase in PHASES},
            "streamed": {phase: {name: self.streamed(phase, name) for name in _COUNTED + _DERIVED} for phase in PHASES},
            "direct_bytes_per_second": self.direct_bytes_per_second,
            "unit_bytes": self.unit_bytes,
            "unused_share": {"process": self.unused_share, "plan": self.planned_unused_share},
            "equal_logits": self.equal_logits(),
            "differing_tokens": {side: self.differing_tokens(side) for side in SIDES[1:]},
            "runs": [run.to_dict() for run in self.runs],
        }

    def _figure(self, run: BenchRun, phase: str, name: str) -> float | None:
        if not run.finished:
            return None
        if name not in _DERIVED:
            return float(run.figure(phase, name))
        if name == "bandwidth_share":
            direct = mean(run.direct_bytes_per_second) if run.direct_bytes_per_second else None
            return _over(run.figure(phase, "read_gb_per_second") * 1e9 or None, direct)
        if phase == "prompt":
            return None  # tokens of a batch share what one of them had read, and the plan is for one token at a time
        if name == "reads_over_misses":
            return _over(run.figure(phase, "read_bytes"), run.figure(phase, "misses") * (self.unit_bytes or 0))
        share = _over(run.figure(phase, "bytes_per_token"), self.plan.estimate.read_bytes)
        return None if share is None else share - 1


def _over(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _median(values: Iterable[float | None]) -> float | None:
    """None when one is missing, or there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return float(median(known)) if known and len(known) == len(found) else None
