"""Engines beside others of the same file, closed, forgotten, and in forked children."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from forked_child import answer_refusals
from small_models import PROMPT

from tierpool import TierpoolError
from tierpool._core import LoadingWatch
from tierpool.storage import engine_llama
from tierpool.storage.engine_llama import _LOADING, LlamaEngine, load_engine
from tierpool.storage.plan import Plan


def test_an_engine_loads_while_another_one_of_the_same_file_computes(
    streamed_plan: Plan, streamed: LlamaEngine
) -> None:
    expected = streamed.evaluate(PROMPT)
    stop, rounds = threading.Event(), [0]

    def compute() -> None:
        while not stop.is_set():
            streamed.truncate(0)
            np.testing.assert_array_equal(streamed.evaluate(PROMPT), expected)
            rounds[0] += 1

    with ThreadPoolExecutor() as threads:
        computing = threads.submit(compute)
        try:
            for _ in range(10):
                other = load_engine(streamed_plan)
                np.testing.assert_array_equal(other.evaluate(PROMPT), expected)
                other.close()
        finally:
            stop.set()
        computing.result(60)
    assert rounds[0] > 0


def test_an_engine_loads_while_another_one_of_the_same_file_is_closed(
    streamed_plan: Plan, streamed: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = streamed.evaluate(PROMPT)

    class ClosingBefore(engine_llama.LlamaModel):
        """Mapped where the other one was."""

        def __init__(self, *arguments: Any) -> None:
            streamed.close()
            super().__init__(*arguments)

    monkeypatch.setattr(engine_llama, "LlamaModel", ClosingBefore)
    other = load_engine(streamed_plan)
    np.testing.assert_array_equal(other.evaluate(PROMPT), expected)
    other.close()


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
    answer_refusals((lambda: engine.evaluate(PROMPT), engine.get_counters, engine.get_layer_counters), answers)
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
