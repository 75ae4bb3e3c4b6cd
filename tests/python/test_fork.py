"""Fork while threads work: the child's pools work on, and nobody's statistics suffer."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

if not hasattr(os, "fork"):
    pytest.skip("this system cannot fork", allow_module_level=True)

SETUP = """
import logging, os, signal, sys, threading
import numpy as np
import tierpool

logging.getLogger("tierpool").addHandler(logging.NullHandler())
logging.getLogger("tierpool").propagate = False
MIB = 1 << 20

def make_pool(**settings):
    return tierpool.MemoryPool({"heap_size_mb": 16, "num_heaps": 2, "warmup_sizes": [], **settings})

def check(stats):
    assert stats.total_allocations - stats.total_deallocations == stats.active_allocations, stats
    assert 0 <= stats.used_capacity_mb <= stats.peak_used_mb <= stats.total_capacity_mb, stats
    assert stats.fallback_allocations <= stats.exhaustion_events, stats

def fork(child):
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)  # a child that waits for a lost lock ends here
        try:
            child()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"the child ended with status {status}"
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    code = SETUP + textwrap.dedent(script)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def check(script: str) -> None:
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_sees_what_goes_wrong() -> None:
    done = run("""
        def child():
            raise KeyError("in the child")

        fork(child)
    """)
    assert done.returncode == 1
    assert "KeyError: 'in the child'" in done.stderr


# Detected by what is preloaded: an extension that is built with the sanitizer needs it in the interpreter.
@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer's own allocator may lose a lock over fork"
)
@pytest.mark.parametrize("device", ["host", "simulated"])
@pytest.mark.parametrize(
    "work",
    [
        "pool.allocate(5000); pool.allocate_batch([8, 100, 70_000])",
        "pool.allocate(3 * MIB); pool.trim()",
        "pool.allocate(17 * MIB)",
        "pool.warmup([4]); pool.trim(); pool.get_statistics(); pool.heaps()",
        "make_pool(device=device).allocate(17 * MIB)",
        "with_view(pool.allocate(5000))",
    ],
    ids=["allocate", "trim", "fallback", "warmup", "pools", "views"],
)
def test_while_threads_work(device: str, work: str) -> None:
    check(f"""
        device = "{device}"
        pool = make_pool(device=device, track_origins=True)
        kept = pool.allocate(8)
        goes_on = True

        def with_view(buffer):
            if device == "host":
                np.asarray(buffer)[:] = 1

        def hammer():
            while goes_on:
                {work}

        def child():
            before = pool.get_statistics()
            check(before)
            held = [pool.allocate(n) for n in (0, 8, 5000, MIB, 17 * MIB)]
            held += pool.allocate_batch([8, 8])
            check(pool.get_statistics())
            assert pool.get_statistics().active_allocations == before.active_allocations + 7
            if device == "host":
                for index in range(len(held)):
                    np.asarray(held[index])[:] = 1
                with pool.numpy():
                    array = np.zeros(100_000)
                    assert not array.any()
                    array.resize(300_000, refcheck=False)
                    del array
            held.clear()
            pool.trim()
            pool.warmup([1])
            after = pool.get_statistics()
            check(after)
            assert after.active_allocations == before.active_allocations
            other = make_pool(device=device)
            other.allocate(8).release()
            other.close()
            kept.release()
            pool.close()

        threads = [threading.Thread(target=hammer, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            fork(child)
        goes_on = False
        for thread in threads:
            thread.join()
        stats = pool.get_statistics()
        check(stats)
        assert stats.active_allocations == 1, stats
        kept.release()
        stats = pool.get_statistics()
        assert (stats.used_capacity_mb, stats.fallback_used_mb) == (0, 0), stats
    """)


def test_inside_a_numpy_block() -> None:
    check("""
        pool = make_pool()
        with pool.numpy():
            array = np.arange(10_000)

            def child():
                mine = np.arange(10_000)
                assert (mine == array).all()
                assert pool.get_statistics().active_arrays == 2
                array[:] = 0

            fork(child)
            fork(child)
        assert (array == np.arange(10_000)).all()
        assert pool.get_statistics().active_arrays == 1
    """)


def test_a_child_of_a_child() -> None:
    check("""
        pool = make_pool()
        kept = pool.allocate(8)

        def child():
            held = pool.allocate(8)
            fork(lambda: held.release())
            assert pool.get_statistics().active_allocations == 2

        fork(child)
        assert pool.get_statistics().active_allocations == 1
    """)


def test_the_child_may_log_and_end_normally() -> None:
    check("""
        pool = make_pool()
        held, array = pool.allocate(8), pool.zeros(1000)
        messages = []

        class Keep(logging.Handler):
            def emit(self, record):
                messages.append(record.getMessage())

        logging.getLogger("tierpool").addHandler(Keep())
        logging.getLogger("tierpool").setLevel(logging.DEBUG)
        pid = os.fork()
        if pid == 0:
            pool.allocate(17 * MIB)
            assert len(messages) == 2, messages
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert messages == []
    """)
