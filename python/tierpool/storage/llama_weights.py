"""What stands behind a model's weights while llama.cpp computes: nothing, or the core that brings them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from tierpool._core import AbortFlag, ReadError, StreamedModel, require_ggml_layout
from tierpool.storage.engine import EngineCounters, LayerCounters
from tierpool.storage.gguf import read_model
from tierpool.storage.hyperparameters import read_hyperparameters
from tierpool.storage.llama_library import function_address
from tierpool.storage.streamed_parts import StreamedParts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierpool._core import LoadingWatch
    from tierpool.storage.file_mappings import FileMapping
    from tierpool.storage.gguf import Model, ModelFile
    from tierpool.storage.plan import Plan

READER_THREADS: Final = 4

_NO_COUNTERS = EngineCounters(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
# What the plan calls a purpose, and the core; the core counts the others as it takes them.
_RESERVED = {"process": "process", "KV cache": "kv_cache", "compute buffers": "compute_buffers"}
_LAYOUT_FUNCTIONS = (
    "ggml_init",
    "ggml_free",
    "ggml_new_tensor_2d",
    "ggml_view_2d",
    "ggml_mul_mat",
    "ggml_set_name",
    "ggml_get_name",
    "ggml_get_data",
)


class Weights(Protocol):
    """Called around every batch by the thread that computes; cancel and counters by any."""

    def attach(self, library: Any, parameters: Any) -> None:
        """Put the callbacks into a context's parameters."""

    def begin(self) -> None:
        """Prepare for a batch."""

    def end(self, is_computed: bool) -> None:
        """Raise what went wrong with a batch, if anything did."""

    def cancel(self) -> None:
        """End the batch under way."""

    def get_counters(self) -> EngineCounters:
        """Everything counted so far."""

    def get_layer_counters(self) -> list[LayerCounters]:
        """Requests by layer."""

    def close(self) -> None:
        """Give the memory back."""


class ResidentWeights:
    """All weights are the engine's own, mapped from the model's files.

    Parameters
    ----------
    model : Model
        Its table, read before llama.cpp mapped the files.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._abort_flag = AbortFlag()

    def attach(self, library: Any, parameters: Any) -> None:
        """Let a batch be cancelled; nothing else is in the way."""
        parameters.abort_callback = library.ggml_abort_callback(AbortFlag.callback)
        parameters.abort_callback_data = self._abort_flag.address

    def begin(self) -> None:
        """Forget an earlier cancel; `ReadError` when a file is not what it was.

        Of a mapped file, what was cut off ends the process, and what was written is computed with.
        """
        require_unchanged(self._model)
        self._abort_flag.clear()

    def end(self, is_computed: bool) -> None:
        """Raise `ReadError` when a file was changed under the batch."""
        if is_computed:
            require_unchanged(self._model)

    def cancel(self) -> None:
        """End the batch under way."""
        self._abort_flag.set()

    def get_counters(self) -> EngineCounters:
        """Nothing is counted."""
        return _NO_COUNTERS

    def get_layer_counters(self) -> list[LayerCounters]:
        """Nothing is streamed."""
        return []

    def close(self) -> None:
        """There is nothing to give back."""


class StreamedWeights:
    """Weights that come and go, laid over llama.cpp's mapping of the model's files.

    Parameters
    ----------
    mappings : mapping of str to FileMapping
        Where llama.cpp has mapped the files that hold tensors.
    loading : LoadingWatch, optional
        By which other threads follow and end the loading.
    strict : bool
        End the process when anything is read that is not in memory. For tests.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        mappings: Mapping[str, FileMapping],
        *,
        loading: LoadingWatch | None = None,
        strict: bool = False,
    ) -> None:
        streamed = {placed.name for placed in plan.placements if placed.tier == "nvme"}
        experts = read_hyperparameters(model).experts if plan.mode == "experts" else 0
        parts = StreamedParts.of_model(model, streamed, experts)
        purposes = plan.budget.purposes
        self._layers = [layer for layer, _ in parts.layers]
        self._core = StreamedModel(
            files=[_mapped_file(file, mappings[file.path]) for file in parts.files],
            layers=parts.layers,
            resident=parts.resident,
            stop_node=plan.stop_node,
            experts=parts.experts,
            slots=plan.slots,
            limit_bytes=plan.budget.limit_bytes,
            most_mappings=plan.mappings,
            reserved_bytes={name: purposes[purpose] for purpose, name in _RESERVED.items() if purpose in purposes},
            reader_threads=READER_THREADS,
            strict=strict,
            watch=loading,
        )
        for file in parts.files:
            _forget_cached(file.path)

    def attach(self, library: Any, parameters: Any) -> None:
        """Have llama.cpp ask at every node whether to stop there."""
        require_ggml_layout({name: function_address(library, name) for name in _LAYOUT_FUNCTIONS})
        parameters.cb_eval = library.ggml_backend_sched_eval_callback(StreamedModel.callback)
        parameters.cb_eval_user_data = self._core.hook_address
        parameters.abort_callback = library.ggml_abort_callback(AbortFlag.callback)
        parameters.abort_callback_data = self._core.abort_address

    def begin(self) -> None:
        """Prepare for a batch; `ReadError` when a file is not what it was."""
        self._core.begin()

    def end(self, is_computed: bool) -> None:
        """Raise what the callbacks could not."""
        self._core.end(is_computed)

    def cancel(self) -> None:
        """End the batch under way."""
        self._core.cancel()

    def get_counters(self) -> EngineCounters:
        """Everything counted so far."""
        return EngineCounters(**self._core.get_statistics().to_dict())

    def get_layer_counters(self) -> list[LayerCounters]:
        """Requests by layer."""
        return [
            LayerCounters(layer, hits, misses, read_bytes, stall_ns / 1e6)
            for layer, (hits, misses, read_bytes, stall_ns) in zip(
                self._layers, self._core.get_layer_requests(), strict=True
            )
        ]

    def close(self) -> None:
        """Give the memory back; llama.cpp's mapping shows the files again."""
        self._core.close()


def _mapped_file(file: ModelFile, mapping: FileMapping) -> tuple[str, int, int, int]:
    return file.path, mapping.address, mapping.offset_bytes, mapping.size_bytes


def read_planned_model(plan: Plan) -> Model:
    """Read and check the tensor table again; a plan without placements is for whatever the file holds.

    Raises
    ------
    ModelError
        When the file is refused.
    ReadError
        When it is not the one that was planned for.
    """
    model = read_model(plan.path)
    read_hyperparameters(model)
    planned = {placed.name: placed.size_bytes for placed in plan.placements}
    if planned and {tensor.name: tensor.size_bytes for tensor in model.tensors} != planned:
        raise ReadError(f"{plan.path} holds other tensors than when it was planned for: plan again")
    return model


def require_unchanged(model: Model) -> None:
    """Raise `ReadError` when a file is not the one whose table was read."""
    for file in model.files:
        try:
            status = os.stat(file.path)  # noqa: PTH116  (half as long as Path's, at every batch)
        except FileNotFoundError:
            raise ReadError(f"{file.path!r} was removed since the model was loaded: load it again") from None
        if (status.st_size, status.st_mtime_ns, status.st_ino) != (file.size_bytes, file.mtime_ns, file.inode):
            raise ReadError(f"{file.path!r} was changed since the model was loaded: load it again")


def _forget_cached(path: str) -> None:
    """Drop what loading left in the page cache, which is not ours to fill."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
