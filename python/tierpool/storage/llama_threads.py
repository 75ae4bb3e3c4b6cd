"""Threads that stay between graphs, for a llama.cpp that would otherwise start and end them for each.

With OpenMP the threads stay by themselves, and a pool would change nothing.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from tierpool._core import TierpoolError
from tierpool.storage.llama_library import function_of

_MAX_THREADS: Final = 512


class _PoolParameters(ctypes.Structure):
    _fields_ = (
        ("cpumask", ctypes.c_bool * _MAX_THREADS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


def uses_openmp(library: Any) -> bool:
    """Whether the library computes with OpenMP's threads."""
    return b"OPENMP = 1" in library.llama_print_system_info()


class ThreadPool:
    """Threads that wait without polling; attached to a context, and closed after it."""

    def __init__(self, library: Any, threads: int) -> None:
        self._free = function_of(library, "ggml_threadpool_free")
        self._free.argtypes, self._free.restype = [ctypes.c_void_p], None
        defaults = function_of(library, "ggml_threadpool_params_default")
        defaults.argtypes, defaults.restype = [ctypes.c_int], _PoolParameters
        make = function_of(library, "ggml_threadpool_new")
        make.argtypes, make.restype = [ctypes.POINTER(_PoolParameters)], ctypes.c_void_p
        self._attach = function_of(library, "llama_attach_threadpool")
        self._attach.argtypes, self._attach.restype = [ctypes.c_void_p] * 3, None
        parameters = defaults(threads)
        if parameters.n_threads != threads or parameters.strict_cpu or parameters.paused or any(parameters.cpumask):
            raise TierpoolError("this llama.cpp describes threads in another way than expected: use another version")
        parameters.poll = 0
        self._handle = make(ctypes.byref(parameters))
        if not self._handle:
            raise TierpoolError(f"llama.cpp cannot start {threads} threads")

    def attach(self, context: Any) -> None:
        """Have a context compute with these threads."""
        self._attach(context, self._handle, self._handle)

    def close(self) -> None:
        """End them; a second call does nothing."""
        if self._handle:
            self._free(self._handle)
            self._handle = None
