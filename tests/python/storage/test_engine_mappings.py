"""The mappings that a streamed model takes are those that are planned, where there are hardly enough too."""

from __future__ import annotations

import dataclasses
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from gguf import GGUFWriter
from small_models import PROMPT, VOCABULARY, plan_small
from streamed_runs import generate, load_reference

from make_model import write_model
from model_shapes import HEAD_WIDTH, ModelShape
from tierpool import BudgetError
from tierpool.storage.engine_llama import load_engine
from tierpool.storage.plan import Plan
from tierpool.storage.profile import Profile
from tierpool.storage.request import MAPPINGS_KEPT


@pytest.fixture
def whole_pages_plan(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Many experts of two pages each, so that every slot takes mappings, of which there are not enough for all."""

    def aligned_writer(*arguments: Any, **settings: Any) -> GGUFWriter:
        writer = GGUFWriter(*arguments, **settings)
        writer.add_custom_alignment(mmap.PAGESIZE)
        return writer

    monkeypatch.setattr("make_model.ALIGNMENT", mmap.PAGESIZE)
    monkeypatch.setattr("make_model.GGUFWriter", aligned_writer)
    path = tmp_path / "pages.gguf"
    feed_forward = 2 * mmap.PAGESIZE // 2 // HEAD_WIDTH
    shape = ModelShape("qwen3moe", "F16", heads=1, feed_forward=feed_forward, experts=64, vocabulary=VOCABULARY)
    write_model(path, shape)
    bounded = dataclasses.replace(profile, limits=dataclasses.replace(profile.limits, max_mappings=MAPPINGS_KEPT + 300))
    plan = plan_small(path, bounded, 0.9)
    assert any("vm.max_map_count is the bound" in reason for reason in plan.reasons)
    return plan


def test_a_plan_bound_by_mappings_is_loaded_and_one_slot_more_is_refused(whole_pages_plan: Plan) -> None:
    assert 290 < whole_pages_plan.mappings <= 300
    engine = load_engine(whole_pages_plan, strict=True)
    plain = load_reference(whole_pages_plan)
    np.testing.assert_array_equal(generate(engine, PROMPT, 11), generate(plain, PROMPT, 11))
    engine.close()
    plain.close()
    with pytest.raises(BudgetError, match=f"only {whole_pages_plan.mappings} are planned: use fewer slots"):
        load_engine(dataclasses.replace(whole_pages_plan, slots=whole_pages_plan.slots + 1))


def count_mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_model_of_many_experts_takes_the_mappings_that_are_planned(
    profile: Profile, tmp_path: Path, share: float
) -> None:
    path = tmp_path / "many.gguf"
    write_model(path, ModelShape("qwen3moe", layers=6, heads=3, experts=256, vocabulary=VOCABULARY))
    plan = plan_small(path, profile, share)
    assert plan.mappings > 5000
    before = count_mappings()
    engine = load_engine(plan)
    for begin in range(0, len(PROMPT), plan.n_ubatch):
        engine.evaluate(PROMPT[begin : begin + plan.n_ubatch])
        # Threads and buffers have some too.
        assert 0.95 * plan.mappings < count_mappings() - before < plan.mappings + 200
    engine.close()
