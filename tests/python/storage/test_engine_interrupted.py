"""Engines that are interrupted while they load or compute."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from small_models import CONTEXT, PROMPT

from tierpool import CancelledError
from tierpool.storage import engine_llama
from tierpool.storage.engine_llama import LlamaEngine, load_engine, load_plain
from tierpool.storage.engine_worker import _Call
from tierpool.storage.plan import Plan


def test_a_cancel_around_the_beginning_of_an_evaluation_is_not_lost(streamed: LlamaEngine) -> None:
    class JustAfter(threading.Event):
        """Looked at just before it is set and the engine told."""

        def is_set(self) -> bool:
            streamed.cancel()
            return False

    just_before = threading.Event()
    just_before.set()
    for cancelled in (just_before, JustAfter()):
        with pytest.raises(CancelledError):
            streamed.evaluate(PROMPT, cancelled)
        assert streamed.position == 0
    assert streamed.get_counters().requested_bytes == 0
    streamed.evaluate(PROMPT, threading.Event())


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
    streamed_plan: Plan, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    before = threading.enumerate()
    interrupt_at(monkeypatch, owner, name)
    with pytest.raises(KeyboardInterrupt):
        load_engine(streamed_plan)
    gc.collect()
    assert streamed_plan.path not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert set(threading.enumerate()) <= set(before)
    load_engine(streamed_plan).close()


@contextmanager
def cancelling(engine: LlamaEngine) -> Iterator[None]:
    """Have another thread cancel again and again."""
    stop = threading.Event()

    def cancel() -> None:
        while not stop.wait(0.0005):
            engine.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_cancel_from_another_thread(moe: LlamaEngine) -> None:
    expected = moe.evaluate(PROMPT)
    moe.truncate(0)
    cancelled = 0
    with cancelling(moe):
        for _ in range(50):
            try:
                moe.evaluate(PROMPT)
            except CancelledError:
                cancelled += 1
                assert moe.position == 0
            moe.truncate(0)
    assert cancelled > 0
    np.testing.assert_array_equal(moe.evaluate(PROMPT), expected)


def test_a_plain_run_can_be_cancelled_too(models: Callable[[str], Path]) -> None:
    engine = load_plain(models("llama"), context=CONTEXT, threads=1, n_ubatch=1)
    engine.cancel()  # without an evaluation nothing happens
    assert np.isfinite(engine.evaluate(PROMPT)).all()
    engine.truncate(0)

    def evaluate_until_cancelled() -> None:
        while True:
            engine.evaluate(PROMPT)
            engine.truncate(0)

    with cancelling(engine), pytest.raises(CancelledError):
        evaluate_until_cancelled()
    assert engine.position == 0
    engine.close()


def test_control_c_ends_the_evaluation(moe: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = moe.evaluate(PROMPT)
    evaluate, main = moe._evaluate, threading.main_thread().ident
    ends: list[str] = []

    def evaluate_until_cancelled(tokens: Sequence[int]) -> None:
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        try:
            for _ in range(300):
                evaluate(tokens)
                moe._forget_from(0)
        except CancelledError:
            ends.append("cancelled")
            raise

    for _ in range(3):
        moe.truncate(0)
        with monkeypatch.context() as patched:
            patched.setattr(moe, "_evaluate", evaluate_until_cancelled)
            with pytest.raises(KeyboardInterrupt):
                moe.evaluate(PROMPT)
        assert moe.position == 0
    assert ends == ["cancelled"] * 3
    np.testing.assert_array_equal(moe.evaluate(PROMPT), expected)
