"""The engine under llama.cpp: what is streamed is bit for bit what a plain run computes, and what fails says so."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from small_models import CONTEXT, PROMPT, VOCABULARY, plan_small
from streamed_runs import generate, load_reference

from make_model import write_model
from model_shapes import ModelShape
from tierpool import BudgetError, ReadError, TierpoolError
from tierpool.storage.engine_llama import LlamaEngine, load_engine, load_plain
from tierpool.storage.errors import ModelError
from tierpool.storage.gguf import read_model
from tierpool.storage.llama_library import llama_library
from tierpool.storage.llama_threads import ThreadPool, uses_openmp
from tierpool.storage.llama_weights import ResidentWeights, StreamedWeights
from tierpool.storage.plan import Plan
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("architecture", ["qwen3moe", "llama"])
def test_streamed_logits_are_those_of_a_plain_run(
    models: Callable[[str], Path], profile: Profile, architecture: str, share: float
) -> None:
    plan = plan_small(models(architecture), profile, share)
    assert plan.mode == ("experts" if architecture == "qwen3moe" else "layers")
    plain = load_reference(plan)
    expected = generate(plain, PROMPT, 31)
    plain.close()
    streamed = load_engine(plan, strict=True)  # anything read that is not in memory would end the process
    np.testing.assert_array_equal(generate(streamed, PROMPT, 31), expected)
    counters = streamed.get_counters()
    streamed.close()
    assert (counters.read_bytes > 0) == (plan.estimate.read_bytes > 0)  # what a ring holds as a whole is only loaded
    assert counters.used_bytes <= counters.peak_bytes <= counters.limit_bytes == plan.budget.limit_bytes
    assert len({row.tobytes() for row in expected}) > 15, "a model that repeats itself proves little"


def test_a_resident_plan_has_nothing_in_the_way(
    models: Callable[[str], Path], profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_model(read_model(models("qwen3moe")), profile, 8 << 30, context=CONTEXT, threads=1)
    assert plan.mode == "resident"
    seen = []
    attach = ResidentWeights.attach

    def attach_and_look(self: ResidentWeights, library: object, parameters: object) -> None:
        attach(self, library, parameters)
        seen.append(parameters)

    monkeypatch.setattr(ResidentWeights, "attach", attach_and_look)
    monkeypatch.setattr(StreamedWeights, "__init__", None)
    engine = load_engine(plan)
    assert not seen[0].cb_eval
    assert np.isfinite(engine.evaluate(PROMPT)).all()
    assert engine.get_counters().requested_bytes == 0
    assert engine.get_layer_counters() == []
    engine.close()


def test_requests_are_counted_for_each_token_layer_and_expert(moe: LlamaEngine) -> None:
    def requests() -> int:
        counters = moe.get_counters()
        assert sum(layer.hits for layer in moe.get_layer_counters()) == counters.hits
        assert sum(layer.misses for layer in moe.get_layer_counters()) == counters.misses
        return counters.hits + counters.misses

    moe.evaluate(PROMPT[:1])
    used = int(moe.metadata["qwen3moe.expert_used_count"])
    before = requests()
    assert before == used * 4
    for _ in range(5):
        moe.evaluate(PROMPT[1:2])
    assert requests() - before == 5 * used * 4


def test_positions(moe: LlamaEngine) -> None:
    first = moe.evaluate(PROMPT)
    assert first.shape == (moe.vocabulary_size,) == (VOCABULARY,)
    assert first.dtype == np.float32
    assert moe.position == len(PROMPT)
    second = moe.evaluate([7])
    moe.truncate(len(PROMPT))
    np.testing.assert_array_equal(moe.evaluate([7]), second)
    moe.truncate(0)
    assert moe.position == 0
    np.testing.assert_array_equal(moe.evaluate(PROMPT), first)
    with pytest.raises(ValueError, match="position is 38"):
        moe.truncate(38)


def test_arguments_that_cannot_be(moe: LlamaEngine) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        moe.evaluate([])
    with pytest.raises(ValueError, match="context of 256"):
        moe.evaluate([5] * 257)
    with pytest.raises(ValueError, match="token is 400"):
        moe.evaluate([VOCABULARY])
    with pytest.raises(ValueError, match="token is -1"):
        moe.detokenize(-1)
    assert moe.position == 0


def test_text(moe: LlamaEngine) -> None:
    tokens = moe.tokenize("w1 and ü", add_special=True, parse_special=False)
    assert tokens[0] == 1
    text = b"".join(map(moe.detokenize, tokens)).replace(b"\xe2\x96\x81", b" ")
    assert text.strip() == "w1 and ü".encode()
    assert moe.is_end(2)
    assert not moe.is_end(5)
    assert moe.metadata["general.architecture"] == "qwen3moe"
    assert "messages" in moe.metadata["tokenizer.chat_template"]


def test_a_model_that_is_not_the_one_planned_for(moe_plan: Plan, profile: Profile) -> None:
    resident = plan_model(read_model(moe_plan.path), profile, 8 << 30, context=CONTEXT, threads=1)
    write_model(Path(moe_plan.path), ModelShape("qwen3moe", layers=3, vocabulary=VOCABULARY))
    for plan in (moe_plan, resident):
        with pytest.raises(ReadError, match="plan again"):
            load_engine(plan)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("no model at all")
    with pytest.raises(ModelError, match=r"text\.gguf"):
        load_plain(path)


def test_a_budget_that_is_too_small(moe_plan: Plan) -> None:
    budget = dataclasses.replace(moe_plan.budget, limit_bytes=moe_plan.budget.purposes["process"] + (1 << 20))
    with pytest.raises(BudgetError, match="host"):
        load_engine(dataclasses.replace(moe_plan, budget=budget))
    load_engine(moe_plan).close()  # nothing stayed behind


def test_more_experts_than_slots(moe_plan: Plan) -> None:
    engine = load_engine(dataclasses.replace(moe_plan, n_ubatch=32))
    with pytest.raises(BudgetError, match="smaller batches"):
        engine.evaluate(PROMPT)
    assert engine.position == 0
    engine.evaluate(PROMPT[:1])
    engine.close()


def test_stop_nodes_that_do_not_appear(moe_plan: Plan) -> None:
    engine = load_engine(dataclasses.replace(moe_plan, stop_node="ffn_moe_top"))
    with pytest.raises(TierpoolError, match="run it in memory"):
        engine.evaluate(PROMPT)
    engine.close()


def test_llama_cpp_writes_into_our_log(models: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="tierpool"):
        load_plain(models("llama"), context=CONTEXT, threads=1).close()
    assert any(record.getMessage().startswith("llama.cpp: ") for record in caplog.records)


def test_a_thread_pool_computes_the_same(models: Callable[[str], Path]) -> None:
    library = llama_library()
    assert isinstance(uses_openmp(library), bool)
    engine = load_plain(models("llama"), context=CONTEXT, threads=2)
    expected = engine.evaluate(PROMPT)
    pool = ThreadPool(library, 2)
    pool.attach(ctypes.c_void_p(engine._context.handle))
    engine.truncate(0)
    np.testing.assert_array_equal(engine.evaluate(PROMPT), expected)
    engine.close()
    pool.close()
    pool.close()
