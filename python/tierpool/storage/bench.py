"""Streamed against mapped: the same tokens by the same library under the same memory limit, in alternating runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from tierpool.storage.bench_child import BenchError, ChildResult, drop_page_cache, run_child
from tierpool.storage.gguf import read_model
from tierpool.storage.hyperparameters import read_hyperparameters
from tierpool.storage.loading import make_plan
from tierpool.storage.memory_group import MemoryGroup
from tierpool.storage.profile import measure_profile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from tierpool.storage.gguf import Model
    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

    Progress = Callable[[str, int, int], None]

Side = Literal["streamed", "plain", "defaults"]
MIB: Final = 1 << 20
GROUP_MARGIN_BYTES: Final = 64 * MIB
"""What a group may hold above the budget: page tables, and page cache of what is not the model."""

_SEED = 1
_CONTEXT_STEP = 256
_DEFAULT_BATCH = 512


@dataclass(frozen=True)
class BenchRun:
    """One run of one side; `pair` counts from 1, and ``defaults`` has none."""

    side: Side
    pair: int
    child: ChildResult

    def speed(self, phase: str) -> float | None:
        """Tokens per second in a phase; None when it did not finish."""
        value = self._phase(phase, "tokens_per_second")
        return float(value) if value is not None else None

    def _phase(self, phase: str, name: str) -> Any:
        return self.child.values["phases"][phase][name] if self.child.outcome == "finished" else None

    def to_dict(self) -> dict[str, Any]:
        """All of it, flat."""
        values = asdict(self.child)
        return {"side": self.side, "pair": self.pair, **values.pop("values"), **values}


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
        speeds = [run.speed(phase) for run in self.of_side(side)]
        finished = [speed for speed in speeds if speed is not None]
        return median(finished) if finished and len(finished) == len(speeds) else None

    def ratio(self, phase: str) -> float | None:
        """Median over the pairs of streamed over plain; None when a run did not finish."""
        pairs = zip(self.of_side("streamed"), self.of_side("plain"), strict=True)
        ratios = [
            ours / theirs
            for streamed, plain in pairs
            if (ours := streamed.speed(phase)) is not None and (theirs := plain.speed(phase))
        ]
        return median(ratios) if len(ratios) == len(self.of_side("streamed")) else None

    def streamed(self, phase: str, name: str) -> float | None:
        """Median of one figure of the streamed runs; None when one did not finish."""
        runs = self.of_side("streamed")
        if any(run.child.outcome != "finished" for run in runs):
            return None
        return float(median(run.child.values["phases"][phase][name] for run in runs))

    def differing_tokens(self, side: Side) -> int | None:
        """Tokens of a side's runs that differ from the first streamed run's; None when one did not finish."""
        runs = [self.of_side("streamed")[0], *self.of_side(side)]
        if any(run.child.outcome != "finished" for run in runs):
            return None
        first, *others = (list[int](run.child.values["tokens"]) for run in runs)
        return sum(one != other for tokens in others for one, other in zip(first, tokens, strict=True))

    def equal_logits(self) -> bool | None:
        """Whether all logits of all streamed and plain runs are equal, bit for bit; None when one did not finish."""
        runs = self.of_side("streamed") + self.of_side("plain")
        if any(run.child.outcome != "finished" for run in runs):
            return None
        return len({tuple(sorted(run.child.values["digests"].items())) for run in runs}) == 1

    @property
    def succeeded(self) -> bool:
        """Whether every streamed run finished, and computed what every plain run that finished computed."""
        streamed = self.of_side("streamed")
        return all(run.child.outcome == "finished" for run in streamed) and self.equal_logits() is not False

    def to_dict(self) -> dict[str, Any]:
        """Everything, medians and ratios included; the plan without its list of tensors."""
        plan = self.plan.to_dict()
        del plan["placements"]
        names = ("bytes_per_token", "hit_rate", "read_gb_per_second", "stall_ms")
        phases = ("prompt", "cold", "warm")
        return {
            "plan": plan,
            "profile": self.profile.to_dict(),
            "limit_bytes": self.limit_bytes,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "random_tokens": self.random_tokens,
            "tokens_per_second": {
                side: {phase: self.speed(side, phase) for phase in phases} for side in ("streamed", "plain", "defaults")
            },
            "ratio": {phase: self.ratio(phase) for phase in phases},
            "streamed": {phase: {name: self.streamed(phase, name) for name in names} for phase in phases},
            "equal_logits": self.equal_logits(),
            "differing_tokens": {side: self.differing_tokens(side) for side in ("plain", "defaults")},
            "runs": [run.to_dict() for run in self.runs],
        }


def bench(  # noqa: PLR0913  (one argument a condition)
    path: str | os.PathLike[str],
    memory: int | str,
    *,
    tokens: int = 32,
    pairs: int = 3,
    prompt_tokens: int = 32,
    threads: int | None = None,
    random_tokens: bool = False,
    limited: bool = True,
    progress: Progress = lambda _step, _done, _total: None,
) -> BenchResult:
    """Compare a model within `memory` with a plain mapping of it, and once with llama.cpp's defaults.

    Each run is a process of its own, in a control group that may hold `memory` and 64 MiB. The model's pages are
    dropped from the page cache before it starts. It computes a prompt, then `tokens` greedy tokens (cold), then as many
    again (warm). Both sides have the same threads, batches, attention and KV cache, so that they compute the same.

    Parameters
    ----------
    random_tokens : bool
        True computes random tokens after the prompt instead of greedy ones. A model of random weights repeats itself,
        and so its choice of experts, unlike text.
    limited : bool
        False makes no control groups, so that nothing holds the plain runs to the memory.
    progress : callable
        Called with a step's name, steps done, and steps in all.

    Raises
    ------
    MemoryGroupError
        When `limited`, and there is no control group to be had.
    ModelError, PlanError, BenchError
        When the model cannot run within the memory.
    """
    if limited:
        MemoryGroup(GROUP_MARGIN_BYTES).remove()  # rather now than after seconds of measuring
    model = read_model(path)
    profile = measure_profile(max(model.files, key=lambda file: file.size_bytes).path)
    # All runs make the same plan: that of a process that holds what a run holds, not of this one.
    profile = _with_process_bytes(profile, _process_bytes())
    context = -(-(prompt_tokens + 2 * tokens) // _CONTEXT_STEP) * _CONTEXT_STEP
    plan = make_plan(path, memory, context, threads, profile=profile)
    limit_bytes = plan.budget.limit_bytes + GROUP_MARGIN_BYTES if limited else None
    drawn = _random_tokens(model, prompt_tokens + 2 * tokens)
    common = {
        "path": plan.path,
        "prompt": drawn[:prompt_tokens],
        "tokens": tokens,
        "given": drawn[prompt_tokens:] if random_tokens else None,
    }
    tasks = _tasks(plan, profile)
    order: list[tuple[Side, int]] = [(side, pair) for pair in range(1, pairs + 1) for side in _alternate(pair)]
    order.append(("defaults", 0))
    steps = _Steps(progress, len(order), 2 * tokens + 2)
    runs = []
    for (side, pair), step in zip(order, steps, strict=True):
        name = f"{side}, pair {pair} of {pairs}" if pair else "llama.cpp's defaults"
        drop_page_cache(model.files)
        child = run_child({**common, **tasks[side]}, limit_bytes, step(name))
        runs.append(BenchRun(side, pair, child))
    return BenchResult(plan, profile, limit_bytes, prompt_tokens, tokens, random_tokens, tuple(runs))


def _alternate(pair: int) -> tuple[Side, Side]:
    """Who goes first changes, so that a drift of the machine favours nobody."""
    return ("streamed", "plain") if pair % 2 else ("plain", "streamed")


class _Steps:
    """Turns the events of one run after the other into steps of the whole."""

    def __init__(self, progress: Progress, runs: int, steps: int) -> None:
        self._progress, self._runs, self._steps = progress, runs, steps

    def __iter__(self) -> Iterator[Callable[[str], Callable[[str], None]]]:
        for index in range(self._runs):
            yield lambda name, index=index: self._listener(name, index)  # type: ignore[misc]

    def _listener(self, name: str, index: int) -> Callable[[str], None]:
        done, total = index * self._steps, self._runs * self._steps
        self._progress(name, done, total)

        def listen(event: str) -> None:
            nonlocal done
            if event != "done":
                done += 1
                self._progress(name, done, total)

        return listen


def _tasks(plan: Plan, profile: Profile) -> Mapping[Side, dict[str, Any]]:
    plain = {
        "n_ubatch": plan.n_ubatch,
        "threads": plan.threads,
        "context": plan.context,
        "flash_attention": plan.flash_attention,
        "kv_type": plan.kv_type,
        "extra_buffers": plan.extra_buffers,
    }
    defaults = {**plain, "n_ubatch": _DEFAULT_BATCH, "extra_buffers": True}
    planned = {
        "memory": plan.budget.limit_bytes,
        "context": plan.context,
        "threads": plan.threads,
        "profile": profile.to_dict(),
    }
    return {
        "streamed": {"side": "streamed", "settings": planned},
        "plain": {"side": "plain", "settings": plain},
        "defaults": {"side": "plain", "settings": defaults},
    }


def _random_tokens(model: Model, count: int) -> list[int]:
    """Tokens that are the same in every bench; a synthetic model has no words to write them with."""
    vocabulary = read_hyperparameters(model).vocabulary
    return [int(token) for token in np.random.default_rng(_SEED).integers(0, vocabulary, count)]


def _process_bytes() -> int:
    """What a run holds before it loads anything, in whole MiB, which is the same every time."""
    child = run_child({"side": "measure"}, None)
    if child.outcome != "finished":
        raise BenchError(f"no run could be started: {child.message}")
    return -(-int(child.values["process_bytes"]) // MIB) * MIB


def _with_process_bytes(profile: Profile, process_bytes: int) -> Profile:
    return replace(profile, limits=replace(profile.limits, process_bytes=process_bytes, import_bytes=0))
