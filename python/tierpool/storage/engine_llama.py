"""The engine: llama.cpp through llama-cpp-python's low-level functions, in the memory that a plan gives it."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tierpool._core import CancelledError, LoadingWatch, TierpoolError
from tierpool.storage.engine_worker import EngineWorker
from tierpool.storage.file_mappings import load_mapped
from tierpool.storage.llama_context import LlamaContext, LlamaModel
from tierpool.storage.llama_library import llama_library
from tierpool.storage.llama_settings import LlamaSettings
from tierpool.storage.llama_threads import ThreadPool, uses_openmp
from tierpool.storage.llama_vocabulary import LlamaVocabulary, read_metadata
from tierpool.storage.llama_weights import (
    ResidentWeights,
    StreamedWeights,
    Weights,
    read_planned_model,
    require_unchanged,
)
from tierpool.storage.loading_turn import LoadingTurn, require_wanted_load
from tierpool.storage.plan import Budget, Estimate, Plan
from tierpool.storage.streamed_parts import files_with_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tierpool.storage.engine import EngineCounters, LayerCounters

_CANCELLED = "the evaluation was cancelled"
# New mappings are told from old ones, so that only one model may be loaded at a time.
_LOADING = LoadingTurn()


def load_engine(plan: Plan, *, strict: bool = False, progress: Callable[[int, int], None] | None = None) -> LlamaEngine:
    """Load a model the way a plan says.

    Parameters
    ----------
    plan : Plan
        From `tierpool.storage.planner.plan_model`.
    strict : bool
        End the process when weights are read that are not in memory. For tests of the engine.
    progress : callable, optional
        Called with bytes read and bytes to be read. What it raises ends the loading, as Ctrl-C does.

    Raises
    ------
    ImportError
        When llama-cpp-python is missing or of a version that is not supported.
    ModelError
        When the model is refused.
    ReadError
        When a file cannot be read, or is not what was planned for.
    BudgetError
        When the plan's limit does not suffice.
    """
    library = llama_library()
    worker, watch = EngineWorker(), LoadingWatch()

    def report() -> None:
        done, total = watch.get_progress()
        if progress and total:
            progress(done, total)

    with ExitStack() as stack:
        # Filled by the thread that computes, and closed when that has ended: what is loaded in the instant of Ctrl-C,
        # which this thread hears of, is lost by nobody.
        parts = stack.enter_context(ExitStack())
        stack.callback(worker.close, watch.cancel)
        load = partial(_load, plan, library, watch, parts, strict=strict)
        loaded = worker.run(load, watch.cancel, progress and report)
        report()
        engine = LlamaEngine(plan, library, worker, loaded, parts)
        stack.pop_all()
        return engine


@dataclass(frozen=True)
class _Loaded:
    """A model and all it computes with."""

    model: LlamaModel
    context: LlamaContext
    weights: Weights


def _load(plan: Plan, library: Any, watch: LoadingWatch, parts: ExitStack, *, strict: bool) -> _Loaded:
    """Load, and put into `parts` how that is given back."""
    settings = LlamaSettings.of_plan(plan)
    with _LOADING.taken(watch):
        model, weights = _load_weights(plan, library, settings, parts, watch, strict=strict)
        parameters = settings.context_parameters(library)
        weights.attach(library, parameters)
        threads = None if uses_openmp(library) else ThreadPool(library, settings.threads)
        if threads:
            parts.callback(threads.close)
        context = LlamaContext(library, model, parameters)
        parts.callback(context.close)
        if threads:
            threads.attach(context.handle)
        require_wanted_load(watch)
        return _Loaded(model, context, weights)


def _load_weights(  # noqa: PLR0913  (one argument a part)
    plan: Plan, library: Any, settings: LlamaSettings, parts: ExitStack, loading: LoadingWatch, *, strict: bool
) -> tuple[LlamaModel, Weights]:
    described = read_planned_model(plan)
    load = partial(LlamaModel, library, plan.path, settings)
    if plan.mode == "resident":
        model = load()
        parts.callback(model.close)
        weights: Weights = ResidentWeights(described)
    else:
        model, mappings = load_mapped(load, [file.path for file in files_with_tensors(described)])
        parts.callback(model.close)
        weights = StreamedWeights(plan, described, mappings, loading=loading, strict=strict)
    parts.callback(weights.close)
    require_unchanged(described)
    return model, weights


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
    settings = LlamaSettings(
        n_ubatch=n_ubatch,
        threads=threads or os.cpu_count() or 1,
        context=context,
        flash_attention=flash_attention,
        kv_type=kv_type,
        extra_buffers=extra_buffers,
    )
    return load_engine(_plain_plan(os.fspath(path), settings))


def _plain_plan(path: str, settings: LlamaSettings) -> Plan:
    """Plan nothing but the settings."""
    return Plan(
        path=path,
        architecture="",
        mode="resident",
        stop_node="",
        units=0,
        slots=0,
        slot_bytes=0,
        ring_depth=0,
        mappings=0,
        repacked_bytes=0,
        budget=Budget(0, "none", {}),
        estimate=Estimate(1.0, 0, 0, 0, 0.0, "memory bandwidth"),
        placements=(),
        reasons=("Mode resident: loaded plainly.",),
        **asdict(settings),
    )


class LlamaEngine:
    """A loaded model; see `tierpool.storage.engine.Engine`.

    Everything is computed on one thread of its own, so that Ctrl-C is noticed while a batch is being computed, and so
    that the threads which compute stay the same.
    """

    def __init__(self, plan: Plan, library: Any, worker: EngineWorker, loaded: _Loaded, parts: ExitStack) -> None:
        self._plan = plan
        self._context = loaded.context
        self._weights = loaded.weights
        self._metadata = read_metadata(library, loaded.model.handle)
        self._vocabulary = LlamaVocabulary(library, loaded.model.handle, plan.path)
        self._position = 0
        self._cancelled = threading.Event()
        self._process = os.getpid()
        self._worker = worker
        self._cancel = partial(_cancel, self._cancelled, loaded.weights)
        # Also when nobody closes it, and when Python ends.
        self._close = weakref.finalize(self, _close_parts, self._process, self._worker, self._cancel, parts)

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

    def evaluate(self, tokens: Sequence[int], cancelled: threading.Event | None = None) -> NDArray[np.float32]:
        """Compute the next positions and return the last one's logits; see `Engine.evaluate`."""
        self._require_open()
        self._require_room(tokens)
        self._cancelled.clear()
        # Looked at after an older cancel is forgotten: whoever sets it later cancels once more.
        if cancelled is not None and cancelled.is_set():
            raise CancelledError(_CANCELLED)
        logits: NDArray[np.float32] = self._worker.run(partial(self._evaluate, tokens), self._cancel)
        return logits

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
        if position < self._position:
            self._worker.run(partial(self._forget_from, position), self._cancel)

    def cancel(self) -> None:
        """End the evaluation under way, from any thread; without one, nothing happens."""
        self._cancel()

    def get_counters(self) -> EngineCounters:
        """Everything counted so far."""
        self._require_own_process()
        return self._weights.get_counters()

    def get_layer_counters(self) -> list[LayerCounters]:
        """Requests by layer; empty where nothing is streamed."""
        self._require_own_process()
        return self._weights.get_layer_counters()

    def close(self) -> None:
        """Give everything back; a second call does nothing. A forked child's close leaves all to the parent."""
        if self._close.alive and os.getpid() == self._process:
            self._close()

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
        self._weights.begin()
        self._require_wanted()
        status = self._context.decode(batch, position, wants_logits=wants_logits)
        # Whatever the status is: a batch that was broken off may count as a success, with logits that mean nothing.
        self._weights.end(status == 0)
        self._require_wanted()
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

    def _require_wanted(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError(_CANCELLED)

    def _require_open(self) -> None:
        if not self._close.alive:
            raise TierpoolError(f"the engine of {self._plan.path} is closed: load the model again")
        self._require_own_process()

    def _require_own_process(self) -> None:
        # Before any lock is asked for, which a thread of the parent may hold.
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


def _cancel(cancelled: threading.Event, weights: Weights) -> None:
    cancelled.set()
    weights.cancel()


def _close_parts(process: int, worker: EngineWorker, cancel: Callable[[], None], parts: ExitStack) -> None:
    # A forked child has copies of what is the parent's to close.
    if os.getpid() == process:
        worker.close(cancel)
        parts.close()
