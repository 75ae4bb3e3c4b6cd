"""How generations are cancelled and models closed, also by another thread and in a forked child."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable

import pytest
from fake_engine import FakeEngine
from forked_child import answer_refusals

from tierpool.storage import LanguageModel, ModelClosedError
from tierpool.storage.generation import Generation


def _interrupted(engine: FakeEngine, act: Callable[[], None]) -> threading.Thread:
    """Have `act` called by a thread that begins in the middle of the second evaluation, which waits for its effect."""
    thread = threading.Thread(target=act)

    def in_evaluation(count: int) -> None:
        if count == 2:
            thread.start()
            assert engine._cancelled.wait(30)

    engine.before_evaluation = in_evaluation
    return thread


class TestCancel:
    def test_before_anything_was_computed(self) -> None:
        engine = FakeEngine(b"abc")
        model = LanguageModel(engine)
        generation = model.generate("x", temperature=0)
        generation.cancel()
        assert list(generation) == []
        assert generation.finish_reason == "cancelled"
        assert engine.evaluated == []
        assert "".join(model.generate("x", temperature=0)) == "abc"

    @pytest.mark.parametrize("evaluations", [0, 1])
    def test_just_before_the_engine_forgets_earlier_ones(self, evaluations: int) -> None:
        engine = FakeEngine(b"abc")
        generation = LanguageModel(engine).generate("x", temperature=0)
        pieces = [next(generation) for _ in range(evaluations)]
        engine.before_cancels_are_forgotten = generation.cancel
        assert list(generation) == []
        assert generation.finish_reason == "cancelled"
        assert (len(pieces), len(engine.evaluated)) == (evaluations, evaluations)

    def test_between_tokens(self) -> None:
        engine = FakeEngine(b"abc")
        generation = LanguageModel(engine).generate("x", temperature=0)
        next(generation)
        generation.cancel()
        assert list(generation) == []
        assert generation.finish_reason == "cancelled"
        assert len(engine.evaluated) == 1

    def test_while_a_token_is_computed(self) -> None:
        engine = FakeEngine(b"abc")
        model = LanguageModel(engine)
        generation = model.generate("x", temperature=0)
        _interrupted(engine, generation.cancel)
        assert list(generation) == ["a"]
        assert generation.finish_reason == "cancelled"
        engine.before_evaluation = lambda _count: None
        assert "".join(model.generate("x", temperature=0)) == "abc"

    def test_closing_the_model_while_a_token_is_computed(self) -> None:
        engine = FakeEngine(b"abc")
        model = LanguageModel(engine)
        generation = model.generate("x", temperature=0)
        closing = _interrupted(engine, model.close)
        assert list(generation) == ["a"]
        closing.join(30)  # it closes the engine once this generation has ended
        assert engine.closes == 1

    def test_after_its_end_it_changes_nothing(self) -> None:
        generation = LanguageModel(FakeEngine(b"")).generate("x", temperature=0)
        assert list(generation) == []
        generation.cancel()
        generation.close()
        assert generation.finish_reason == "stop"

    def test_ctrl_c_ends_it_and_goes_on(self) -> None:
        engine = FakeEngine(b"abc")

        def interrupt(count: int) -> None:
            if count == 2:
                raise KeyboardInterrupt

        engine.before_evaluation = interrupt
        generation = LanguageModel(engine).generate("x", temperature=0)
        assert next(generation) == "a"
        with pytest.raises(KeyboardInterrupt):
            next(generation)
        assert generation.finish_reason == "cancelled"


class TestClose:
    def test_it_is_closed_once(self) -> None:
        engine = FakeEngine(b"abc")
        with LanguageModel(engine) as model:
            generation = model.generate("x", temperature=0)
            next(generation)
        model.close()
        assert (engine.closes, generation.finish_reason, model.closed) == (1, "cancelled", True)
        assert list(generation) == []
        assert "closed" in repr(model)

    def test_a_closed_model_says_so(self) -> None:
        model = LanguageModel(FakeEngine(b"abc"))
        model.close()
        uses = (model.get_statistics, model.get_layer_statistics)
        for use in (lambda: model.generate("x"), lambda: model.chat([{"role": "user", "content": "x"}]), *uses):
            with pytest.raises(ModelClosedError, match=r"fake\.gguf is closed: load it again"):
                use()

    def test_a_dropped_model_is_closed(self) -> None:
        engine = FakeEngine()
        LanguageModel(engine)
        gc.collect()
        assert engine.closes == 1


def _use_in_child(model: LanguageModel, generation: Generation, answers: multiprocessing.SimpleQueue[str]) -> None:
    uses: tuple[Callable[[], object], ...] = (
        lambda: next(generation),
        lambda: model.generate("x"),
        lambda: model.chat([{"role": "user", "content": "x"}]),
        model.get_statistics,
        model.get_layer_statistics,
    )
    answer_refusals(uses, answers)
    generation.close()
    model.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_generates_and_closes_neither_waits_nor_works() -> None:
    engine = FakeEngine(b"abc")
    model = LanguageModel(engine)
    generation = model.generate("x", temperature=0)
    computing, forked = threading.Event(), threading.Event()

    def in_evaluation(_count: int) -> None:
        computing.set()
        assert forked.wait(30)

    engine.before_evaluation = in_evaluation
    pieces: list[str] = []
    thread = threading.Thread(target=lambda: pieces.extend(generation))
    thread.start()
    assert computing.wait(30)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_use_in_child, args=(model, generation, answers))
    with model._lock:  # as if another thread was about to close it
        child.start()
    child.join(30)
    status = child.exitcode
    child.kill()
    forked.set()
    thread.join(30)
    assert status == 0  # None: it waits
    for _ in range(5):
        assert "forked child" in answers.get()
    assert pieces == ["a", "b", "c"]
    assert engine.closes == 0
