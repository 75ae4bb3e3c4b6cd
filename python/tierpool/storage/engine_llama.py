"""The engine: llama.cpp through llama-cpp-python's low-level functions, in the memory that a plan gives it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from tierpool._core import CancelledError, TierpoolError
from tierpool.storage.engine import EngineCounters, LayerCounters
from tierpool.storage.llama_context import LlamaContext, LlamaModel
from tierpool.storage.llama_library import llama_library
from tierpool.storage.llama_settings import LlamaSettings
from tierpool.storage.llama_vocabulary import LlamaVocabulary, read_metadata
from tierpool.storage.plan import Budget, Estimate, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

NO_COUNTERS = EngineCounters(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def load_engine(plan: Plan) -> LlamaEngine:
    """Load a model the way a plan says.

    Raises
    ------
    ImportError
        When llama-cpp-python is missing or of a version that is not supported.
    ModelError
        When llama.cpp refuses the model.
    """
    library = llama_library()
    settings = LlamaSettings.of_plan(plan)
    model = LlamaModel(library, plan.path, settings)
    try:
        return LlamaEngine(plan, library, model, settings)
    except BaseException:
        model.close()
        raise


def load_plain(  # noqa: PLR0913  (one argument a setting)
    path: str | os.PathLike[str],
    *,
    n_ubatch: int = 512,
    threads: int | None = None,
    context: int = 4096,
    flash_attention: bool = True,
    kv_type: str = "F16",
    extra_buffers: bool = False,
) -> LlamaEngine:
    """Load any model plainly: mapped by llama.cpp, nothing streamed, nothing in the way; to compare with.

    With the settings of a plan, what it computes is bit for bit what the plan's engine computes. The defaults are
    llama.cpp's, but for `extra_buffers`, which would hold weights in memory a second time.
    """
    plan = Plan(
        path=os.fspath(path),
        architecture="",
        mode="resident",
        stop_node="",
        units=0,
        slots=0,
        slot_bytes=0,
        ring_depth=0,
        mappings=0,
        n_ubatch=n_ubatch,
        threads=threads or os.cpu_count() or 1,
        context=context,
        flash_attention=flash_attention,
        kv_type=kv_type,
        extra_buffers=extra_buffers,
        repacked_bytes=0,
        budget=Budget(0, "none", {}),
        estimate=Estimate(1.0, 0, 0, 0, 0.0, "memory bandwidth"),
        placements=(),
        reasons=("Mode resident: loaded plainly.",),
    )
    return load_engine(plan)


class LlamaEngine:
    """A loaded model; see `tierpool.storage.engine.Engine`.

    Everything is computed on one thread of its own, so that Ctrl-C is noticed while a batch is being computed, and so
    that the threads which compute stay the same.
    """

    def __init__(self, plan: Plan, library: Any, model: LlamaModel, settings: LlamaSettings) -> None:
        self._plan = plan
        self._model = model
        self._process = os.getpid()
        self._metadata = read_metadata(library, model.handle)
        self._vocabulary = LlamaVocabulary(library, model.handle, plan.path)
        self._context = LlamaContext(library, model, settings.context_parameters(library))
        self._position = 0
        self._closed = False
        self._cancelled = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tierpool-engine")

    @property
    def plan(self) -> Plan:
        """What it was loaded by."""
        return self._plan

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata, scalars as text."""
        return self._metadata

    @property
    def vocabulary_size(self) -> int:
        """Logits per position."""
        return self._vocabulary.size

    @property
    def position(self) -> int:
        """Tokens evaluated and kept."""
        return self._position

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Cut a text into tokens; `ModelError` when the model has no tokenizer."""
        self._require_open()
        return self._vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, token: int) -> bytes:
        """Bytes of a token; perhaps a part of a character, perhaps none."""
        self._require_open()
        return self._vocabulary.detokenize(token)

    def token_text(self, token: int) -> str:
        """How the vocabulary writes a token, control tokens too."""
        self._require_open()
        return self._vocabulary.token_text(token)

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""
        self._require_open()
        return self._vocabulary.is_end(token)

    def evaluate(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Compute the next positions and return the last one's logits; see `Engine.evaluate`."""
        self._require_open()
        self._require_room(tokens)
        self._cancelled.clear()
        running = self._worker.submit(self._evaluate, tokens)
        try:
            return running.result()
        except BaseException:
            self._end(running)
            raise

    def truncate(self, position: int) -> None:
        """Forget the positions from `position` on.

        Raises
        ------
        ValueError
            When there are not that many.
        TierpoolError
            When the model can only forget everything, which it has done then.
        """
        self._require_open()
        if not 0 <= position <= self._position:
            raise ValueError(f"position is {position}, it must be in 0 to {self._position}")
        self._worker.submit(self._forget_from, position).result()

    def cancel(self) -> None:
        """End the evaluation under way, from any thread; without one, nothing happens."""
        self._cancelled.set()

    def get_counters(self) -> EngineCounters:
        """Everything counted so far."""
        return NO_COUNTERS

    def get_layer_counters(self) -> list[LayerCounters]:
        """Requests by layer; empty where nothing is streamed."""
        return []

    def close(self) -> None:
        """Give everything back; a second call does nothing. A forked child's close leaves all to the parent."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        self.cancel()
        self._worker.shutdown()
        self._context.close()
        self._model.close()

    def _evaluate(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        start = self._position
        try:
            for first in range(0, len(tokens), self._context.batch_tokens):
                batch = tokens[first : first + self._context.batch_tokens]
                self._decode(batch, start + first, wants_logits=first + len(batch) == len(tokens))
            logits = self._context.logits()
        except BaseException:
            self._forget_from(start)
            raise
        self._position = start + len(tokens)
        return logits

    def _decode(self, batch: Sequence[int], position: int, *, wants_logits: bool) -> None:
        status = self._context.decode(batch, position, wants_logits=wants_logits)
        if self._cancelled.is_set():
            raise CancelledError("the evaluation was cancelled")
        if status:
            raise TierpoolError(f"llama.cpp's decoding ended with status {status}; its reason is in the log 'tierpool'")

    def _forget_from(self, position: int) -> None:
        if self._context.truncate(position):
            self._position = position
            return
        forgotten, self._position = self._position, 0
        if position:
            raise TierpoolError(
                f"a model of architecture {self._metadata.get('general.architecture')} cannot forget only the tokens "
                f"from position {position} on: all {forgotten} are forgotten, evaluate them again"
            )

    def _end(self, running: Future[Any]) -> None:
        """Wait for what was interrupted, so that nothing is computed any more when its caller goes on."""
        if not running.done():
            self.cancel()
            wait([running])

    def _require_open(self) -> None:
        if self._closed:
            raise TierpoolError(f"the engine of {self._plan.path} is closed: load the model again")
        if os.getpid() != self._process:
            raise TierpoolError("an engine does not work in a forked child: load the model there")

    def _require_room(self, tokens: Sequence[int]) -> None:
        if not len(tokens):
            raise ValueError("there are no tokens to evaluate")
        if self._position + len(tokens) > self._plan.context:
            raise ValueError(
                f"{len(tokens)} tokens after {self._position} are more than the context of {self._plan.context}: "
                "load with a larger context, or begin anew"
            )
        for token in tokens:
            if not 0 <= token < self._vocabulary.size:
                raise ValueError(f"token is {token}, the vocabulary has {self._vocabulary.size}, from 0 up")
