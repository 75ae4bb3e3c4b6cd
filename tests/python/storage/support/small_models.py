"""Models that are written and loaded within a moment, and plans by which they stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from streamed_runs import prompt_of

from make_model import write_model
from model_shapes import ModelShape
from tierpool.storage.errors import PlanError
from tierpool.storage.gguf import read_model
from tierpool.storage.planner import plan_model

if TYPE_CHECKING:
    from pathlib import Path

    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

CONTEXT = 256
VOCABULARY = 400
PROMPT = prompt_of(37, VOCABULARY)


def write_small(path: Path, architecture: str) -> Path:
    """Four layers of an architecture."""
    write_model(path, ModelShape(architecture, layers=4, vocabulary=VOCABULARY))
    return path


def plan_small(path: Path, profile: Profile, share: float) -> Plan:
    """A plan with the least memory and `share` of the weights more."""
    model = read_model(path)
    with pytest.raises(PlanError) as refused:
        plan_model(model, profile, 1 << 20, context=CONTEXT, threads=1)
    budget = refused.value.needed + round(share * model.weight_bytes)
    return plan_model(model, profile, budget, context=CONTEXT, threads=1)
