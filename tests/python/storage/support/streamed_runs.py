"""Small models, plans across the budgets at which they stream, and greedy runs whose logits are kept whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_shapes import ModelShape
from tierpool.storage.engine_llama import load_plain
from tierpool.storage.errors import PlanError
from tierpool.storage.planner import plan_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tierpool.storage.engine import Engine
    from tierpool.storage.gguf import Model
    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

CONTEXT = 1024
TOKENS = 200
MIXTURES = ("mixtral", "qwen3moe", "gpt-oss")
DENSE = ("llama", "qwen2", "qwen3")
_MOST_BYTES = 4 << 30


def shape_of(architecture: str) -> ModelShape:
    """Some 17 MB, mostly streamed, of pieces that are no whole pages."""
    if architecture in MIXTURES:
        return ModelShape(architecture, layers=4)
    return ModelShape(architecture, layers=12, feed_forward=1440)


def least_budget(model: Model, profile: Profile) -> int:
    """The budget below which no plan exists."""
    try:
        plan_model(model, profile, 0, context=CONTEXT)
    except PlanError as error:
        return error.needed
    raise AssertionError("a plan without memory")


def whole_budget(model: Model, profile: Profile) -> int:
    """The budget from which on everything stays in memory."""
    low, high = least_budget(model, profile), _MOST_BYTES
    while low + 1 < high:
        middle = (low + high) // 2
        if plan_model(model, profile, middle, context=CONTEXT).mode == "resident":
            high = middle
        else:
            low = middle
    return high


def plan_share(model: Model, profile: Profile, share: float, threads: int = 1) -> Plan:
    """Plan with `share` of the way from the least budget to the one at which nothing is streamed."""
    least, whole = least_budget(model, profile), whole_budget(model, profile)
    return plan_model(model, profile, least + int(share * (whole - least)), context=CONTEXT, threads=threads)


def load_reference(plan: Plan) -> Engine:
    """Load the plan's file with llama.cpp's own mapping and nothing in the way, but with the plan's settings."""
    return load_plain(
        plan.path,
        n_ubatch=plan.n_ubatch,
        threads=plan.threads,
        context=plan.context,
        flash_attention=plan.flash_attention,
        kv_type=plan.kv_type,
        extra_buffers=plan.extra_buffers,
    )


def prompt_of(length: int, vocabulary: int) -> list[int]:
    """Tokens that follow no pattern, the same each time."""
    return [int(token) for token in np.random.default_rng(length).integers(3, vocabulary, length)]


def generate(engine: Engine, prompt: Sequence[int], tokens: int = TOKENS) -> NDArray[np.float32]:
    """Continue greedily from an empty context; the logits that each of `tokens` tokens was chosen by, one row each."""
    engine.truncate(0)
    rows = [engine.evaluate(prompt)]
    while len(rows) < tokens:
        rows.append(engine.evaluate([int(rows[-1].argmax())]))
    return np.stack(rows)


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> str:
    """Where two runs differ in any bit; empty when they do not."""
    if found.shape != expected.shape:
        return f"shapes {found.shape} and {expected.shape}"
    same = (found.view(np.uint32) == expected.view(np.uint32)).all(axis=1)
    if same.all():
        return ""
    token = int(np.flatnonzero(~same)[0])
    return f"{(~same).sum()} of {len(same)} tokens, first {token}, by {np.abs(found[token] - expected[token]).max()}"
