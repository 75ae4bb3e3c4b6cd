"""PyTorch tensors in a pool's memory: on the GPU by its allocator hooks, in pinned memory by DLPack."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tierpool import _core
from tierpool.integrations.device_index import device_index, index_of_streams
from tierpool.integrations.optional_module import import_optional

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from tierpool.pool import MemoryPool

# What PyTorch calls on its threads, without the GIL: symbols of the compiled core. In the place of PyTorch's allocator
# nobody looks whether an address is null, so that the function has to throw.
_ALLOCATE, _ALLOCATE_OR_THROW, _FREE = (f"tierpool_torch_{name}" for name in ("allocate", "allocate_or_throw", "free"))
# Setters of a pluggable allocator, which differ between versions of PyTorch, and the core's functions for them.
SETTERS = {
    "set_record_stream_fn": "record_stream",
    "set_base_alloc_fn": "base_allocation",
    "set_reset_fn": "trim",
    "set_memory_fraction_fn": "memory_fraction",
}
# Left unset. A pool is ready when it is built. Memory for a graph is refused by the allocation itself, with the remedy:
# PyTorch also begins and ends its private pools around captures that allocate nothing, and those work.
UNSET = frozenset({"set_init_fn", "set_begin_allocate_to_pool", "set_end_allocate_to_pool_fn", "set_release_pool"})
# A tensor's attribute: the buffer that is its memory, and the name of that one's device.
_OWNED = "_tierpool_memory"
_NOTHING_FOR_GRAPHS = (
    "; the current stream is being captured into a graph, for which a pool has no memory: make the tensor before the "
    "capture, or enter use(pool) around the capture, which then has memory of its own"
)

# By id of the pool. PyTorch wants a MemPool to outlive its tensors, so that it stays until `forget`.
_mem_pools: dict[int, tuple[MemoryPool, Any]] = {}
# By index of the GPU: the pool that new memory comes from. What came from an earlier one finds back to it.
_serving: dict[int, MemoryPool] = {}
# PyTorch's wrapper of the core's functions, once it is in the caching allocator's place: PyTorch changes that once.
_in_place: list[Any] = []
# The wrapper behind every MemPool. Versions of PyTorch keep a bare pointer to it in each segment, which may outlive the
# MemPool, and this module when the interpreter ends: there is one, and it never dies.
_behind_mem_pools: list[Any] = []
_lock = threading.Lock()


def _torch() -> Any:
    return import_optional("torch", "torch")


def _pluggable_allocator(allocate: str) -> Any:
    wrapper = _torch().cuda.memory.CUDAPluggableAllocator(_core.__file__, allocate, _FREE)
    allocator = wrapper.allocator()
    for setter, function in SETTERS.items():
        if hasattr(allocator, setter):
            getattr(allocator, setter)(_core.torch_allocator_addresses[function])
    return wrapper


def _allocator_of_mem_pools() -> Any:
    if not _behind_mem_pools:
        wrapper = _pluggable_allocator(_ALLOCATE)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(wrapper))
        _behind_mem_pools.append(wrapper)
    return _behind_mem_pools[0].allocator()


def _serve(index: int, pool: MemoryPool | None) -> None:
    _core.install_pool(index, pool)
    if pool is None:
        _serving.pop(index, None)
    else:
        _serving[index] = pool


def _replace_caching_allocator() -> None:
    wrapper = _pluggable_allocator(_ALLOCATE_OR_THROW)
    try:
        _torch().cuda.memory.change_current_allocator(wrapper)
    except RuntimeError as error:
        raise RuntimeError(
            f"PyTorch cannot change its allocator any more ({error}): call install() before the first CUDA tensor, "
            f"or put tensors into the pool by 'with use(pool):'"
        ) from error
    _in_place.append(wrapper)


def install(pool: MemoryPool) -> None:
    """Serve every CUDA tensor of this process from a pool, in place of PyTorch's caching allocator.

    Parameters
    ----------
    pool : MemoryPool
        On the GPU that the tensors are made on, ``device="cuda:0"``. It stays for as long as the process. Build it with
        ``magazines=False``.

    Raises
    ------
    ImportError
        Without PyTorch; the message says how to install it.
    ValueError
        For a pool that is not on a GPU.
    RuntimeError
        When PyTorch has used its own allocator already.

    Warns
    -----
    UserWarning
        For a pool with magazines: what they keep cannot become part of a larger block.

    Notes
    -----
    Every GPU takes an `install` of its own, the first one before any CUDA tensor. A further pool on the same GPU
    serves new tensors from then on; those of the pool before find back to it.

    Every tensor is one allocation of the pool, in the order of its stream, and `Tensor.record_stream` is kept.
    `torch.cuda.empty_cache` trims the pool. PyTorch's own `torch.cuda.memory_stats` and snapshots have nothing to say:
    ask `pool.memory_stats()`. When the pool cannot serve, PyTorch raises; nothing is left cached that it could free and
    try again. `torch.cuda.set_per_process_memory_fraction` is refused, and so is memory within the capture of a graph.
    """
    _torch()
    index = device_index(pool)
    if pool.config.magazines:
        warnings.warn(
            "the pool has magazines, which keep freed blocks by size, and PyTorch asks for many sizes: it will reserve "
            "much more memory than it uses; build the pool with magazines=False",
            stacklevel=2,
        )
    with _lock:
        if not _in_place:
            _replace_caching_allocator()
        _serve(index, pool)


class use:  # noqa: N801  (reads as a verb: ``with use(pool):``)
    """Let PyTorch take memory for CUDA tensors that this thread makes in a ``with`` block from a pool.

    PyTorch's caching allocator stays in front: the pool sees its segments of 2 MiB and more, and its statistics,
    snapshots and CUDA graphs work as before. What a graph captures in the block has memory of the graph's own. In a
    block within a capture, a pool has none: PyTorch raises `torch.OutOfMemoryError`, whose text then says so.

    Parameters
    ----------
    pool : MemoryPool
        On a GPU. PyTorch keeps the segments, and with them the pool, until `forget`.

    Raises
    ------
    ImportError
        Without PyTorch; the message says how to install it.
    ValueError
        For a pool that is not on a GPU.
    RuntimeError
        With PyTorch's expandable segments, which it cannot have in a foreign pool; when another pool serves
        PyTorch on that GPU; or after `install`.

    Notes
    -----
    PyTorch (up to 2.13 at least) does not free what it has cached in a pool before it raises `torch.OutOfMemoryError`,
    as in any `torch.cuda.MemPool` of its own: `forget` frees it.
    """

    def __init__(self, pool: MemoryPool) -> None:
        self._index = device_index(pool)
        self._pool = pool
        self._blocks: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        """Make the pool the source of new segments."""
        block = _torch().cuda.use_mem_pool(_mem_pool_of(self._pool, self._index), device=self._index)
        block.__enter__()
        self._blocks.append(block)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Go back to the source that the block replaced."""
        try:
            if exc is not None:
                _say_if_refused_for_a_graph(exc)
        finally:
            self._blocks.pop().__exit__(exc_type, exc, traceback)


def _say_if_refused_for_a_graph(error: BaseException) -> None:
    # To the caching allocator, what an allocation refuses is no memory, whatever the reason.
    torch = _torch()
    if not isinstance(error, torch.OutOfMemoryError) or _NOTHING_FOR_GRAPHS in str(error):
        return
    with suppress(Exception):  # that the device cannot tell hides the error which is under way
        if torch.cuda.is_current_stream_capturing():
            error.args = (f"{error}{_NOTHING_FOR_GRAPHS}",)


def _mem_pool_of(pool: MemoryPool, index: int) -> Any:
    known = _mem_pools.get(id(pool))
    if known is not None:
        return known[1]
    configured = os.environ.get("PYTORCH_ALLOC_CONF", "") + os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    if "expandable_segments:True" in configured:
        raise RuntimeError(
            "PyTorch has no expandable segments in a pool: set expandable_segments:False, or install(pool)"
        )
    with _lock:
        if _in_place:
            raise RuntimeError("install() has replaced PyTorch's caching allocator, which use() needs: leave use() out")
        served = _serving.get(index)
        if served is not None and served is not pool:
            raise RuntimeError(f"PyTorch takes memory of cuda:{index} from {served!r}: forget() that one first")
        known = _mem_pools.get(id(pool))
        if known is None:  # another thread may have been first, and PyTorch wants one to outlive its tensors
            known = (pool, _torch().cuda.MemPool(_allocator_of_mem_pools()))
            _serve(index, pool)
            _mem_pools[id(pool)] = known
    return known[1]


def forget(pool: MemoryPool) -> None:
    """Let PyTorch give back what it took from a pool inside `use`; to be called when the tensors are gone.

    Raises
    ------
    ValueError
        For a pool that `use` does not know.
    """
    if _mem_pools.pop(id(pool), None) is None:
        raise ValueError(f"{pool!r} serves no PyTorch tensors: there was no 'with use(pool):'")
    _torch().cuda.empty_cache()
    _serve(device_index(pool), None)


def pinned_empty(shape: int | tuple[int, ...], dtype: Any, pool: MemoryPool) -> Any:
    """Return an uninitialised tensor in pinned memory, ready for ``tensor.to("cuda", non_blocking=True)``.

    Parameters
    ----------
    shape : int or tuple of int
        Its shape.
    dtype : torch.dtype
        Its data type.
    pool : MemoryPool
        A pool with ``device="pinned"``; any other in the processor's reach works, but copies from it block.

    Returns
    -------
    torch.Tensor
        Its memory goes back with the last tensor over it. PyTorch does not tell which streams still read it then: end
        it by `release` when copies may be in flight.

    Raises
    ------
    ImportError
        Without PyTorch; the message says how to install it.
    BufferError
        For a pool that the processor cannot reach.
    """
    torch = _torch()
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    buffer = pool.allocate(math.prod(extents) * torch.empty((), dtype=dtype).element_size())
    memoryview(buffer).release()  # refuses memory out of the processor's reach
    tensor = torch.from_dlpack(buffer).view(dtype).reshape(extents)
    setattr(tensor, _OWNED, (buffer, pool.device))
    return tensor


def release(tensor: Any, after: Any = None) -> None:
    """Let the memory of a tensor of `pinned_empty` go back once a stream has done what it was given so far.

    Parameters
    ----------
    tensor : torch.Tensor
        As `pinned_empty` returned it. The memory also waits for the last tensor over it.
    after : torch.cuda.Stream or other stream, optional
        The stream that copies from it or to it; by default PyTorch's current one, where the memory is pinned. Copies
        of other memory are over when PyTorch returns.

    Raises
    ------
    ValueError
        For any other tensor, or one released already.
    DeviceError
        For what is no stream of the pool's device, PyTorch's current one included. The tensor is not released then.
    """
    owned: tuple[_core.Buffer, str] | None = tensor.__dict__.get(_OWNED)
    if owned is None:
        raise ValueError("release() takes a tensor that pinned_empty() returned, once, and no view of it")
    buffer, device = owned
    stream = after
    torch = _torch()
    if stream is None and torch.cuda.is_available() and tensor.is_pinned():
        stream = torch.cuda.current_stream()
    if stream is not None:
        _require_stream_of(device, stream)
        buffer.record_stream(stream)
    delattr(tensor, _OWNED)


def _require_stream_of(device: str, stream: Any) -> None:
    """Raise for PyTorch's stream of another GPU; the core cannot, as default streams have the same handle on all."""
    own, given = index_of_streams(device), getattr(stream, "device_index", None)
    if own is not None and given is not None and given != own:
        kind = device.partition(":")[0]
        raise _core.DeviceError(
            f"cannot release memory of device {device!r} after a stream of cuda:{given}: it follows the streams of "
            f"cuda:{own}; pass one of those, or take the tensor from a pool with device='{kind}:{given}'"
        )
