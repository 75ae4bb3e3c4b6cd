"""One generation: an iterator of text that says why it ended."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from inspect import GEN_RUNNING, getgeneratorstate
from typing import TYPE_CHECKING, Literal

from tierpool._core import CancelledError, TierpoolError
from tierpool.storage.sampler import Sampler
from tierpool.storage.text_assembly import TextAssembly

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType

    from tierpool.storage.engine import Engine
    from tierpool.storage.model_statistics import StatisticsGatherer
    from tierpool.storage.sampler import Sampling

FinishReason = Literal["stop", "length", "cancelled", "failed"]

_CANCEL_AGAIN_SECONDS = 0.05


class Generation:
    """Text as it comes, piece by piece; made by `LanguageModel.generate` and `LanguageModel.chat`.

    Tokens are computed when a piece is asked for, and only then. The generation ends when the model ends it, at a stop
    string, after `max_tokens`, when the context is full, when it is closed or dropped, and when something fails.
    One thread at a time may ask for pieces; `cancel` and `close` may be called from any thread. A forked child is
    refused pieces; its `close` leaves all to the parent.

    Attributes
    ----------
    finish_reason : str or None
        None while it goes on; ``stop``: the model or a stop string ended it; ``length``: `max_tokens` or the context
        was reached; ``cancelled``: it was cancelled, closed or dropped; ``failed``: an exception was raised.
    prompt : tuple of int
        Tokens of the prompt.
    tokens : list of int
        Tokens that were generated so far.
    """

    def __init__(  # noqa: PLR0913  (what the model already knows)
        self,
        engine: Engine,
        gatherer: StatisticsGatherer,
        prompt: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int | None,
        stop: Sequence[str],
        owner: object = None,
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self.prompt = tuple(prompt)
        self.tokens: list[int] = []
        self._owner = owner  # a model that nobody else holds lives as long as what it generates
        self._engine = engine
        self._gatherer = gatherer
        self._sampler = Sampler(sampling)
        self._assembly = TextAssembly(stop)
        self._max_tokens = max_tokens
        self._cancelled = threading.Event()
        self._process = os.getpid()
        self._asking = threading.RLock()
        self._pieces = self._generate()

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> str:
        # Before the lock is asked for, which a thread of the parent may hold.
        if os.getpid() != self._process:
            raise TierpoolError("a generation does not work in a forked child: load the model there")
        with self._asking:
            return next(self._pieces)

    def __enter__(self) -> Generation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cancel(self) -> None:
        """End it, at the latest with the token that is being computed; returns at once."""
        if self.finish_reason is None:
            self._cancelled.set()
            self._engine.cancel()

    def close(self) -> None:
        """End it and wait until nothing is computed any more; the text that was held back is lost."""
        if os.getpid() != self._process:
            return
        # An evaluation that begins just after a cancel does not hear of it: it is told again.
        while not self._asking.acquire(timeout=_CANCEL_AGAIN_SECONDS):
            self.cancel()
        try:
            if getgeneratorstate(self._pieces) == GEN_RUNNING:  # called by what interrupted this very generation
                self.cancel()
                return
            self._pieces.close()
            self.finish_reason = self.finish_reason or "cancelled"
        finally:
            self._asking.release()

    def _generate(self) -> Generator[str, None, None]:
        try:
            yield from self._decode()
        except GeneratorExit:
            self.finish_reason = self.finish_reason or "cancelled"
            raise
        except CancelledError:
            self.finish_reason = "cancelled"
        except KeyboardInterrupt:
            self.finish_reason = "cancelled"
            raise
        except BaseException:
            self.finish_reason = "failed"
            raise
        if rest := self._assembly.add(b"", last=True):
            yield rest

    def _decode(self) -> Generator[str, None, None]:
        self._require_wanted()
        # What an earlier prompt left in the KV cache may come from batches of another size, whose rounding differs:
        # only a prompt that is computed anew gives the same text whatever was asked before.
        self._engine.truncate(0)
        with self._gatherer.measure("prompt", len(self.prompt)):
            logits = self._engine.evaluate(self.prompt, self._cancelled)
        while True:
            self._require_wanted()
            token = self._sampler.choose(logits)
            self.tokens.append(token)
            if self._engine.is_end(token):
                self.finish_reason = "stop"
                return
            piece = self._assembly.add(self._engine.detokenize(token))
            if self._assembly.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) == self._max_tokens or self._engine.position == self._engine.plan.context:
                self.finish_reason = "length"
            if piece:
                yield piece
            if self.finish_reason is not None:
                return
            self._require_wanted()
            with self._gatherer.measure("generation", 1):
                logits = self._engine.evaluate([token], self._cancelled)

    def _require_wanted(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("the generation was cancelled")

    def __del__(self) -> None:
        # Half-made ones have no pieces; what the interpreter's end takes away cannot be closed any more.
        with suppress(AttributeError):
            self.close()
