"""The engine under llama.cpp: what is streamed is bit for bit what a plain run computes, and what fails says so."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import logging
import mmap
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from gguf import GGUFWriter

from make_model import write_model
from model_shapes import HEAD_WIDTH, ModelShape
from tierpool import BudgetError, CancelledError, ReadError, TierpoolError
from tierpool._core import LoadingWatch
from tierpool.storage.engine_llama import _LOADING, LlamaEngine, load_engine, load_plain
from tierpool.storage.errors import ModelError, PlanError
from tierpool.storage.gguf import read_model
from tierpool.storage.llama_library import llama_library
from tierpool.storage.llama_settings import LlamaSettings
from tierpool.storage.llama_threads import ThreadPool, uses_openmp
from tierpool.storage.llama_weights import ResidentWeights, StreamedWeights
from tierpool.storage.plan import Plan
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile
from tierpool.storage.request import MAPPINGS_KEPT

CONTEXT = 256
VOCABULARY = 400
PROMPT = np.random.default_rng(1).integers(3, VOCABULARY, 37).tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small models by architecture, each written once."""
    folder = tmp_path_factory.mktemp("models")

    def write(architecture: str) -> Path:
        path = folder / f"{architecture}.gguf"
        if not path.exists():
            write_model(path, ModelShape(architecture, layers=4, vocabulary=VOCABULARY))
        return path

    return write


def plan_for(path: Path, profile: Profile, share: float) -> Plan:
    """A plan with the least memory and `share` of the weights more."""
    model = read_model(path)
    with pytest.raises(PlanError) as refused:
        plan_model(model, profile, 1 << 20, context=CONTEXT, threads=1)
    budget = refused.value.needed + round(share * model.weight_bytes)
    return plan_model(model, profile, budget, context=CONTEXT, threads=1)


def plain_like(plan: Plan) -> LlamaEngine:
    settings = dataclasses.asdict(LlamaSettings.of_plan(plan))
    return load_plain(plan.path, **settings)


def generate(engine: LlamaEngine, count: int) -> np.ndarray:
    """Logits of the prompt and of `count` greedy tokens."""
    logits = [engine.evaluate(PROMPT)]
    for _ in range(count):
        logits.append(engine.evaluate([int(logits[-1].argmax())]))
    return np.stack(logits)


@pytest.fixture
def moe_plan(models: Callable[[str], Path], profile: Profile, tmp_path: Path) -> Plan:
    """Experts with few slots, in a file of its own that a test may harm."""
    path = tmp_path / "model.gguf"
    path.write_bytes(models("qwen3moe").read_bytes())
    return plan_for(path, profile, 0.0)


@pytest.fixture
def moe(moe_plan: Plan) -> Iterator[LlamaEngine]:
    engine = load_engine(moe_plan)
    yield engine
    engine.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("architecture", ["qwen3moe", "llama"])
def test_streamed_logits_are_those_of_a_plain_run(
    models: Callable[[str], Path], profile: Profile, architecture: str, share: float
) -> None:
    plan = plan_for(models(architecture), profile, share)
    assert plan.mode == ("experts" if architecture == "qwen3moe" else "layers")
    plain = plain_like(plan)
    expected = generate(plain, 30)
    plain.close()
    streamed = load_engine(plan, strict=True)  # anything read that is not in memory would end the process
    np.testing.assert_array_equal(generate(streamed, 30), expected)
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
    plan = plan_for(path, bounded, 0.9)
    assert any("vm.max_map_count is the bound" in reason for reason in plan.reasons)
    return plan


def test_a_plan_bound_by_mappings_is_loaded_and_one_slot_more_is_refused(whole_pages_plan: Plan) -> None:
    assert 290 < whole_pages_plan.mappings <= 300
    engine = load_engine(whole_pages_plan, strict=True)
    plain = plain_like(whole_pages_plan)
    np.testing.assert_array_equal(generate(engine, 10), generate(plain, 10))
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
    plan = plan_for(path, profile, share)
    assert plan.mappings > 5000
    before = count_mappings()
    engine = load_engine(plan)
    for begin in range(0, len(PROMPT), plan.n_ubatch):
        engine.evaluate(PROMPT[begin : begin + plan.n_ubatch])
        # Threads and buffers have some too.
        assert 0.95 * plan.mappings < count_mappings() - before < plan.mappings + 200
    engine.close()


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


def test_cancel_from_another_thread(moe: LlamaEngine) -> None:
    expected = moe.evaluate(PROMPT)
    moe.truncate(0)
    stop = threading.Event()

    def cancel_again_and_again() -> None:
        while not stop.wait(0.0005):
            moe.cancel()

    thread = threading.Thread(target=cancel_again_and_again)
    thread.start()
    cancelled = 0
    for _ in range(50):
        try:
            moe.evaluate(PROMPT)
        except CancelledError:
            cancelled += 1
            assert moe.position == 0
        moe.truncate(0)
    stop.set()
    thread.join()
    assert cancelled > 0
    np.testing.assert_array_equal(moe.evaluate(PROMPT), expected)


def test_a_plain_run_can_be_cancelled_too(models: Callable[[str], Path]) -> None:
    engine = load_plain(models("llama"), context=CONTEXT, threads=1, n_ubatch=1)
    engine.cancel()  # without an evaluation nothing happens
    assert np.isfinite(engine.evaluate(PROMPT)).all()
    engine.truncate(0)
    stop = threading.Event()

    def cancel_again_and_again() -> None:
        while not stop.wait(0.0005):
            engine.cancel()

    def evaluate_until_cancelled() -> None:
        while True:
            engine.evaluate(PROMPT)
            engine.truncate(0)

    thread = threading.Thread(target=cancel_again_and_again)
    thread.start()
    with pytest.raises(CancelledError):
        evaluate_until_cancelled()
    stop.set()
    thread.join()
    assert engine.position == 0
    engine.close()


def test_control_c_ends_the_evaluation(moe: LlamaEngine) -> None:
    expected = moe.evaluate(PROMPT)
    interrupted = 0
    for delay in (0.001, 0.002, 0.004):
        moe.truncate(0)
        timer = threading.Timer(delay, signal.raise_signal, [signal.SIGINT])
        timer.start()
        try:
            for _ in range(1000):
                moe.evaluate(PROMPT)
                moe.truncate(0)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
    assert interrupted == 3
    moe.truncate(0)
    np.testing.assert_array_equal(moe.evaluate(PROMPT), expected)


def test_two_engines_of_one_file_at_once(moe_plan: Plan) -> None:
    first, second = load_engine(moe_plan, strict=True), load_engine(moe_plan, strict=True)
    np.testing.assert_array_equal(first.evaluate(PROMPT), second.evaluate(PROMPT))
    first.close()
    second.evaluate([5])
    second.close()


def test_closed(moe_plan: Plan) -> None:
    engine = load_engine(moe_plan)
    engine.evaluate(PROMPT)
    misses = engine.get_counters().misses
    engine.close()
    engine.close()
    engine.cancel()
    assert engine.get_counters().misses == misses
    with pytest.raises(TierpoolError, match="closed"):
        engine.evaluate(PROMPT)
    with pytest.raises(TierpoolError, match="closed"):
        engine.tokenize("w1", add_special=True, parse_special=False)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert moe_plan.path not in maps


def test_an_engine_that_is_forgotten_is_closed(moe_plan: Plan) -> None:
    load_engine(moe_plan).evaluate(PROMPT)
    gc.collect()
    assert moe_plan.path not in Path("/proc/self/maps").read_text(encoding="utf-8")


def _evaluate_in_child(engine: LlamaEngine, answers: multiprocessing.SimpleQueue[str]) -> None:
    for call in (lambda: engine.evaluate(PROMPT), engine.get_counters, engine.get_layer_counters):
        try:
            call()
            answers.put("it works")
        except TierpoolError as error:
            answers.put(str(error))
    engine.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_and_leaves_the_parent_alone(moe: LlamaEngine) -> None:
    expected = moe.evaluate(PROMPT)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_evaluate_in_child, args=(moe, answers))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    for _ in range(3):
        assert "forked child" in answers.get()
    moe.truncate(0)
    np.testing.assert_array_equal(moe.evaluate(PROMPT), expected)


def _load_in_child(plan: Plan, answers: multiprocessing.SimpleQueue[np.ndarray]) -> None:
    with closing(load_engine(plan)) as engine:
        answers.put(engine.evaluate(PROMPT))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_model_is_loaded_loads_its_own(moe_plan: Plan, moe: LlamaEngine) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    with _LOADING.taken(LoadingWatch()):
        child = context.Process(target=_load_in_child, args=(moe_plan, answers))
        child.start()
        child.join(30)
        child.kill()  # one that waits for the parent's thread
    assert child.exitcode == 0
    np.testing.assert_array_equal(answers.get(), moe.evaluate(PROMPT))
    load_engine(moe_plan).close()


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
