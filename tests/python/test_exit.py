"""How a process ends while pools and their memory are still in use: with its own exit code and in silence."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SETUP = """
import atexit, builtins, contextvars, ctypes, gc, logging, os, sys, threading, time
import numpy as np
import tierpool

logging.basicConfig(level=logging.DEBUG)  # whatever is logged shows on standard error
TOO_LARGE = 17 << 20

def make_pool(**settings):
    return tierpool.MemoryPool({"heap_size_mb": 16, "num_heaps": 2, "warmup_sizes": [], **settings})

pool = make_pool(log_exhaustion=False)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    code = SETUP + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def check(script: str, code: int = 0) -> None:
    done = run(script)
    assert (done.returncode, done.stderr) == (code, "")


def test_the_check_sees_what_goes_wrong() -> None:
    assert run("raise KeyError").returncode == 1
    assert "KeyError" in run("raise KeyError").stderr
    assert "leak" in run("held = pool.allocate(8); pool.close()").stderr
    assert run("os.abort()").returncode < 0


@pytest.mark.parametrize(
    "held",
    [
        "pool.allocate(8)",
        "pool.allocate(TOO_LARGE)",
        "pool.allocate_batch([8, 8, TOO_LARGE])",
        "list(pool.allocate_batch([8, 8]))",
        "memoryview(pool.allocate(8))[2:]",
        "np.asarray(pool.allocate(8))[::2]",
        "pool.allocate(8).array(np.int32)",
        "np.from_dlpack(pool.allocate(8))",
        "pool.allocate(8).__dlpack__()",
        "pool.allocate(8).__dlpack__(max_version=(1, 0))",
        "(pool.zeros(1000), pool.empty(TOO_LARGE), pool.zeros(0))",
        "pool.acquire_heap()",
        "(pool.numpy(), pool.get_statistics(), pool.heaps())",
    ],
)
@pytest.mark.parametrize("pool_ends", ["", "del pool; gc.collect()"], ids=["with_pool", "pool_dropped"])
def test_with_memory_still_held(held: str, pool_ends: str) -> None:
    check(f"""
        held = {held}
        {pool_ends}
    """)


@pytest.mark.parametrize(
    "place",
    [
        "sys.modules['os'].held = np.held = builtins.held = held",
        "sys.modules['logging'].held = np.ndarray.__module__, held",
        "held.append(held)",
        "pool.held = held; pool.itself = pool",
        "kept = lambda held=held: held; kept.itself = kept; atexit.register(kept)",
        "local = threading.local(); local.held = held",
        "variable = contextvars.ContextVar('held'); variable.set(held)",
        "sys.held = held; gc.disable()",
        "thread = threading.Thread(target=lambda held: time.sleep(0.05), args=(held,)); thread.start()",
    ],
)
def test_wherever_it_is_held(place: str) -> None:
    check(f"""
        buffer = pool.allocate(8)
        held = [pool, buffer, memoryview(buffer), buffer.__dlpack__(), pool.zeros(1000), pool.numpy()]
        {place}
        del held, buffer, pool
    """)


@pytest.mark.parametrize(
    "inside",
    [
        "array = np.ones(5000)",
        "arrays = [np.ones(n) for n in range(1000)]; arrays.append(arrays)",
        "builtins.array = np.ones(5000); np.more = [np.zeros(10), np.ones(1 << 20)]",
        "pool.close(); array = None",
        "del pool; array = np.ones(5000)",
        "sys.exit(0)",
        "threading.Thread(target=lambda: pool.numpy().__enter__() or np.ones(5000)).start()",
    ],
)
def test_inside_an_open_block(inside: str) -> None:
    check(f"""
        pool.numpy().__enter__()
        {inside}
    """)


def test_with_records_that_nobody_took() -> None:
    check("""
        pool = make_pool()
        pool.numpy().__enter__()
        try:
            np.empty(1 << 60, np.uint8)
        except MemoryError:
            pass
    """)


def test_with_pools_used_by_what_runs_last() -> None:
    check("""
        class Last:
            def __init__(self):
                self.pool = make_pool()

            def __del__(self):
                if self.pool.closed:
                    return
                buffer = self.pool.allocate(TOO_LARGE)
                memoryview(buffer)[:4] = b"last"
                self.pool.allocate_batch([8, 8]).release()
                self.pool.trim()
                self.pool.close()

        builtins.first, sys.second, np.third = Last(), Last(), Last()
        fourth = Last()
        fourth.itself = fourth
        atexit.register(Last().__del__)
        logging.disable()
    """)


@pytest.mark.parametrize("call", ["deleter", "thread"])
def test_a_dlpack_export_ends_after_the_interpreter(call: str) -> None:
    check(f"""
        def consume(buffer):
            api = ctypes.pythonapi
            api.PyCapsule_GetPointer.restype = ctypes.c_void_p
            api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
            api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
            capsule = buffer.__dlpack__()
            managed = api.PyCapsule_GetPointer(capsule, b"dltensor")
            api.PyCapsule_SetName(capsule, name)
            deleter = ctypes.c_void_p.from_address(managed + deleter_offset).value
            return deleter, managed

        name = b"used_dltensor"
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(name))
        deleter_offset = 7 * 8  # behind a DLTensor of 48 bytes and the context
        libc = ctypes.CDLL(None)
        libc.__cxa_atexit.argtypes = [ctypes.c_void_p] * 3
        for nbytes in (8, TOO_LARGE):
            deleter, managed = consume(pool.allocate(nbytes))
            if "{call}" == "deleter":
                libc.__cxa_atexit(deleter, managed, None)
            else:
                thread = ctypes.c_ulong()
                libc.pthread_create.argtypes = [ctypes.c_void_p] * 4
                libc.pthread_create(ctypes.addressof(thread), None, deleter, managed)
        del pool
    """)


@pytest.mark.parametrize(
    "work",
    [
        "pool.allocate_batch([100, 200, 3000])",
        "pool.allocate(1 << 20); pool.trim()",
        "pool.allocate(1000).array()[:] = 1",
        "pool.numpy().__enter__(); np.zeros(10000) + 1",
        "make_pool().close()",
        "make_pool().allocate(TOO_LARGE)",
        "pool.get_statistics().to_dict()",
        "pool.warmup([1], lambda done, total: None)",
    ],
)
def test_while_daemon_threads_work(work: str) -> None:
    check(f"""
        logging.disable()
        started = threading.Barrier(5)

        def loop():
            started.wait()
            while True:
                {work}

        pool.allocate_batch([]), pool.allocate(8).array()  # their first calls import modules
        for _ in range(4):
            threading.Thread(target=loop, daemon=True).start()
        started.wait()
        for _ in range(1000):
            pool.allocate(8)
    """)


def test_while_daemon_threads_log() -> None:
    check("""
        logging.getLogger("tierpool").addHandler(logging.NullHandler())
        logging.getLogger("tierpool").propagate = False
        started = threading.Barrier(5)

        def loop():
            started.wait()
            while True:
                make_pool(device="simulated").allocate(TOO_LARGE)

        for _ in range(4):
            threading.Thread(target=loop, daemon=True).start()
        started.wait()
        for _ in range(1000):
            pool.allocate(8)
    """)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os._exit(3)", 3),
        ("sys.exit(4)", 4),
        ("threading.Thread(target=sys.exit, args=(5,)).start()", 0),
        ("atexit.register(os._exit, 6)", 6),
        ("os.kill(os.getpid(), 9)", -9),
    ],
)
def test_in_every_way(end: str, code: int) -> None:
    check(
        f"""
        buffer, array = pool.allocate(8), pool.zeros(1000)
        with pool.numpy():
            view = np.asarray(buffer)
            {end}
        """,
        code,
    )


def test_twice_in_a_child_and_its_parent() -> None:
    check("""
        buffer, array = pool.allocate(8), pool.zeros(1000)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        array[:] = 1
        np.asarray(buffer)[:] = 2
    """)
