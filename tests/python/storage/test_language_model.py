"""The contract of generations and of the model that makes them, with an engine that says what it is told to."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from fake_engine import BEGIN, FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from tierpool import TierpoolError
from tierpool.storage import LanguageModel, ModelBusyError, ModelError, load


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
