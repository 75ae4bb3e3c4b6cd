"""Streams as Python sees them, on the simulated device: its streams are idle unless work was given to them."""

from __future__ import annotations

import ctypes
import gc
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import tierpool
from tierpool import MemoryPool, _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    CallsWithStream = Callable[[MemoryPool, tierpool.Buffer, Any], list[Callable[[], object]]]

PER_THREAD = 2


class ProtocolStream:
    """What cuda.core and CuPy offer."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, PER_THREAD)


@pytest.fixture
def pool() -> Iterator[MemoryPool]:
    pool = MemoryPool(device="simulated", heap_size_mb=16, num_heaps=1, warmup_sizes=[])
    yield pool
    assert pool.get_statistics().active_allocations == 0
    assert pool.get_statistics().pending_mb == 0


@pytest.mark.parametrize(
    "stream",
    [
        PER_THREAD,
        SimpleNamespace(cuda_stream=PER_THREAD),
        SimpleNamespace(ptr=PER_THREAD),
        SimpleNamespace(handle=ctypes.c_void_p(PER_THREAD)),
        ProtocolStream(),
    ],
    ids=["int", "torch", "cupy", "numba", "protocol"],
)
def test_every_kind_of_stream_is_taken_everywhere(pool: MemoryPool, stream: Any) -> None:
    buffer = pool.allocate(1000, stream=stream)
    assert buffer.stream == PER_THREAD
    assert pool.get_statistics().stream_lanes == 2
    buffer.record_stream(stream)
    buffer.release(stream=stream)
    again = pool.try_allocate(1000, 512, stream)
    assert again is not None
    assert again.stream == PER_THREAD
    pool.release(again, stream)


@pytest.mark.parametrize("stream", [None, 0, 1, SimpleNamespace(handle=ctypes.c_void_p(0))])
def test_default_stream_has_the_home_lane(pool: MemoryPool, stream: Any) -> None:
    buffer = pool.allocate(1000, stream=stream)
    assert buffer.stream == 0
    buffer.release(stream=stream)
    assert pool.get_statistics().stream_lanes == 1


def test_memory_released_on_its_stream_is_free_at_once(pool: MemoryPool) -> None:
    buffer = pool.allocate(1 << 20, stream=PER_THREAD)
    address = buffer.address
    buffer.release()
    assert pool.allocate(1 << 20, stream=PER_THREAD).address == address
    assert pool.allocate(1 << 20).address != address


def test_per_thread_stream_is_another_one_on_every_thread(pool: MemoryPool) -> None:
    buffers = [pool.allocate(1000, stream=PER_THREAD)]
    thread = threading.Thread(target=lambda: buffers.append(pool.allocate(1000, stream=PER_THREAD)))
    thread.start()
    thread.join()
    assert pool.get_statistics().stream_lanes == 3
    assert [heap.stream for heap in pool.heaps()] == [0, PER_THREAD, PER_THREAD]
    assert [heap.active_allocations for heap in pool.heaps()] == [0, 1, 1]


@pytest.mark.parametrize(
    ("stream", "error", "words"),
    [
        (-1, ValueError, "must not be negative, got -1"),
        (0xDEAD, tierpool.DeviceError, "57005"),
        ("default", TypeError, "got str"),
        (SimpleNamespace(ptr="x"), TypeError, "stream must be"),
        (SimpleNamespace(), TypeError, "stream must be"),
        (1 << 70, OverflowError, "stream"),
    ],
)
def test_what_is_no_stream_is_refused_and_changes_nothing(
    pool: MemoryPool, calls_with_stream: CallsWithStream, stream: Any, error: type[Exception], words: str
) -> None:
    buffer = pool.allocate(1000)
    for call in calls_with_stream(pool, buffer, stream):
        with pytest.raises(error, match=words):
            call()
    assert not buffer.released
    assert pool.get_statistics().active_allocations == 1


def test_release_with_a_stream_is_refused_as_any_other(pool: MemoryPool) -> None:
    buffer = pool.allocate(1000)
    other = MemoryPool(device="simulated", heap_size_mb=1, num_heaps=1, warmup_sizes=[])
    with pytest.raises(ValueError, match="another pool"):
        other.release(buffer, stream=PER_THREAD)
    buffer.release(stream=PER_THREAD)
    with pytest.raises(ValueError, match="released already"):
        buffer.release(stream=PER_THREAD)
    with pytest.raises(ValueError, match="released already"):
        buffer.record_stream(PER_THREAD)


def test_host_memory_follows_no_stream() -> None:
    pool = MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[])
    buffer = pool.allocate(1000, stream=0)
    assert buffer.stream is None
    with pytest.raises(tierpool.DeviceError, match="'host' has no streams"):
        pool.allocate(1000, stream=PER_THREAD)
    with pytest.raises(tierpool.DeviceError, match="'host' has no streams"):
        buffer.record_stream(PER_THREAD)


def test_buffers_of_lanes_outlive_the_pool() -> None:
    pool = MemoryPool(device="simulated", heap_size_mb=1, num_heaps=1, warmup_sizes=[])
    buffer = pool.allocate(1000, stream=PER_THREAD)
    buffer.record_stream(0)
    pool.close()
    del pool
    gc.collect()
    assert buffer.stream == PER_THREAD
    buffer.release(stream=0)


@pytest.fixture
def hooks(pool: MemoryPool) -> Iterator[SimpleNamespace]:
    """The compiled library as PyTorch loads it, serving device 7 from the pool."""
    library = ctypes.CDLL(_core.__file__)
    library.tierpool_torch_allocate.restype = ctypes.c_void_p
    library.tierpool_torch_allocate.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
    library.tierpool_torch_free.restype = None
    library.tierpool_torch_free.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
    library.tierpool_torch_record_stream.restype = None
    library.tierpool_torch_record_stream.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.tierpool_torch_base_allocation.restype = ctypes.c_void_p
    library.tierpool_torch_base_allocation.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
    _core.install_pool(7, pool)
    yield SimpleNamespace(
        allocate=lambda size, stream=None: library.tierpool_torch_allocate(size, 7, stream),
        free=lambda address, size, stream=None: library.tierpool_torch_free(address, size, 7, stream),
        record_stream=library.tierpool_torch_record_stream,
        base_allocation=library.tierpool_torch_base_allocation,
        addresses={
            name: ctypes.cast(getattr(library, f"tierpool_torch_{name}"), ctypes.c_void_p).value
            for name in _core.torch_allocator_addresses
        },
    )
    _core.install_pool(7, None)


def test_hooks_serve_the_installed_pool(pool: MemoryPool, hooks: SimpleNamespace) -> None:
    assert hooks.addresses == _core.torch_allocator_addresses
    address = hooks.allocate(5000)
    on_stream = hooks.allocate(5000, PER_THREAD)
    assert pool.get_statistics().active_arrays == 2
    size = ctypes.c_size_t()
    assert hooks.base_allocation(on_stream, size) == on_stream
    assert size.value >= 5000
    hooks.record_stream(address, PER_THREAD)
    hooks.free(address, 5000)
    _core.install_pool(7, None)
    assert hooks.allocate(5000) is None
    hooks.free(on_stream, 5000, PER_THREAD)
    hooks.free(None, 0)
    assert pool.get_statistics().active_arrays == 0


def test_hooks_say_null_when_nothing_is_left(hooks: SimpleNamespace) -> None:
    assert hooks.allocate(1 << 60) is None
    assert hooks.allocate(-1) is None
    assert hooks.allocate(1000, 0xDEAD) is None


def test_hooks_work_without_the_gil(pool: MemoryPool, hooks: SimpleNamespace) -> None:
    """The GIL is let go for every call of a C library: threads are inside at once."""

    def work() -> None:
        for size in range(1000, 3000):
            hooks.free(hooks.allocate(size, PER_THREAD), size, PER_THREAD)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.get_statistics().total_allocations == 8000


def test_only_ordinals_are_devices(pool: MemoryPool) -> None:
    with pytest.raises(ValueError, match="got 64"):
        _core.install_pool(64, pool)
