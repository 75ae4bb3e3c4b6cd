"""Buffers of a GPU and of pinned memory: what they show to other libraries, and what they refuse."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import Buffer, MemoryPool

pytestmark = pytest.mark.cuda

CUDA, HOST = (2, 0), (1, 0)


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
    ]


def tensor_of(capsule: object) -> Any:
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return Tensor.from_address(pointer_of(capsule, b"dltensor"))


class TestCudaArrayInterface:
    def test_has_address_bytes_and_stream(self, device_pool: MemoryPool, stream: int) -> None:
        buffer = device_pool.allocate(1000)
        assert buffer.__cuda_array_interface__ == {
            "shape": (1000,),
            "typestr": "|u1",
            "data": (buffer.address, False),
            "strides": None,
            "version": 3,
            "stream": 1,
        }
        assert device_pool.allocate(1000, stream=stream).__cuda_array_interface__["stream"] == stream

    def test_an_empty_buffer_has_no_address(self, device_pool: MemoryPool) -> None:
        assert device_pool.allocate(0).__cuda_array_interface__["data"] == (0, False)

    def test_keeps_the_memory_until_the_buffer_dies(self, device_pool: MemoryPool) -> None:
        buffer = device_pool.allocate(1000)
        assert buffer.__cuda_array_interface__
        with pytest.raises(BufferError, match="1000 bytes: __cuda_array_interface__ gave its address away; drop"):
            buffer.release()

    def test_is_not_there_on_the_host(self, pinned_pool: MemoryPool, pool: MemoryPool) -> None:
        for other in (pinned_pool, pool):
            assert not hasattr(other.allocate(8), "__cuda_array_interface__")


class TestDlpack:
    def test_is_of_the_gpu(self, device_pool: MemoryPool) -> None:
        buffer = device_pool.allocate(1000)
        assert buffer.__dlpack_device__() == CUDA
        capsule = buffer.__dlpack__()
        tensor = tensor_of(capsule)
        assert (tensor.data, tensor.device_type, tensor.device_id) == (buffer.address, *CUDA)
        with pytest.raises(BufferError, match="live DLPack exports"):
            buffer.release()
        del tensor, capsule
        buffer.release()

    def test_pinned_memory_is_the_processors(self, pinned_pool: MemoryPool) -> None:
        buffer = pinned_pool.allocate(1000)
        assert buffer.__dlpack_device__() == HOST
        assert tensor_of(buffer.__dlpack__()).device_type == HOST[0]
        np.from_dlpack(buffer)[:] = 7
        assert bytes(buffer) == b"\7" * 1000

    @pytest.mark.parametrize("asked", [None, -1, 1, 2])
    def test_streams_of_the_standard(self, device_pool: MemoryPool, asked: int | None) -> None:
        device_pool.allocate(8).__dlpack__(stream=asked)

    def test_a_stream_by_its_handle(self, device_pool: MemoryPool, stream: int) -> None:
        device_pool.allocate(8).__dlpack__(stream=stream)
        device_pool.allocate(8, stream=stream).__dlpack__(stream=None)

    @pytest.mark.parametrize("asked", [0, -2])
    def test_no_stream_of_the_standard(self, device_pool: MemoryPool, asked: int) -> None:
        with pytest.raises(BufferError, match=rf"stream {asked} is none of CUDA's: pass None or 1"):
            device_pool.allocate(8).__dlpack__(stream=asked)

    def test_no_number(self, device_pool: MemoryPool) -> None:
        with pytest.raises(TypeError, match="stream must be None or an int, got str"):
            device_pool.allocate(8).__dlpack__(stream="1")

    def test_another_device_or_a_copy_is_refused(self, device_pool: MemoryPool) -> None:
        buffer = device_pool.allocate(8)
        with pytest.raises(BufferError, match=r"lives on device \(2, 0\) and cannot be exported to \(1, 0\)"):
            buffer.__dlpack__(dl_device=HOST)
        with pytest.raises(BufferError, match="without a copy"):
            buffer.__dlpack__(copy=True)
        assert tensor_of(buffer.__dlpack__(dl_device=CUDA)).device_type == CUDA[0]

    def test_pinned_memory_has_no_stream(self, pinned_pool: MemoryPool) -> None:
        with pytest.raises(BufferError, match="no stream"):
            pinned_pool.allocate(8).__dlpack__(stream=1)


VIEWS = {
    "memoryview": memoryview,
    "bytes": bytes,
    "numpy.asarray": np.asarray,
    "array": lambda buffer: buffer.array("f4"),
    "numpy.frombuffer": np.frombuffer,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_views_of_the_host_are_refused_with_the_remedy(device_pool: MemoryPool, view: Callable[[Buffer], Any]) -> None:
    buffer = device_pool.allocate(64)
    with pytest.raises(BufferError, match=r"cannot reach the memory of device 'cuda:0'; copy .* buffer\.copy_to"):
        view(buffer)
    buffer.release()
