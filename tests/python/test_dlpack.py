"""DLPack: exports that share a buffer's memory, and the consumers that end them."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import Buffer

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds
VERSIONS = pytest.mark.parametrize("max_version", [None, (1, 0)], ids=["legacy", "versioned"])


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class DLManagedTensor(ctypes.Structure):
    _fields_ = [("tensor", DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    ]


LEGACY, VERSIONED = b"dltensor", b"dltensor_versioned"
USED = {LEGACY: b"used_dltensor", VERSIONED: b"used_dltensor_versioned"}

name_of = ctypes.pythonapi.PyCapsule_GetName
name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
set_name = ctypes.pythonapi.PyCapsule_SetName
set_name.restype, set_name.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


def managed_of(capsule: object) -> Any:
    name = name_of(capsule)
    kind = DLManagedTensorVersioned if name == VERSIONED else DLManagedTensor
    return kind.from_address(pointer_of(capsule, name))


def consume(capsule: object) -> Any:
    """Take the tensor over, as a C library does: whoever has it calls its deleter once."""
    managed = managed_of(capsule)
    set_name(capsule, USED[name_of(capsule)])
    return managed


def live(pool: MemoryPool) -> int:
    return pool.get_statistics().active_allocations


class TestCapsule:
    @VERSIONS
    def test_describes_the_bytes(self, pool: MemoryPool, max_version: Any) -> None:
        buffer = pool.allocate(1000)
        capsule = buffer.__dlpack__(max_version=max_version)
        assert name_of(capsule) == (LEGACY if max_version is None else VERSIONED)
        managed = managed_of(capsule)
        tensor = managed.tensor
        assert (tensor.data, tensor.byte_offset) == (buffer.address, 0)
        assert (tensor.device_type, tensor.device_id) == buffer.__dlpack_device__() == (1, 0)
        assert (tensor.code, tensor.bits, tensor.lanes) == (1, 8, 1)
        assert (tensor.ndim, tensor.shape[0], tensor.strides[0]) == (1, 1000, 1)
        if max_version is not None:
            assert (managed.major, managed.flags) == (1, 0)

    @pytest.mark.parametrize(
        ("max_version", "name"),
        [(None, LEGACY), ((0, 8), LEGACY), ((1, 0), VERSIONED), ((1, 3), VERSIONED), ((2, 0), VERSIONED)],
    )
    def test_is_as_new_as_the_consumer_can_read(self, pool: MemoryPool, max_version: Any, name: bytes) -> None:
        assert name_of(pool.allocate(8).__dlpack__(max_version=max_version)) == name

    @VERSIONS
    def test_of_no_bytes(self, pool: MemoryPool, max_version: Any) -> None:
        tensor = managed_of(capsule := pool.allocate(0).__dlpack__(max_version=max_version)).tensor
        assert (tensor.data, tensor.shape[0], tensor.strides[0]) == (None, 0, 1)
        assert live(pool) == 1
        del capsule
        assert live(pool) == 0

    @VERSIONS
    def test_never_consumed_ends_with_the_capsule(self, pool: MemoryPool, max_version: Any) -> None:
        buffer = pool.allocate(8)
        capsule = buffer.__dlpack__(max_version=max_version)
        with pytest.raises(BufferError, match="8 bytes: it has live DLPack exports \\(1\\); drop them first"):
            buffer.release()
        del capsule
        buffer.release()
        assert live(pool) == 0

    @VERSIONS
    def test_keeps_the_memory_of_a_dead_buffer(self, pool: MemoryPool, max_version: Any) -> None:
        capsule = pool.allocate(8).__dlpack__(max_version=max_version)
        gc.collect()
        assert live(pool) == 1
        del capsule
        assert live(pool) == 0

    def test_exports_and_views_are_counted_together(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(TOO_LARGE)
        seen = [buffer.__dlpack__(), memoryview(buffer), np.from_dlpack(buffer), buffer.__dlpack__(max_version=(1, 0))]
        pool_release = pool.release
        while seen:
            for release in (buffer.release, lambda: pool_release(buffer)):
                with pytest.raises(BufferError):
                    release()
            assert live(pool) == 1
            seen.pop()
        buffer.release()
        assert live(pool) == 0


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"stream": 1}, BufferError, r"no stream: call __dlpack__\(stream=None\)"),
            ({"stream": -1}, BufferError, "no stream"),
            ({"dl_device": (2, 0)}, BufferError, r"cannot be exported to \(2, 0\); copy it there"),
            ({"dl_device": (1, 1)}, BufferError, r"cannot be exported to \(1, 1\)"),
            ({"dl_device": "cpu"}, BufferError, "cannot be exported to 'cpu'"),
            ({"copy": True}, BufferError, "copy after the import, or pass copy=None"),
            ({"max_version": 1}, TypeError, r"max_version must be None or a pair \(major, minor\), got 1"),
            ({"max_version": (1,)}, TypeError, "max_version must be None or a pair"),
            ({"max_version": ("1", "0")}, TypeError, "max_version must be None or a pair"),
            ({"colour": 1}, TypeError, "colour"),
        ],
    )
    def test_refused(self, pool: MemoryPool, arguments: Any, error: type[Exception], message: str) -> None:
        buffer = pool.allocate(8)
        with pytest.raises(error, match=message):
            buffer.__dlpack__(**arguments)
        buffer.release()
        assert live(pool) == 0

    def test_only_by_name(self, pool: MemoryPool) -> None:
        with pytest.raises(TypeError):
            pool.allocate(8).__dlpack__(None)  # type: ignore[misc]

    def test_accepted(self, pool: MemoryPool) -> None:
        capsule = pool.allocate(8).__dlpack__(stream=None, max_version=(1, 0), dl_device=(1, 0), copy=False)
        assert name_of(capsule) == VERSIONED

    def test_a_comparison_that_releases_the_buffer(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)

        class Device:
            def __eq__(self, other: object) -> bool:
                buffer.release()
                return True

            __hash__ = None  # type: ignore[assignment]

        with pytest.raises(ValueError, match="released already"):
            buffer.__dlpack__(dl_device=Device())  # type: ignore[arg-type]
        assert live(pool) == 0


class TestDeleter:
    """The deleter may run anywhere: it needs neither the GIL nor a thread that Python knows."""

    @staticmethod
    def without_the_gil(managed: Any) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)(ctypes.addressof(managed))

    @staticmethod
    def with_the_gil(managed: Any) -> None:
        ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)(ctypes.addressof(managed))

    @classmethod
    def on_a_python_thread(cls, managed: Any) -> None:
        thread = threading.Thread(target=cls.without_the_gil, args=(managed,))
        thread.start()
        thread.join()

    @staticmethod
    def on_a_foreign_thread(managed: Any) -> None:
        libc, thread = ctypes.CDLL(None), ctypes.c_ulong()
        libc.pthread_create.argtypes = [ctypes.c_void_p] * 4
        libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
        assert libc.pthread_create(ctypes.addressof(thread), None, managed.deleter, ctypes.addressof(managed)) == 0
        assert libc.pthread_join(thread, None) == 0

    @pytest.mark.parametrize("call", ["with_the_gil", "without_the_gil", "on_a_python_thread", "on_a_foreign_thread"])
    @pytest.mark.parametrize("nbytes", [8, TOO_LARGE], ids=["heap", "fallback"])
    @VERSIONS
    def test_gives_the_memory_back(self, pool: MemoryPool, max_version: Any, nbytes: int, call: str) -> None:
        managed = consume(pool.allocate(nbytes).__dlpack__(max_version=max_version))
        gc.collect()
        assert live(pool) == 1
        ctypes.memset(managed.tensor.data, 1, nbytes)
        getattr(self, call)(managed)
        assert live(pool) == 0

    @VERSIONS
    def test_leaves_the_memory_to_a_living_buffer(self, pool: MemoryPool, max_version: Any) -> None:
        buffer = pool.allocate(8)
        managed = consume(buffer.__dlpack__(max_version=max_version))
        self.on_a_foreign_thread(managed)
        assert live(pool) == 1
        memoryview(buffer)[:] = b"12345678"
        buffer.release()
        assert live(pool) == 0

    @VERSIONS
    def test_after_the_pool_has_gone(self, make_pool: MakePool, max_version: Any) -> None:
        pool = make_pool()
        gone = weakref.ref(pool)
        managed = [consume(pool.allocate(n).__dlpack__(max_version=max_version)) for n in (8, TOO_LARGE)]
        pool.close()
        del pool
        gc.collect()
        assert gone() is None
        for one in managed:
            ctypes.memset(one.tensor.data, 1, one.tensor.shape[0])
            self.on_a_foreign_thread(one)

    def test_from_many_threads_at_once(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        managed = [consume(buffer.__dlpack__(max_version=(1, 0))) for _ in range(64)]
        threads = [threading.Thread(target=self.without_the_gil, args=(one,)) for one in managed]
        del buffer
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert live(pool) == 0


class TestConsumers:
    @staticmethod
    def check(pool: MemoryPool, load: Callable[[Buffer], Any]) -> None:
        buffer = pool.allocate(8)
        np.asarray(buffer)[:] = range(8)
        tensor = load(buffer)
        assert tensor.tolist() == list(range(8))
        with pytest.raises(BufferError, match="cannot release the buffer of 8 bytes"):
            buffer.release()
        tensor[0] = 9
        assert bytes(buffer)[0] == 9
        del buffer
        part = tensor[2:]
        del tensor
        assert live(pool) == 1
        assert part.tolist() == list(range(2, 8))
        del part
        assert live(pool) == 0

    def test_numpy(self, pool: MemoryPool) -> None:
        if np.lib.NumpyVersion(np.__version__) < "2.1.0":
            pytest.skip("NumPy before 2.1 imports every DLPack tensor as read-only")
        self.check(pool, np.from_dlpack)
        with pytest.raises(BufferError):
            np.from_dlpack(pool.allocate(8), copy=True)
        assert live(pool) == 0

    def test_torch(self, pool: MemoryPool) -> None:
        torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
        self.check(pool, torch.from_dlpack)
        floats = torch.from_dlpack(pool.allocate(64)).view(torch.float32)
        floats.fill_(1.5)
        assert floats.sum().item() == 24.0
        thread = threading.Thread(target=floats.clone().copy_, args=(floats,))
        thread.start()
        thread.join()
        del floats, thread
        gc.collect()
        assert live(pool) == 0
