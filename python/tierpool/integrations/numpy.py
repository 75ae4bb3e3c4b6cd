"""NumPy arrays in a pool's memory."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from tierpool import _core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import CapsuleType

    Shape = SupportsIndex | Sequence[SupportsIndex]

DEFAULT_MIN_BYTES = 1024

# Each open block's handler and the one it replaced, innermost last. In the context, as NumPy's own handler
# is: a task that copies the context inside a block sees both, and closing a block there changes nothing here.
_blocks: ContextVar[tuple[tuple[CapsuleType, CapsuleType], ...]] = ContextVar("tierpool_numpy_blocks", default=())


class use:  # noqa: N801  (reads as a verb: ``with use(pool):``)
    """Let every NumPy array that is created in a ``with`` block live in a pool.

    Arrays keep their memory, and with it the pool's, for as long as they live: also after the block and
    after the pool is closed. The block may be entered again and nested.

    Parameters
    ----------
    pool : MemoryPool or BufferPool
        A pool whose memory the processor can reach. Arrays of a buffer pool are leases of its current step.
    min_bytes : int, default 1024
        Smaller requests go to NumPy's own allocator and are counted nowhere; 0 takes everything.

    Raises
    ------
    ValueError
        When the processor cannot reach the pool's memory, or `min_bytes` is negative.

    Notes
    -----
    The choice belongs to the current context. Tasks of asyncio that are created inside the block inherit
    it; a new thread does not, and enters a block of its own.

    ``numpy.zeros`` of memory that was used before costs the time to clear it.

    Examples
    --------
    >>> import numpy, tierpool
    >>> pool = tierpool.MemoryPool(heap_size_mb=16, num_heaps=1, warmup_sizes=[])
    >>> with pool.numpy():
    ...     x = numpy.ones((512, 512))
    >>> pool.get_statistics().active_arrays
    1
    """

    def __init__(self, pool: _core.MemoryPool | _core.BufferPool, min_bytes: int = DEFAULT_MIN_BYTES) -> None:
        self._handler = _core.make_numpy_handler(pool, min_bytes)

    def __enter__(self) -> None:
        """Make the pool the source of new arrays."""
        _blocks.set((*_blocks.get(), (self._handler, _core.set_numpy_handler(self._handler))))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Go back to the source that the block replaced."""
        blocks = list(_blocks.get())
        own = [index for index, (handler, _) in enumerate(blocks) if handler is self._handler]
        if not own:
            return  # entered in another context, as by a generator that is closed in this one
        _, replaced = blocks.pop(own[-1])
        if own[-1] == len(blocks):
            _core.set_numpy_handler(replaced)
        else:  # the block inside is still open, in a generator: its end must not come back here
            blocks[own[-1]] = (blocks[own[-1]][0], replaced)
        _blocks.set(tuple(blocks))


def empty(pool: _core.MemoryPool, shape: Shape, dtype: DTypeLike = float) -> NDArray[Any]:
    """Return an uninitialised array in the pool, whatever its size; see `numpy.empty`."""
    with use(pool, min_bytes=0):
        return np.empty(shape, dtype)


def zeros(pool: _core.MemoryPool, shape: Shape, dtype: DTypeLike = float) -> NDArray[Any]:
    """Return an array of zeros in the pool, whatever its size; see `numpy.zeros`."""
    with use(pool, min_bytes=0):
        return np.zeros(shape, dtype)


def array_over(buffer: _core.Buffer, dtype: DTypeLike = np.uint8, shape: Shape | None = None) -> NDArray[Any]:
    """Return the array behind `Buffer.array`: `buffer`'s memory seen as `dtype` and `shape`, not copied."""
    item = np.dtype(dtype)
    if item.hasobject:
        raise TypeError(f"dtype {item} holds Python objects, which memory without an owner must not; use a plain dtype")
    if shape is None:
        if item.itemsize == 0 or buffer.nbytes % item.itemsize:
            raise ValueError(
                f"a buffer of {buffer.nbytes} bytes does not hold a whole number of {item} items "
                f"of {item.itemsize} bytes; give a shape"
            )
        shape = (buffer.nbytes // item.itemsize,)
    try:
        # Through asarray: that keeps the buffer's view as long as the array lives, ndarray lets it go at once.
        array: NDArray[Any] = np.ndarray(shape, item, np.asarray(buffer))
    except TypeError as error:
        if "buffer is too small" not in str(error):
            raise
        raise ValueError(
            f"shape {shape} of {item} needs more than the buffer's {buffer.nbytes} bytes; allocate a larger buffer"
        ) from error
    return array
