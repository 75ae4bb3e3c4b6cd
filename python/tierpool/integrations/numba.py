"""Numba's CUDA arrays in a pool's memory: an External Memory Management plugin.

``NUMBA_CUDA_MEMORY_MANAGER=tierpool.integrations.numba`` makes Numba load it by itself, with one pool a GPU.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tierpool.integrations.device_index import pools_by_device
from tierpool.integrations.optional_module import import_optional

if TYPE_CHECKING:
    from tierpool._core import Buffer
    from tierpool.pool import MemoryPool


@cache
def _own_pool(index: int) -> MemoryPool:
    from tierpool.pool import MemoryPool  # noqa: PLC0415  (only the plugin without a pool builds one)

    return MemoryPool(device=f"cuda:{index}")


def memory_manager(*pools: MemoryPool) -> type[Any]:
    """Make a memory manager class for `numba.cuda.set_memory_manager`.

    Parameters
    ----------
    *pools : MemoryPool
        One a GPU. A GPU without one gets a pool of the default configuration.

    Returns
    -------
    type
        A `numba.cuda.HostOnlyCUDAMemoryManager`. Numba passes no stream: memory is for the default stream, and what is
        used on others has to be synchronised with before it goes, as python/CUDA.md says.

    Raises
    ------
    ImportError
        Without Numba's CUDA target; the message says how to install it.
    ValueError
        For a pool that is not on a GPU, or two on the same one.
    """
    cuda = import_optional("numba.cuda", "numba")
    driver = import_optional("cuda.bindings.driver", "numba")
    given = pools_by_device(pools)

    base = cuda.HostOnlyCUDAMemoryManager

    class Manager(base):  # type: ignore[misc, valid-type]  # the library has no types
        """Serves device arrays from the pool of the context's GPU."""

        @property
        def pool(self) -> MemoryPool:
            index = self.context.device.id
            return given.get(index) or _own_pool(index)

        def initialize(self) -> None:
            """Do nothing: a pool is ready when it is built."""

        def memalloc(self, size: int) -> Any:
            buffer = self.pool.allocate(size)
            address = buffer.address
            allocations: dict[int, Buffer] = self.allocations
            allocations[address] = buffer
            # A reset of the context forgets all allocations before their finalizers run.
            return cuda.MemoryPointer(
                self.context, driver.CUdeviceptr(address), size, finalizer=lambda: allocations.pop(address, None)
            )

        def get_ipc_handle(self, memory: Any) -> Any:
            raise NotImplementedError(
                "memory of a pool cannot be shared with another process: allocate that with Numba's own manager"
            )

        def get_memory_info(self) -> Any:
            statistics = self.pool.get_statistics()
            mebibyte = 2**20
            total = round(statistics.total_capacity_mb * mebibyte)
            return cuda.MemoryInfo(free=total - round(statistics.used_capacity_mb * mebibyte), total=total)

        @property
        def interface_version(self) -> int:
            return 1

    return Manager


def install(*pools: MemoryPool) -> None:
    """Serve all device arrays from pools; to be called before anything else of `numba.cuda`.

    Arguments and errors are those of `memory_manager`.
    """
    import_optional("numba.cuda", "numba").set_memory_manager(memory_manager(*pools))


def __getattr__(name: str) -> Any:
    if name == "_numba_memory_manager":  # what Numba looks for
        return memory_manager()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
