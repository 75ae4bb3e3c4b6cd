"""Streamed against mapped: the same tokens by the same library under the same memory limit, in alternating runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tierpool._core import ConfigError
from tierpool.storage.bench_child import BenchError, ChildResult, drop_page_cache, run_child
from tierpool.storage.bench_result import BenchResult, BenchRun
from tierpool.storage.gguf import read_model
from tierpool.storage.hyperparameters import read_hyperparameters
from tierpool.storage.loading import make_plan
from tierpool.storage.memory_group import MemoryGroup
from tierpool.storage.profile import measure_profile, measure_read_bandwidth

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from tierpool.storage.bench_result import Side
    from tierpool.storage.gguf import Model
    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

    Progress = Callable[[str, int, int], None]

MIB: Final = 1 << 20
GROUP_MARGIN_BYTES: Final = 64 * MIB
"""What a group may hold above the budget: page tables, and page cache of what is not the model."""

_SEED = 1
_CONTEXT_STEP = 256
_DEFAULT_BATCH = 512
_BANDWIDTH_SECONDS = 0.5  # each time, twice a streamed run


def bench(  # noqa: PLR0913  (one argument a condition)
    path: str | os.PathLike[str],
    memory: int | str | None = None,
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
    Where all of the model fits, both are plain llama.cpp with the same parameters, and nothing is in the way of either.
    Where it does not, direct reads of the model's file are measured right before and after each streamed run.

    Parameters
    ----------
    memory : int or str, optional
        What each run may hold: bytes, or text such as "2GiB"; without a limit, by default what the system allows.
    random_tokens : bool
        True computes random tokens after the prompt instead of greedy ones. A model of random weights repeats itself,
        and so its choice of experts, unlike text.
    limited : bool
        False makes no control groups, so that nothing holds the plain runs to the memory.
    progress : callable
        Called with a step's name, steps done, and steps in all.

    Raises
    ------
    ConfigError
        When `limited`, and no memory is given.
    MemoryGroupError
        When `limited`, and there is no control group to be had.
    ModelError, PlanError, BenchError
        When the model cannot run within the memory.
    """
    if limited and memory is None:
        raise ConfigError("no memory is given: say what each run may hold, such as 2GiB, or compare without a limit")
    if limited:
        MemoryGroup(GROUP_MARGIN_BYTES).remove()  # rather now than after seconds of measuring
    model = read_model(path)
    largest = max(model.files, key=lambda file: file.size_bytes).path
    # All runs make the same plan: that of a process that holds what a run holds, not of this one.
    profile = _with_process_bytes(measure_profile(largest), _process_bytes())
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
        listen = step(f"{side}, pair {pair} of {pairs}" if pair else "llama.cpp's defaults")
        disk = largest if side == "streamed" and plan.mode != "resident" else None
        child, bandwidths = _run_between_reads(model, {**common, **tasks[side]}, limit_bytes, listen, disk)
        runs.append(BenchRun(side, pair, child, bandwidths))
    return BenchResult(plan, profile, limit_bytes, prompt_tokens, tokens, random_tokens, tuple(runs))


def _run_between_reads(
    model: Model,
    task: Mapping[str, Any],
    limit_bytes: int | None,
    listen: Callable[[str], None],
    disk: str | None,
) -> tuple[ChildResult, tuple[float, ...]]:
    """Run a task without the model in the page cache, and measure direct reads of the file `disk` around it."""
    bandwidths = [] if disk is None else [measure_read_bandwidth(disk, _BANDWIDTH_SECONDS)]
    drop_page_cache(model.files)
    child = run_child(task, limit_bytes, listen)
    if disk is not None:
        bandwidths.append(measure_read_bandwidth(disk, _BANDWIDTH_SECONDS))
    return child, tuple(bandwidths)


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
