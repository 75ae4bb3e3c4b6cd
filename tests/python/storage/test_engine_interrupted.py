"""Engines that are interrupted while they load or compute, and what a load tells on the way."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from streamed_runs import plan_share, shape_of

from make_model import write_model
from tierpool import CancelledError
from tierpool.storage import engine_llama
from tierpool.storage.engine_llama import LlamaEngine, load_engine
from tierpool.storage.engine_worker import _Call
from tierpool.storage.gguf import read_model
from tierpool.storage.plan import Plan
from tierpool.storage.profile import Profile

PROMPT = list(range(5, 42))


@pytest.fixture(scope="module", params=["qwen3moe", "llama"])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> Plan:
    path: Path = tmp_path_factory.mktemp("model") / "model.gguf"
    write_model(path, shape_of(request.param))
    return plan_share(read_model(path), profile, 0.2)


@pytest.fixture
def engine(plan: Plan) -> Iterator[LlamaEngine]:
    engine = load_engine(plan)
    yield engine
    engine.close()


def test_a_cancel_around_the_beginning_of_an_evaluation_is_not_lost(engine: LlamaEngine) -> None:
    class JustAfter(threading.Event):
        """Looked at just before it is set and the engine told."""

        def is_set(self) -> bool:
            engine.cancel()
            return False

    just_before = threading.Event()
    just_before.set()
    for cancelled in (just_before, JustAfter()):
        with pytest.raises(CancelledError):
            engine.evaluate(PROMPT, cancelled)
        assert engine.position == 0
    assert engine.get_counters().requested_bytes == 0
    engine.evaluate(PROMPT, threading.Event())


def test_an_engine_loads_while_another_one_of_the_same_file_computes(plan: Plan, engine: LlamaEngine) -> None:
    expected = engine.evaluate(PROMPT)
    stop, rounds = threading.Event(), [0]

    def compute() -> None:
        while not stop.is_set():
            engine.truncate(0)
            np.testing.assert_array_equal(engine.evaluate(PROMPT), expected)
            rounds[0] += 1

    with ThreadPoolExecutor() as threads:
        computing = threads.submit(compute)
        try:
            for _ in range(10):
                other = load_engine(plan)
                np.testing.assert_array_equal(other.evaluate(PROMPT), expected)
                other.close()
        finally:
            stop.set()
        computing.result(60)
    assert rounds[0] > 0


def test_an_engine_loads_while_another_one_of_the_same_file_is_closed(
    plan: Plan, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.evaluate(PROMPT)

    class ClosingBefore(engine_llama.LlamaModel):
        """Mapped where the other one was."""

        def __init__(self, *arguments: Any) -> None:
            engine.close()
            super().__init__(*arguments)

    monkeypatch.setattr(engine_llama, "LlamaModel", ClosingBefore)
    other = load_engine(plan)
    np.testing.assert_array_equal(other.evaluate(PROMPT), expected)
    other.close()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Raise what Ctrl-C raises once, when a function has done all it does."""
    function = getattr(owner, name)

    def interrupted(*arguments: Any) -> None:
        monkeypatch.setattr(owner, name, function)
        function(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(_Call, "wait"), (_Call, "take"), (engine_llama, "read_metadata"), (LlamaEngine, "__init__")],
)
def test_a_load_that_ends_with_control_c_leaves_nothing(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    interrupt_at(monkeypatch, owner, name)
    with pytest.raises(KeyboardInterrupt):
        load_engine(plan)
    gc.collect()
    assert plan.path not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert "tierpool-engine" not in [thread.name for thread in threading.enumerate()]
    load_engine(plan).close()
