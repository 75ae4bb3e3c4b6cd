"""Streams of a GPU, over a driver that does nothing before somebody waits for it: what is read too early is wrong."""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import BufferPool, DeviceError
from tierpool.integrations import torch as torch_integration

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import Buffer, Lease, LeaseBatch, MemoryPool

    CallsWithStream = Callable[[MemoryPool, Buffer, Any], list[Callable[[], object]]]

pytestmark = pytest.mark.cuda

PER_THREAD = 2
NBYTES = 5000


def pattern(nbytes: int = NBYTES) -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, nbytes, np.uint8)


class StandInTensor:
    def __init__(self, memory: Buffer) -> None:
        self.memory = memory

    def view(self, _: Any) -> StandInTensor:
        return self

    reshape = view

    @staticmethod
    def is_pinned() -> bool:
        return True


class StandInTorch:
    """PyTorch, as far as `pinned_empty` and `release` know it."""

    def __init__(self, current: Any) -> None:
        self.cuda = SimpleNamespace(is_available=lambda: True, current_stream=lambda: current)

    @staticmethod
    def empty(_shape: Any, dtype: Any) -> Any:
        return SimpleNamespace(element_size=lambda: np.dtype(dtype).itemsize)

    @staticmethod
    def from_dlpack(buffer: Buffer) -> Any:
        return StandInTensor(buffer)


class LateWork:
    """Buffers whose contents a stream has still to write."""

    def __init__(self, fake: ctypes.CDLL, device_pool: MemoryPool, pinned_pool: MemoryPool) -> None:
        self.fake, self.pool = fake, device_pool
        self.staging = pinned_pool.allocate(NBYTES)
        np.asarray(self.staging)[:] = pattern()

    def buffer(self, stream: int) -> Buffer:
        made = self.pool.allocate(NBYTES, stream=stream)
        made.copy_from(bytes(NBYTES))
        self.fake.fake_cuda_hold_work(True)
        made.copy_from(self.staging, stream)
        assert not self.contents(made).any()
        return made

    def buffer_of_another_thread(self) -> Buffer:
        made: list[Buffer] = []
        thread = threading.Thread(target=lambda: made.append(self.buffer(PER_THREAD)))
        thread.start()
        thread.join()
        return made[0]

    def calls(self, name: str) -> int:
        return int(self.fake.fake_cuda_calls(name.encode()))

    @staticmethod
    def contents(buffer: Buffer) -> np.ndarray:
        """What is in the memory by now, which is the host's here."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * buffer.nbytes).from_address(buffer.address)).copy()


@pytest.fixture
def late(fake: ctypes.CDLL, device_pool: MemoryPool, pinned_pool: MemoryPool) -> LateWork:
    return LateWork(fake, device_pool, pinned_pool)


@pytest.fixture
def other_stream(fake: ctypes.CDLL) -> int:
    """A further stream of the first GPU."""
    return int(fake.fake_cuda_create_stream(0))


@pytest.fixture
def foreign_stream(fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool]) -> int:
    """A stream of the second GPU."""
    make_device_pool(device="cuda:1").allocate(8)
    return int(fake.fake_cuda_create_stream(1))


class TestExport:
    def test_consumers_stream_is_put_behind_the_owners(self, late: LateWork, stream: int, other_stream: int) -> None:
        buffer = late.buffer(stream)
        waits, synchronised = late.calls("cuStreamWaitEvent"), late.calls("cuCtxSynchronize")
        capsule = buffer.__dlpack__(stream=other_stream)
        assert late.calls("cuStreamWaitEvent") == waits + 1
        assert late.calls("cuCtxSynchronize") == synchronised
        found = np.zeros(NBYTES, np.uint8)
        buffer.copy_to(found, other_stream)
        assert np.array_equal(found, pattern())
        del capsule

    def test_memory_is_kept_for_the_consumers_stream(self, late: LateWork, stream: int, other_stream: int) -> None:
        buffer = late.buffer(stream)
        capsule = buffer.__dlpack__(stream=other_stream)
        address = buffer.address
        del buffer, capsule
        assert late.pool.get_statistics().pending_mb > 0
        assert late.pool.allocate(NBYTES, stream=stream).address != address

    def test_owners_stream_waits_for_nothing(self, late: LateWork, stream: int) -> None:
        buffer = late.buffer(stream)
        recorded = late.calls("cuEventRecord")
        capsule = buffer.__dlpack__(stream=stream)
        assert late.calls("cuEventRecord") == recorded
        assert not late.contents(buffer).any()
        del buffer, capsule
        assert late.pool.get_statistics().pending_mb == 0

    def test_another_threads_default_stream_has_been_waited_for(self, late: LateWork) -> None:
        buffer = late.buffer_of_another_thread()
        address = buffer.address
        capsule = buffer.__dlpack__(stream=PER_THREAD)
        assert np.array_equal(late.contents(buffer), pattern())
        del buffer, capsule
        assert late.pool.get_statistics().pending_mb > 0
        assert late.pool.allocate(NBYTES, stream=PER_THREAD).address != address

    def test_interface_names_a_stream_that_means_the_same_here(self, late: LateWork) -> None:
        buffer = late.buffer_of_another_thread()
        assert buffer.__cuda_array_interface__["stream"] == 1
        assert np.array_equal(late.contents(buffer), pattern())
        assert late.buffer(PER_THREAD).__cuda_array_interface__["stream"] == PER_THREAD


class TestCopy:
    def test_without_a_stream_follows_both_owners(self, late: LateWork, stream: int, other_stream: int) -> None:
        buffer = late.buffer(stream)
        target = late.pool.allocate(NBYTES, stream=other_stream)
        target.copy_from(buffer)
        assert np.array_equal(late.contents(target), pattern())

    def test_without_a_stream_follows_another_thread(self, late: LateWork) -> None:
        buffer = late.buffer_of_another_thread()
        synchronised = late.calls("cuCtxSynchronize")
        target = late.pool.allocate(NBYTES, stream=PER_THREAD)
        target.copy_from(buffer)
        assert np.array_equal(late.contents(target), pattern())
        assert late.calls("cuCtxSynchronize") == synchronised + 1

    def test_with_a_stream_keeps_the_memory_of_both(self, late: LateWork, stream: int, other_stream: int) -> None:
        source, target = late.buffer(stream), late.pool.allocate(NBYTES)
        target.copy_from(source, other_stream)
        assert not late.contents(target).any()
        del source, target
        assert late.pool.get_statistics().pending_mb * 2**20 >= 2 * NBYTES

    def test_that_fails_half_way_keeps_the_memory(self, late: LateWork, stream: int) -> None:
        target = late.pool.allocate(20 << 20)
        address = target.address
        late.fake.fake_cuda_hold_work(True)
        late.fake.fake_cuda_fail(b"cuMemcpyAsync", 700, ctypes.c_uint64(4), ctypes.c_uint64(1))
        with pytest.raises(DeviceError, match=r"\(700\)"):
            target.copy_from(bytes(20 << 20), stream)
        del target
        assert late.pool.get_statistics().pending_mb >= 20
        assert late.pool.allocate(20 << 20).address != address


class TestStreamOfAnotherDevice:
    def test_is_refused_everywhere(
        self,
        device_pool: MemoryPool,
        pinned_pool: MemoryPool,
        calls_with_stream: CallsWithStream,
        foreign_stream: int,
    ) -> None:
        buffer, pinned = device_pool.allocate(64), pinned_pool.allocate(64)
        for call in (
            *calls_with_stream(device_pool, buffer, foreign_stream),
            partial(buffer.copy_from, bytes(64), foreign_stream),
            partial(buffer.copy_to, bytearray(64), foreign_stream),
            partial(buffer.copy_from, pinned, foreign_stream),
            partial(buffer.__dlpack__, stream=foreign_stream),
            partial(pinned.copy_from, bytes(64), foreign_stream),
            partial(pinned.release, stream=foreign_stream),
            partial(pinned.record_stream, foreign_stream),
        ):
            with pytest.raises(DeviceError, match=r"on cuda:0: it belongs to another device .* of this device"):
                call()
        assert not buffer.released
        assert not pinned.released
        for memory in (buffer, pinned):
            memory.release()
        assert device_pool.get_statistics().pending_mb == pinned_pool.get_statistics().pending_mb == 0

    def test_is_refused_for_pinned_memory_of_the_first(
        self, make_device_pool: Callable[..., MemoryPool], pinned_pool: MemoryPool, foreign_stream: int
    ) -> None:
        second = make_device_pool(device="cuda:1").allocate(64)
        first_pinned = pinned_pool.allocate(64)
        with pytest.raises(DeviceError, match="on cuda:0: it belongs to another device"):
            second.copy_from(first_pinned, foreign_stream)
        for stream in (0, PER_THREAD):  # names that every device has
            with pytest.raises(DeviceError, match=r"'pinned' and 'cuda:1' are memory for two; .*'pinned:1'"):
                second.copy_from(first_pinned, stream)
        second.copy_from(first_pinned)  # done on return, and so without a stream
        second_pinned = make_device_pool(device="pinned:1").allocate(64)
        np.asarray(second_pinned)[:] = 5
        second.copy_from(second_pinned, foreign_stream)
        found = bytearray(64)
        second.copy_to(found, foreign_stream)
        assert found == b"\5" * 64

    @pytest.mark.parametrize("memory", ["pinned", "pinned-write-combined", "pinned:1"])
    def test_is_refused_for_a_tensor_also_where_its_handle_means_the_default(
        self,
        make_device_pool: Callable[..., MemoryPool],
        monkeypatch: pytest.MonkeyPatch,
        fake: ctypes.CDLL,
        memory: str,
    ) -> None:
        del fake  # which has a second GPU
        first, second = (SimpleNamespace(cuda_stream=0, device_index=index) for index in (0, 1))
        own, foreign = (second, first) if memory.endswith(":1") else (first, second)
        monkeypatch.setitem(sys.modules, "torch", StandInTorch(current=foreign))
        pool = make_device_pool(device=memory, heap_size_mb=1)
        tensor = torch_integration.pinned_empty(NBYTES, "uint8", pool)
        remedy = f"device='{memory.partition(':')[0]}:{foreign.device_index}'"
        told = rf"'{memory}' after a stream of cuda:{foreign.device_index}: .* cuda:{own.device_index}.*{remedy}"
        for after in (foreign, None):  # PyTorch's current one
            with pytest.raises(DeviceError, match=told):
                torch_integration.release(tensor, after)
        torch_integration.release(tensor, own)
        del tensor
        assert pool.get_statistics().active_allocations == 0

    def test_copies_between_devices_follow_both(
        self, make_device_pool: Callable[..., MemoryPool], late: LateWork
    ) -> None:
        buffer = late.buffer(0)
        target = make_device_pool(device="cuda:1").allocate(NBYTES)
        target.copy_from(buffer)
        assert np.array_equal(late.contents(target), pattern())


class TestWaitsWithoutTheGil:
    """The end of memory waits for the device, which may need Python in another thread to go on."""

    @staticmethod
    def run(fake: ctypes.CDLL, end: Callable[[], None]) -> None:
        ended = threading.Event()
        seen = []

        def let_go_on() -> None:
            while not seen and not ended.is_set():
                if fake.fake_cuda_waiting_count() != 0:
                    seen.append(True)
                    fake.fake_cuda_hold_waits(False)

        fake.fake_cuda_hold_waits(True)
        thread = threading.Thread(target=let_go_on)
        thread.start()
        try:
            end()
        finally:
            ended.set()
            thread.join()
        assert seen == [True]

    def test_a_pool_that_is_dropped(self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool]) -> None:
        pools = [make_device_pool()]
        pools[0].allocate(NBYTES).release()
        self.run(fake, pools.clear)

    @pytest.mark.parametrize(
        "end",
        [list.clear, lambda held: held[0].release(), lambda held: held[0].__exit__(None, None, None)],
        ids=["drop", "release", "exit"],
    )
    def test_the_last_buffer_of_a_closed_pool(
        self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool], end: Callable[[list[Buffer]], None]
    ) -> None:
        pool = make_device_pool()
        held = [pool.allocate(NBYTES)]
        pool.close()
        self.run(fake, partial(end, held))

    def test_the_last_export_of_a_closed_pool(
        self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool]
    ) -> None:
        pool = make_device_pool()
        capsules = [pool.allocate(NBYTES).__dlpack__()]
        pool.close()
        self.run(fake, capsules.clear)

    def test_a_batch_of_a_closed_pool(self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool]) -> None:
        pool = make_device_pool()
        batches = [pool.allocate_batch([NBYTES, NBYTES])]
        pool.close()
        self.run(fake, batches.clear)

    @pytest.mark.parametrize(
        "end",
        [
            lambda _, held: held.clear(),
            lambda _, held: held[0].release(),
            lambda _, held: held[0].__exit__(None, None, None),
            lambda arena, held: arena.release(held[0]),
            lambda arena, _: arena.reset(),
        ],
        ids=["drop", "release", "exit", "release by the arena", "reset"],
    )
    def test_the_last_lease_of_a_closed_arena(
        self,
        fake: ctypes.CDLL,
        make_device_pool: Callable[..., MemoryPool],
        end: Callable[[BufferPool, list[Lease]], None],
    ) -> None:
        pool = make_device_pool()
        arena = BufferPool(pool)
        held = [arena.alloc(NBYTES)]
        arena.close()
        pool.close()
        self.run(fake, partial(end, arena, held))

    @pytest.mark.parametrize("end", [list.clear, lambda held: held[0].release()], ids=["drop", "release"])
    def test_a_batch_of_leases_of_a_closed_arena(
        self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool], end: Callable[[list[LeaseBatch]], None]
    ) -> None:
        pool = make_device_pool()
        arena = BufferPool(pool)
        held = [arena.alloc_batch([NBYTES, NBYTES])]
        arena.close()
        pool.close()
        self.run(fake, partial(end, held))

    def test_an_arena_that_is_dropped(self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool]) -> None:
        pool = make_device_pool()
        arenas = [BufferPool(pool)]
        arenas[0].alloc(NBYTES).release()
        pool.close()
        self.run(fake, arenas.clear)

    def test_a_request_that_gives_a_fallback_back(
        self, fake: ctypes.CDLL, make_device_pool: Callable[..., MemoryPool]
    ) -> None:
        pool = make_device_pool()
        stream = fake.fake_cuda_create_stream(0)
        fake.fake_cuda_hold_work(True)
        pool.allocate(100 << 20).release(stream)
        fake.fake_cuda_hold_work(False)
        assert pool.get_statistics().fallback_pending_mb == 100
        with pool.allocate(NBYTES) as other:  # its release marks the stream, whose work is over by then
            other.record_stream(stream)
        self.run(fake, lambda: pool.allocate(2 * NBYTES).release())
        assert pool.get_statistics().fallback_pending_mb == 0
