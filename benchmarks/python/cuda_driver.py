"""The CUDA driver through ctypes, for what the benchmarks compare with and for moving bytes without a framework."""

from __future__ import annotations

import ctypes
from typing import Any

_SYMBOLS = {
    "cuMemAlloc": "cuMemAlloc_v2",
    "cuMemFree": "cuMemFree_v2",
    "cuMemcpyHtoDAsync": "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync": "cuMemcpyDtoHAsync_v2",
    "cuStreamDestroy": "cuStreamDestroy_v2",
    "cuEventDestroy": "cuEventDestroy_v2",
}
NON_BLOCKING = 1
NO_TIMING = 2


class Driver:
    """Calls by their names, with arguments as Python has them; an error code becomes a RuntimeError."""

    def __init__(self, device: int = 0) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", ctypes.c_uint(0))
        handle = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(device))
        self._context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), handle)
        self.enter()

    def enter(self) -> None:
        """Let the calling thread make calls; the one that made this object may already."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver."""
        code = getattr(self._library, _SYMBOLS.get(name, name))(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} ended with {code}")

    def allocate(self, nbytes: int) -> int:
        """Take device memory; `free` gives it back."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc", ctypes.byref(address), ctypes.c_size_t(nbytes))
        return address.value

    def free(self, address: int) -> None:
        """Give device memory back."""
        self.call("cuMemFree", ctypes.c_uint64(address))

    def allocate_async(self, nbytes: int, stream: int = 0) -> int:
        """Take device memory from the driver's own pool."""
        address = ctypes.c_uint64()
        self.call("cuMemAllocAsync", ctypes.byref(address), ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))
        return address.value

    def free_async(self, address: int, stream: int = 0) -> None:
        """Give it back."""
        self.call("cuMemFreeAsync", ctypes.c_uint64(address), ctypes.c_void_p(stream))

    def allocate_pinned(self, nbytes: int) -> int:
        """Take pinned host memory."""
        address = ctypes.c_void_p()
        self.call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(nbytes), ctypes.c_uint(0))
        return address.value or 0

    def free_pinned(self, address: int) -> None:
        """Give pinned host memory back."""
        self.call("cuMemFreeHost", ctypes.c_void_p(address))

    def create_stream(self) -> int:
        """Make a stream that is not ordered with the default one."""
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(NON_BLOCKING))
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        """End a stream."""
        self.call("cuStreamDestroy", ctypes.c_void_p(stream))

    def order_after(self, later: int, earlier: int) -> None:
        """Let one stream wait for the present work of another."""
        event = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(NO_TIMING))
        self.call("cuEventRecord", event, ctypes.c_void_p(earlier))
        self.call("cuStreamWaitEvent", ctypes.c_void_p(later), event, ctypes.c_uint(0))
        self.call("cuEventDestroy", event)

    def synchronize(self, stream: int | None = None) -> None:
        """Wait for a stream, or for the whole device."""
        if stream is None:
            self.call("cuCtxSynchronize")
        else:
            self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def fill(self, address: int, value: int, words: int, stream: int) -> None:
        """Write 32-bit words."""
        arguments = (ctypes.c_uint64(address), ctypes.c_uint(value), ctypes.c_size_t(words), ctypes.c_void_p(stream))
        self.call("cuMemsetD32Async", *arguments)

    def to_device(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        """Copy from host memory."""
        arguments = (ctypes.c_uint64(destination), ctypes.c_void_p(source), ctypes.c_size_t(nbytes))
        self.call("cuMemcpyHtoDAsync", *arguments, ctypes.c_void_p(stream))

    def to_host(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        """Copy to host memory."""
        arguments = (ctypes.c_void_p(destination), ctypes.c_uint64(source), ctypes.c_size_t(nbytes))
        self.call("cuMemcpyDtoHAsync", *arguments, ctypes.c_void_p(stream))
