"""A loaded model: text in, text out, and what that took."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from typing import TYPE_CHECKING

from tierpool._core import TierpoolError
from tierpool.storage.chat_prompt import render_messages
from tierpool.storage.errors import ModelBusyError, ModelClosedError
from tierpool.storage.generation import Generation
from tierpool.storage.model_statistics import StatisticsGatherer
from tierpool.storage.sampler import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from tierpool.storage.engine import Engine, LayerCounters
    from tierpool.storage.model_statistics import ModelStatistics
    from tierpool.storage.plan import Plan

_SHOWN = 40


class LanguageModel:
    """A model that generates text; made by `tierpool.storage.load`.

    One generation at a time: a second one is refused while the first goes on. `get_statistics`,
    `get_layer_statistics` and `close` may be called from any thread at any time; who generates, cancels and closes may
    be different threads. A model that is dropped is closed. A forked child is refused everything but `close`, which
    leaves all to the parent.

    Parameters
    ----------
    engine : Engine
        What computes. The model closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._gatherer = StatisticsGatherer(engine)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._active: weakref.ref[Generation] | None = None
        self._close = weakref.finalize(self, engine.close)

    @property
    def plan(self) -> Plan:
        """Which weights live where, and why."""
        return self._engine.plan

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata, scalars as text."""
        return self._engine.metadata

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._close.alive

    def generate(  # noqa: PLR0913  (one argument a setting)
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> Generation:
        """Continue a prompt.

        Each generation computes its prompt anew, so that it gives the same whatever was generated before.

        Parameters
        ----------
        prompt : str or sequence of int
            A text, in which control tokens are read as such, or tokens.
        max_tokens : int, optional
            Tokens to generate at most; by default until the model ends or the context is full.
        temperature, top_k, top_p, min_p, seed
            As `tierpool.storage.sampler.Sampling` says; temperature 0 is greedy.
        stop : str or sequence of str
            Texts that end it; they are not given out.

        Returns
        -------
        Generation
            An iterator of pieces of text; nothing is computed before the first is asked for.

        Raises
        ------
        ModelBusyError
            While another generation goes on.
        ModelClosedError
            After `close`.
        ValueError
            When an argument is out of range, or the prompt has no tokens or more than the context holds.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, seed)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        self._require_own_process()
        with self._lock:
            self._require_free()
            if isinstance(prompt, str):
                _require_text(prompt)
                tokens = self._engine.tokenize(prompt, add_special=True, parse_special=True)
            else:
                tokens = [operator.index(token) for token in prompt]
            return self._start(tokens, sampling, max_tokens, stops)

    def chat(  # noqa: PLR0913  (one argument a setting)
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> Generation:
        """Answer messages such as ``{"role": "user", "content": "Hello"}`` by the file's chat template.

        Settings, result and errors are those of `generate`.

        Raises
        ------
        ModelError
            When the file has no template, or one that does not accept these messages.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, seed)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        self._require_own_process()
        with self._lock:
            self._require_free()
            text = render_messages(self._engine, messages)
            _require_text(text)
            # The template writes the marks that begin a text itself.
            tokens = self._engine.tokenize(text, add_special=False, parse_special=True)
            return self._start(tokens, sampling, max_tokens, stops)

    def get_statistics(self) -> ModelStatistics:
        """Everything since load: bytes, hits, times and memory, prompts and what was generated apart.

        Raises
        ------
        ModelClosedError
            After `close`.
        """
        self._require_open()
        return self._gatherer.snapshot()

    def get_layer_statistics(self) -> list[LayerCounters]:
        """Hits, misses, bytes read and waiting of each layer since load; empty where nothing is streamed.

        Raises
        ------
        ModelClosedError
            After `close`.
        """
        self._require_open()
        return self._engine.get_layer_counters()

    def close(self) -> None:
        """End a generation that goes on, at its next token, and give everything back; a second call does nothing."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if active := self._going_on():
                active.close()
            self._close()

    def __enter__(self) -> LanguageModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"mode {self.plan.mode}"
        return f"LanguageModel({self.plan.path!r}, {state})"

    def _start(
        self, tokens: list[int], sampling: Sampling, max_tokens: int | None, stops: tuple[str, ...]
    ) -> Generation:
        self._check_prompt(tokens)
        if max_tokens is not None and operator.index(max_tokens) < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}; None sets no limit")
        generation = Generation(
            self._engine, self._gatherer, tokens, sampling=sampling, max_tokens=max_tokens, stop=stops, owner=self
        )
        self._active = weakref.ref(generation)
        return generation

    def _check_prompt(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ValueError("the prompt has no tokens: give it at least one")
        if len(tokens) > self.plan.context:
            raise ValueError(
                f"the prompt has {len(tokens)} tokens, the context {self.plan.context}: shorten the prompt, or load "
                f"with context={len(tokens)} or more"
            )
        vocabulary_size = self._engine.vocabulary_size
        for token in tokens:
            if not 0 <= token < vocabulary_size:
                raise ValueError(f"the prompt has token {token}, the vocabulary has {vocabulary_size}, from 0 up")

    def _going_on(self) -> Generation | None:
        generation = self._active() if self._active else None
        return generation if generation is not None and generation.finish_reason is None else None

    def _require_own_process(self) -> None:
        # Before any lock is asked for, which a thread of the parent may hold.
        if os.getpid() != self._process:
            raise TierpoolError("a model does not work in a forked child: load it there")

    def _require_open(self) -> None:
        self._require_own_process()
        if self.closed:
            raise ModelClosedError(f"the model {self.plan.path} is closed: load it again")

    def _require_free(self) -> None:
        self._require_open()
        if active := self._going_on():
            shown = ", ".join(map(str, active.prompt[:_SHOWN])) + (", ..." if len(active.prompt) > _SHOWN else "")
            raise ModelBusyError(
                f"a generation of {self.plan.path} goes on, {len(active.tokens)} tokens after a prompt of "
                f"{len(active.prompt)} ({shown}): read it to its end or close it first"
            )


def _require_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the prompt is no text: its character {error.start} is {text[error.start]!r}, which UTF-8 cannot write; "
            "give it as valid UTF-8"
        ) from error
