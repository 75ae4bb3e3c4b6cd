"""What ends under a pool: the parent's device after a fork, the interpreter, the device's context."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.cuda

SETUP = """
import ctypes, gc, logging, os, threading
import numpy as np
import tierpool
from tierpool import DeviceError

def make_pool(device="cuda:0", **settings):
    small = {"device": device, "heap_size_mb": 64, "num_heaps": 1, "warmup_sizes": [1], "log_exhaustion": False}
    return tierpool.MemoryPool({**small, **settings})

def refused(words, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except DeviceError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{call} was not refused")
"""


def check(script: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SETUP + textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def _the_fake(fake: object) -> None:
    """Skips on a GPU: what follows needs the driver without one, in processes of its own."""


def test_a_forked_child_is_served_nothing() -> None:
    check("""
        FORKED = "start processes that use"
        device, pinned, host = make_pool(), make_pool("pinned"), make_pool("host")
        for pool in (device, pinned, host):
            pool.allocate(1000).release()
        buffers = [pool.allocate(1000) for pool in (device, pinned)]
        more = [pool.allocate(1000) for pool in (device, pinned)]
        exported = device.allocate(1000).__dlpack__()
        scratch = [tierpool.BufferPool(pool) for pool in (device, pinned)]
        for arena in scratch:
            arena.alloc(1000).release()
        buffers[0].copy_from(bytes(1000))
        pid = os.fork()
        if pid == 0:
            for pool, buffer in zip((device, pinned), buffers, strict=True):
                refused(FORKED, pool.allocate, 1000)
                refused(FORKED, pool.allocate, 1 << 40)
                refused(FORKED, pool.try_allocate, 1000)
                refused(FORKED, pool.allocate, 1000, stream=2) if pool is device else None
                refused(FORKED, pool.allocate_batch, [8, 1000])
                refused(FORKED, pool.warmup, [1])
                refused(FORKED, buffer.copy_from, bytes(1000))
                refused(FORKED, buffer.copy_to, bytearray(1000))
                refused(FORKED, buffer.copy_from, bytes(1000), stream=0)
                assert pool.get_statistics().active_allocations >= 2
                buffer.release()
                assert pool.closed
                pool.trim()
                pool.close()
            for arena in scratch:
                refused(FORKED, arena.alloc, 1000)
                refused(FORKED, arena.alloc_batch, [1000, 8])
                arena.close()
            refused(FORKED, make_pool)
            more.clear()
            del exported, device, pinned, pool, buffer
            gc.collect()
            assert bytes(host.allocate(10)) is not None
            raise SystemExit(0)
        assert os.waitpid(pid, 0)[1] == 0
        found = bytearray(1000)
        buffers[0].copy_to(found)
        assert found == bytes(1000)
        device.allocate(1000), pinned.allocate(1000)
    """)


def test_a_forked_child_reads_a_copy_of_pinned_memory_and_the_device_what_the_parent_writes() -> None:
    check("""
        device, pinned = make_pool(), make_pool("pinned")
        target, staging = device.allocate(5 << 20), pinned.allocate(5 << 20)
        seen, found = np.asarray(staging), np.zeros(5 << 20, np.uint8)
        seen[:] = 7
        target.copy_from(staging)
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(to_parent, b"+" if (seen == 7).all() else b"-")
            os.read(from_parent, 1)
            seen[:] = 8
            os.write(to_parent, b"+" if (seen == 8).all() else b"-")
            os.read(from_parent, 1)  # lives for as long as the parent looks
            os._exit(0)
        assert os.read(from_child, 1) == b"+"
        seen[:] = 9  # where the page was shared until then, it is the parent that moves
        os.write(to_child, b"+")
        assert os.read(from_child, 1) == b"+"
        target.copy_from(staging)
        target.copy_to(found)
        assert (seen == 9).all() and (found == 9).all(), set(found.tolist())
        os.write(to_child, b"+")
        assert os.waitpid(pid, 0)[1] == 0
    """)


def test_the_interpreter_may_end_with_everything_alive() -> None:
    check("""
        device, pinned = make_pool(), make_pool("pinned")
        held = [device.allocate(1000), device.allocate(100 << 20), device.allocate(1000, stream=2), pinned.allocate(8)]
        held[0].copy_from(bytes(1000))
        held[0].record_stream(2)
        exported = held[1].__dlpack__(stream=2)
        view = np.asarray(held[3])
        batch = device.allocate_batch([8, 8])
        closed = make_pool()
        last = closed.allocate(8)
        logging.disable(logging.ERROR)  # the leak report
        closed.close()
        logging.disable(logging.NOTSET)
        closing = threading.Thread(target=lambda: held.append(device.allocate(1000, stream=2)))
        closing.start()
        closing.join()
        device.cycle = device  # found by the collector, late
        waits = threading.Event()

        def hold():
            mine = device.allocate(1000)
            waits.wait()
            del mine

        threading.Thread(target=hold, daemon=True).start()
    """)


@pytest.mark.usefixtures("_the_fake")
def test_the_interpreter_may_end_while_work_is_held() -> None:
    check("""
        device, pinned = make_pool(), make_pool("pinned")
        fake = ctypes.CDLL("libcuda.so.1")
        fake.fake_cuda_create_stream.restype = ctypes.c_uint64
        stream = fake.fake_cuda_create_stream(0)
        fake.fake_cuda_hold_work(True)
        target, staging = device.allocate(1000, stream=stream), pinned.allocate(1000)
        target.copy_from(staging, stream)
        target.copy_from(bytes(1000), stream)
        staging.release(stream)
        device.allocate(100 << 20).release(stream)
    """)


def test_after_a_reset_of_the_device_a_new_pool_works() -> None:
    check("""
        logging.getLogger("tierpool").addHandler(logging.NullHandler())  # what could not be given back is told
        logging.getLogger("tierpool").propagate = False
        ANEW = "build the pool anew"
        library = ctypes.CDLL("libcuda.so.1")
        reset = getattr(library, "fake_cuda_reset_device", None) or library.cuDevicePrimaryCtxReset_v2
        pool, pinned = make_pool(warmup_sizes=[]), make_pool("pinned")
        sent, found = np.arange(5 << 20, dtype=np.uint8), np.zeros(5 << 20, np.uint8)
        buffer, second = pool.allocate(5 << 20), pool.allocate(5 << 20)
        staging = pinned.allocate(5 << 20)
        buffer.copy_from(sent)  # staging memory is there, and used
        assert reset(0) == 0 or hasattr(library, "fake_cuda_restart")  # which answers nothing
        for stream in (None, 0, 2):
            refused(ANEW, buffer.copy_from, sent, stream)
            refused(ANEW, buffer.copy_to, found, stream)
            refused(ANEW, buffer.copy_from, second, stream)
            refused(ANEW, buffer.copy_from, staging, stream)
        refused(ANEW, pool.allocate, 1000, stream=2)
        try:
            pool.allocate(32 << 20)
        except tierpool.OutOfMemoryError as error:
            assert ANEW in str(error), error
        else:
            raise AssertionError("memory of a device that was reset")
        again = make_pool()
        buffer = again.allocate(5 << 20)
        buffer.copy_from(sent)
        buffer.copy_to(found, stream=2)
        assert np.array_equal(sent, found)
        fresh = make_pool("pinned").allocate(100)
        np.asarray(fresh)[:] = 7
        buffer.copy_from(fresh, stream=2)
        buffer.copy_to(found[:100], stream=2)
        assert (found[:100] == 7).all()
        del second, staging, pool, pinned
        gc.collect()
    """)


def test_where_no_device_is_visible_the_reason_and_the_remedy_are_named() -> None:
    check("""
        from tierpool import cuda
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the driver reads it when it starts
        getattr(ctypes.CDLL("libcuda.so.1"), "fake_cuda_set_device_count", lambda count: None)(0)
        assert (cuda.is_available(), cuda.device_count(), cuda.device_names()) == (False, 0, [])
        assert "sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES" in cuda.unavailable_reason()
        for device in ("cuda:0", "pinned", "pinned-write-combined"):
            refused("Device cuda:0 is not available: the NVIDIA driver sees no GPU", make_pool, device)
        make_pool("host").allocate(1000)
    """)


def test_write_combined_memory_serves_copies() -> None:
    check("""
        pool, device = make_pool("pinned-write-combined"), make_pool()
        assert (pool.device, pool.host_accessible) == ("pinned-write-combined", True)
        staging = pool.allocate(1 << 20)
        assert staging.heap_index == 0
        np.asarray(staging)[:] = 9
        target, found = device.allocate(1 << 20), np.zeros(1 << 20, np.uint8)
        target.copy_from(staging, stream=2)
        target.copy_to(found, stream=2)
        assert (found == 9).all()
        fallback = pool.allocate(100 << 20)
        assert fallback.heap_index is None
        np.asarray(fallback)[-1:] = 1
        fallback.release()
        staging.release(stream=2)
        pool.close()
    """)
