"""CuPy arrays in a pool's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierpool.integrations.device_index import pools_by_device
from tierpool.integrations.optional_module import import_optional

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tierpool.pool import MemoryPool


def allocator(*pools: MemoryPool) -> Callable[[int], Any]:
    """Make an allocator for `cupy.cuda.set_allocator`.

    Parameters
    ----------
    *pools : MemoryPool
        One for each GPU that arrays are made on, ``device="cuda:0"``.

    Returns
    -------
    callable
        Takes a size in bytes, gives a `cupy.cuda.MemoryPointer` that keeps the memory until the last array over it
        is gone. The memory is on CuPy's current GPU and for its current stream; using an array on another stream is
        ordered by who does it, as with CuPy's own pool. It raises a RuntimeError on a GPU without a pool.

    Raises
    ------
    ImportError
        Without CuPy; the message says how to install it.
    ValueError
        For a pool that is not on a GPU, or two on the same one.
    """
    cupy = import_optional("cupy", "cupy")
    pool_of = pools_by_device(pools)
    cuda = cupy.cuda
    current_device = cuda.runtime.getDevice

    def allocate(nbytes: int) -> Any:
        index = current_device()
        pool = pool_of.get(index)
        if pool is None:
            raise RuntimeError(
                f"CuPy's current device is {index}, and no pool is on it: pass one on 'cuda:{index}' too"
            )
        buffer = pool.allocate(nbytes, stream=cuda.get_current_stream().ptr)
        return cuda.MemoryPointer(cuda.UnownedMemory(buffer.address, nbytes, buffer, index), 0)

    return allocate


def install(*pools: MemoryPool) -> None:
    """Serve all further CuPy arrays of this process from pools: `cupy.cuda.set_allocator`.

    ``cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)`` undoes it. Arguments and errors are those of
    `allocator`.
    """
    import_optional("cupy", "cupy").cuda.set_allocator(allocator(*pools))


def use(*pools: MemoryPool) -> AbstractContextManager[None]:
    """Serve CuPy arrays that this thread makes in a ``with`` block from pools: `cupy.cuda.using_allocator`.

    Arguments and errors are those of `allocator`.
    """
    block: AbstractContextManager[None] = import_optional("cupy", "cupy").cuda.using_allocator(allocator(*pools))
    return block
