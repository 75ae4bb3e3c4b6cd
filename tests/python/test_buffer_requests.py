"""What can be asked of a pool for one buffer: sizes, alignments, and devices out of the processor's reach."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds
LARGEST_ALIGNMENT = 2 * MIB


class TestAlignment:
    @pytest.mark.parametrize("device", ["host", "simulated"])
    @pytest.mark.parametrize("nbytes", [0, 100, TOO_LARGE], ids=["empty", "heap", "fallback"])
    def test_every_power_of_two_up_to_the_limit(self, make_pool: MakePool, device: str, nbytes: int) -> None:
        pool = make_pool(device=device)
        for exponent in range(LARGEST_ALIGNMENT.bit_length()):
            pad = pool.allocate(256)
            buffers = [pool.allocate(nbytes, alignment=1 << exponent) for _ in range(2)]
            assert [buffer.address % (1 << exponent) for buffer in buffers] == [0, 0]
            del pad, buffers
        assert pool.get_statistics().active_allocations == 0

    def test_is_256_by_default(self, pool: MemoryPool) -> None:
        assert all(pool.allocate(nbytes).address % 256 == 0 for nbytes in (0, 1, 255, 257, 5000))

    @pytest.mark.parametrize("alignment", [0, 3, 257, LARGEST_ALIGNMENT + 1, 2 * LARGEST_ALIGNMENT])
    def test_refused(self, pool: MemoryPool, alignment: int) -> None:
        remedy = rf"alignment must be a power of two up to {LARGEST_ALIGNMENT}, got {alignment}; 256 is the default"
        for call in (pool.allocate, pool.try_allocate):
            with pytest.raises(ValueError, match=remedy):
                call(64, alignment)
        with pytest.raises(OverflowError, match="alignment must be below"):
            pool.allocate(64, 1 << 64)
        with pytest.raises(TypeError, match="alignment must be an integer number of bytes, got float"):
            pool.allocate(64, 256.0)  # type: ignore[arg-type]
        assert pool.get_statistics().total_allocations == 0


class TestSize:
    @pytest.mark.parametrize(
        ("size", "error", "message"),
        [
            (-1, ValueError, "size must not be negative, got -1"),
            (-(1 << 100), ValueError, f"size must not be negative, got -{1 << 100}"),
            (1 << 63, OverflowError, rf"size must be below 2\*\*63 bytes, got {1 << 63}"),
            (1 << 100, OverflowError, rf"size must be below 2\*\*63 bytes, got {1 << 100}"),
            pytest.param(1 << 20000, OverflowError, r"below 2\*\*63 bytes, got an integer of 20001 bits", id="huge"),
            (1.0, TypeError, "size must be an integer number of bytes, got float"),
            ("1", TypeError, "got str"),
            (None, TypeError, "got NoneType"),
            (np.float64(1), TypeError, "got numpy.float64"),
            ([1], TypeError, "got list"),
        ],
    )
    def test_refused(self, pool: MemoryPool, size: Any, error: type[Exception], message: str) -> None:
        for call in (pool.allocate, pool.try_allocate):
            with pytest.raises(error, match=message):
                call(size)
        assert pool.get_statistics().exhaustion_events == 0
        assert pool.allocate(8).nbytes == 8

    def test_an_error_of_the_callers_own_integer_is_passed_on(self, pool: MemoryPool) -> None:
        class Size:
            def __index__(self) -> int:
                raise KeyError("no size yet")

        with pytest.raises(KeyError, match="no size yet"):
            pool.allocate(Size())

    def test_arguments_are_named(self, pool: MemoryPool) -> None:
        assert pool.allocate(size=8, alignment=512).address % 512 == 0
        with pytest.raises(TypeError):
            pool.allocate()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            pool.allocate(8, 256, 1, 0)  # type: ignore[call-arg]


class TestOutOfReach:
    @pytest.mark.parametrize(
        "see",
        [
            memoryview,
            bytes,
            np.asarray,
            np.array,
            np.from_dlpack,
            lambda buffer: np.frombuffer(buffer, np.uint8),
            lambda buffer: struct.unpack_from("<I", buffer),
            lambda buffer: buffer.array(),
            lambda buffer: buffer.__array_interface__,
            lambda buffer: buffer.__dlpack__(),
            lambda buffer: buffer.__dlpack__(max_version=(1, 0), dl_device=(1, 0)),
            lambda buffer: buffer.__dlpack_device__(),
        ],
    )
    def test_no_view(self, make_pool: MakePool, see: Any) -> None:
        pool = make_pool(device="simulated")
        buffer = pool.allocate(8)
        with pytest.raises(BufferError, match=r"the memory of device 'simulated'; .*build the pool with device='host'"):
            see(buffer)
        buffer.release()
        assert pool.get_statistics().active_allocations == 0

    def test_no_arrays(self, make_pool: MakePool) -> None:
        pool = make_pool(device="simulated")
        for call in (pool.numpy, lambda: pool.zeros(3), lambda: pool.empty(3)):
            with pytest.raises(ValueError, match="device 'simulated' is not; build the pool with device='host'"):
                call()

    def test_a_place_all_the_same(self, make_pool: MakePool) -> None:
        pool = make_pool(device="simulated", heap_size_mb=80 * 1024)
        buffer = pool.allocate(70 << 30)
        assert (buffer.nbytes, buffer.heap_index) == (70 << 30, 0)
        assert buffer.address > 0
        assert f"at {buffer.address:#x}, heap 0" in repr(buffer)
        buffer.release()
        with pool.allocate(1) as small:
            assert small.address % 256 == 0
        assert pool.get_statistics().active_allocations == 0
