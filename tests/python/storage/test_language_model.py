"""The contract of generations and of the model that makes them, with an engine that says what it is told to."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from fake_engine import BEGIN, UNIT_BYTES, FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from tierpool import TierpoolError
from tierpool.storage import LanguageModel, ModelBusyError, ModelClosedError, ModelError, load
from tierpool.storage.generation import Generation
from tierpool.storage.model_statistics import StatisticsGatherer


class TestGenerate:
    @given(st.text(max_size=20))
    def test_the_answer_comes_in_pieces(self, text: str) -> None:
        model = LanguageModel(FakeEngine(text.encode(), context=200))
        generation = model.generate("Say it", temperature=0)
        assert generation.finish_reason is None
        assert "".join(generation) == text
        assert generation.finish_reason == "stop"
        assert generation.prompt == (BEGIN, *b"Say it")
        assert bytes(generation.tokens[:-1]) == text.encode()

    def test_nothing_is_computed_before_it_is_asked_for(self) -> None:
        engine = FakeEngine(b"abc")
        generation = LanguageModel(engine).generate("x", temperature=0)
        assert engine.evaluated == []
        assert next(generation) == "a"
        assert engine.evaluated == [[BEGIN, *b"x"]]
        assert next(generation) == "b"
        assert engine.evaluated == [[BEGIN, *b"x"], [*b"a"]]

    def test_tokens_may_be_the_prompt(self) -> None:
        engine = FakeEngine(b"a")
        assert "".join(LanguageModel(engine).generate([5, 6], temperature=0)) == "a"
        assert engine.evaluated[0] == [5, 6]

    def test_it_ends_after_max_tokens(self) -> None:
        engine = FakeEngine(b"abc")
        generation = LanguageModel(engine).generate("x", temperature=0, max_tokens=2)
        assert "".join(generation) == "ab"
        assert generation.finish_reason == "length"
        assert len(engine.evaluated) == 2  # the second token is chosen, and never computed

    def test_it_ends_where_the_context_is_full(self) -> None:
        engine = FakeEngine(b"abcdefgh", context=6)
        generation = LanguageModel(engine).generate([1, 2, 3], temperature=0)
        assert "".join(generation) == "abcd"
        assert (generation.finish_reason, engine.position) == ("length", 6)

    @pytest.mark.parametrize("stop", ["b c", ["zzz", "b c"]])
    def test_a_stop_string_ends_it_and_is_not_given_out(self, stop: str | list[str]) -> None:
        generation = LanguageModel(FakeEngine(b"ab cd")).generate("x", temperature=0, stop=stop)
        assert "".join(generation) == "a"
        assert generation.finish_reason == "stop"

    def test_held_back_text_comes_at_the_end(self) -> None:
        generation = LanguageModel(FakeEngine(b"ab c")).generate("x", temperature=0, stop="cd")
        assert list(generation) == ["a", "b", " ", "c"]

    def test_every_prompt_is_computed_anew(self) -> None:
        engine = FakeEngine(b"ab")
        model = LanguageModel(engine)
        first = "".join(model.generate("same", temperature=0))
        assert "".join(model.generate("same", temperature=0)) == first
        assert engine.evaluated[0] == [BEGIN, *b"same"]

    @pytest.mark.parametrize(
        ("prompt", "settings", "says"),
        [
            ([], {}, "no tokens"),
            ([1] * 65, {}, "65 tokens, the context 64"),
            ([258], {}, "token 258, the vocabulary has 258"),
            ([-1], {}, "token -1"),
            ("x", {"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
            ("x", {"top_p": 2}, "top_p must be"),
            ("x", {"stop": ""}, "stop string is empty"),
            ("ab\udcff", {}, "the prompt is no text: its character 2 is .*give it as valid UTF-8"),
        ],
    )
    def test_what_cannot_be_generated(self, prompt: str | list[int], settings: dict[str, object], says: str) -> None:
        model = LanguageModel(FakeEngine(b"a"))
        with pytest.raises(ValueError, match=says):
            model.generate(prompt, **settings)  # type: ignore[arg-type]
        assert "".join(model.generate("x", temperature=0)) == "a"  # and nothing is left of it


class TestOneAtATime:
    def test_a_second_one_is_refused_and_told_why(self) -> None:
        model = LanguageModel(FakeEngine(b"abc"))
        first = model.generate([7, 8], temperature=0)
        next(first)
        with pytest.raises(ModelBusyError, match=r"1 tokens after a prompt of 2 \(7, 8\)"):
            model.generate("x")
        assert "".join(first) == "bc"
        assert "".join(model.generate("x", temperature=0)) == "abc"

    def test_closing_one_lets_another_begin(self) -> None:
        model = LanguageModel(FakeEngine(b"abc"))
        with model.generate("x", temperature=0) as generation:
            next(generation)
        assert generation.finish_reason == "cancelled"
        assert list(generation) == []
        assert next(model.generate("x", temperature=0)) == "a"

    def test_dropping_one_lets_another_begin(self) -> None:
        model = LanguageModel(FakeEngine(b"abc"))
        for _piece in model.generate("x", temperature=0):
            break
        gc.collect()
        assert "".join(model.generate("x", temperature=0)) == "abc"

    def test_a_generation_keeps_its_model(self) -> None:
        engine = FakeEngine(b"abc")
        generation = LanguageModel(engine).generate("x", temperature=0)
        gc.collect()
        assert "".join(generation) == "abc"
        assert engine.closes == 0
        del generation
        gc.collect()
        assert engine.closes == 1


def _interrupted(engine: FakeEngine, act: Callable[[], None]) -> None:
    """Have `act` called by another thread in the middle of the second evaluation, which waits for its effect."""

    def in_evaluation(count: int) -> None:
        if count == 2:
            thread = threading.Thread(target=act)
            thread.start()
            assert engine._cancelled.wait(30)

    engine.before_evaluation = in_evaluation


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
        _interrupted(engine, model.close)
        assert list(generation) == ["a"]
        while not engine.closes:  # the other thread closes the engine once this generation has ended
            threading.Event().wait(0.01)
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


class TestFailure:
    def test_it_is_raised_and_the_model_goes_on(self) -> None:
        engine = FakeEngine(b"abc")

        def fail(count: int) -> None:
            if count == 2:
                raise TierpoolError("weights did not arrive")

        engine.before_evaluation = fail
        model = LanguageModel(engine)
        generation = model.generate("x", temperature=0)
        assert next(generation) == "a"
        with pytest.raises(TierpoolError, match="did not arrive"):
            next(generation)
        assert generation.finish_reason == "failed"
        assert list(generation) == []
        assert model.get_statistics().generation.tokens == 0
        engine.before_evaluation = lambda _count: None
        assert "".join(model.generate("x", temperature=0)) == "abc"


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
    for use in uses:
        try:
            use()
            answers.put("it works")
        except TierpoolError as error:
            answers.put(str(error))
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
    child.join(20)
    waits = child.is_alive()
    child.kill()
    forked.set()
    thread.join(30)
    assert not waits
    for _ in range(5):
        assert "forked child" in answers.get()
    assert pieces == ["a", "b", "c"]
    assert engine.closes == 0


class TestStatistics:
    def test_prompts_and_what_was_generated_are_apart(self) -> None:
        model = LanguageModel(FakeEngine(b"abc"))
        for _ in range(2):
            list(model.generate([1] * 10, temperature=0))
        statistics = model.get_statistics()
        prompt, generation = statistics.prompt, statistics.generation
        assert (prompt.tokens, generation.tokens) == (20, 6)
        assert (prompt.misses, generation.misses) == (20, 6)
        assert generation.requested_bytes == generation.reused_bytes + generation.read_bytes == 24 * UNIT_BYTES
        assert generation.hit_rate == 0.75
        assert generation.bytes_per_token == UNIT_BYTES
        assert generation.stall_ms == 6
        assert generation.read_gb_per_second == pytest.approx(UNIT_BYTES / 2e6)
        assert generation.seconds > 0
        assert generation.tokens_per_second == generation.tokens / generation.seconds
        assert statistics.loaded_bytes == 77

    def test_reading_between_tokens_takes_time_too(self) -> None:
        """A ring reads on while a token is chosen; its bytes count with the token that waits for them."""
        engine = FakeEngine()
        gatherer = StatisticsGatherer(engine)
        for _ in range(4):
            engine.read_between_tokens(read_busy_ns=8_000_000)
            with gatherer.measure("generation", 1):
                engine.evaluate([1])
        generation = gatherer.phase("generation")
        assert (generation.read_bytes, generation.read_busy_ms) == (4 * UNIT_BYTES, 4 * (8 + 2))
        assert generation.read_gb_per_second == pytest.approx(UNIT_BYTES / 10e6)

    def test_memory_is_the_kernels_and_the_budget_the_plans(self) -> None:
        statistics = LanguageModel(FakeEngine()).get_statistics()
        assert statistics.budget_bytes == 1 << 30
        assert statistics.peak_bytes >= statistics.anonymous_bytes + statistics.shared_bytes
        if sys.platform == "linux":
            assert statistics.anonymous_bytes > 1 << 20

    def test_before_anything_rates_are_zero(self) -> None:
        values = LanguageModel(FakeEngine()).get_statistics().to_dict()
        for phase in ("prompt", "generation"):
            assert set(values[phase].values()) == {0}
        assert set(values["generation"]) > {"tokens_per_second", "hit_rate", "bytes_per_token", "read_gb_per_second"}

    def test_layers(self) -> None:
        model = LanguageModel(FakeEngine(b"a"))
        list(model.generate([1], temperature=0))
        (layer,) = model.get_layer_statistics()
        assert (layer.hits, layer.misses, layer.read_bytes, layer.stall_ms) == (6, 2, 2 * UNIT_BYTES, 2.0)


class TestChat:
    TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"

    def test_the_files_template_writes_the_prompt(self) -> None:
        pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
        metadata = {"tokenizer.chat_template": self.TEMPLATE, "tokenizer.ggml.bos_token_id": str(BEGIN)}
        model = LanguageModel(FakeEngine(b"Hi", metadata=metadata))
        generation = model.chat([{"role": "user", "content": "Hello"}], temperature=0)
        assert bytes(generation.prompt) == b"<s>[user]Hello[assistant]"
        assert "".join(generation) == "Hi"

    def test_a_template_that_refuses(self) -> None:
        pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
        template = "{{ raise_exception('roles must alternate') }}"
        model = LanguageModel(FakeEngine(metadata={"tokenizer.chat_template": template}))
        with pytest.raises(ModelError, match="does not accept these messages: roles must alternate"):
            model.chat([{"role": "user", "content": "Hello"}])

    def test_a_file_without_a_template(self) -> None:
        with pytest.raises(ModelError, match="has no chat template"):
            LanguageModel(FakeEngine()).chat([{"role": "user", "content": "Hello"}])

    @pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"content": "Hello"}]])
    def test_messages_that_are_none(self, messages: list[dict[str, str]]) -> None:
        with pytest.raises(ValueError, match=r"messages is empty|has no 'role'|has no 'content'"):
            LanguageModel(FakeEngine()).chat(messages)


def test_importing_brings_no_engine() -> None:
    code = "import sys, tierpool, tierpool.storage, tierpool.cli; sys.exit('llama_cpp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_load_checks_its_memory() -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
    with pytest.raises(ValueError, match="which is no size"):
        load("missing.gguf", memory="much")
    with pytest.raises(FileNotFoundError):
        load("missing.gguf", memory="1GiB")
