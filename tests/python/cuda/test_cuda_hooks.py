"""The compiled allocator hooks over memory of a GPU, called as PyTorch calls them; its command line there."""

from __future__ import annotations

import ctypes
import gzip
import json
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tierpool import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tierpool import MemoryPool

    MakePool = Callable[..., MemoryPool]

pytestmark = pytest.mark.cuda

PER_THREAD = 2
ORDINAL = 7  # no device: where the pool is installed is up to the caller
TRACE = "# {}\nop,id,bytes\na,7,1048576\na,8,2097152\nf,7,1048576\na,7,524288\nf,8,2097152\n"


@pytest.fixture
def hooks(make_device_pool: MakePool) -> Iterator[tuple[Any, MemoryPool]]:
    """The functions and the pool that serves them."""
    library = ctypes.CDLL(_core.__file__)
    library.tierpool_torch_allocate.restype = ctypes.c_void_p
    library.tierpool_torch_allocate.argtypes = (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)
    library.tierpool_torch_free.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)
    library.tierpool_torch_record_stream.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    pool = make_device_pool(magazines=False)
    _core.install_pool(ORDINAL, pool)
    yield library, pool
    _core.install_pool(ORDINAL, None)


def test_memory_of_a_stream_waits_for_another(hooks: tuple[Any, MemoryPool], stream: int) -> None:
    library, pool = hooks
    address = library.tierpool_torch_allocate(1 << 20, ORDINAL, stream)
    library.tierpool_torch_record_stream(address, None)
    library.tierpool_torch_free(address, 1 << 20, ORDINAL, stream)
    statistics = pool.get_statistics()
    assert statistics.active_allocations == 0
    assert statistics.stream_lanes == 2
    assert library.tierpool_torch_allocate(1 << 40, ORDINAL, stream) is None


def test_a_free_does_not_touch_the_stream_of_the_allocation(hooks: tuple[Any, MemoryPool], fake: ctypes.CDLL) -> None:
    """PyTorch passes the stream that the memory was allocated on, which may have been destroyed since."""
    library, pool = hooks
    gone = fake.fake_cuda_create_stream(0)
    first = library.tierpool_torch_allocate(1 << 20, ORDINAL, gone)
    second = library.tierpool_torch_allocate(1 << 20, ORDINAL, PER_THREAD)
    fake.fake_cuda_hold_work(True)
    fake.fake_cuda_destroy_stream(ctypes.c_uint64(gone))
    recorded = fake.fake_cuda_calls(b"cuEventRecord")
    library.tierpool_torch_free(first, 1 << 20, ORDINAL, gone)
    # A name that means another stream on each thread.
    free = partial(library.tierpool_torch_free, second, 1 << 20, ORDINAL, PER_THREAD)
    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    assert fake.fake_cuda_calls(b"cuEventRecord") == recorded
    statistics = pool.get_statistics()
    assert (statistics.active_allocations, statistics.pending_mb) == (0, 0)
    assert library.tierpool_torch_allocate(1 << 20, ORDINAL, PER_THREAD) == second


def test_a_failure_in_a_hook_is_told_by_the_next_call(
    hooks: tuple[Any, MemoryPool], log_lines: Callable[[], list[tuple[str, str]]]
) -> None:
    driver = ctypes.CDLL("libcuda.so.1")
    if not hasattr(driver, "fake_cuda_fail"):
        pytest.skip("NO DRIVER HERE THAT FAILS ON DEMAND")
    library, pool = hooks
    address = library.tierpool_torch_allocate(128 << 20, ORDINAL, None)  # more than the heap has
    assert address is not None
    driver.fake_cuda_fail(b"cuMemFree_v2", 999, ctypes.c_uint64(0), ctypes.c_uint64(1))
    library.tierpool_torch_free(address, 128 << 20, ORDINAL, None)
    assert log_lines() == []
    pool.get_statistics()
    assert [level for level, _ in log_lines()] == ["ERROR"]
    driver.fake_cuda_fail(b"cuMemFree_v2", 0, ctypes.c_uint64(0), ctypes.c_uint64(0))


@pytest.mark.parametrize("device", ["cuda:0", "pinned"])
def test_replay_from_the_command_line(tmp_path: Path, device: str) -> None:
    trace = tmp_path / "small.csv.gz"
    trace.write_bytes(gzip.compress(TRACE.encode()))
    result = run_json("replay", str(trace), "--device", device, "--heap-size-mb", "4", "--num-heaps", "2")
    assert (result["events"], result["hit_rate"], result["fallback_allocations"]) == (5, 1.0, 0)


@pytest.mark.parametrize("device", ["cuda:0", "pinned"])
def test_demo_from_the_command_line(device: str) -> None:
    if device == "pinned" and hasattr(ctypes.CDLL("libcuda.so.1"), "fake_cuda_fail"):
        pytest.skip("PINNED MEMORY OF THIS DRIVER is not enough for a demo")
    result = run_json("demo", "--device", device)
    assert result["statistics"]["total_allocations"] == result["statistics"]["total_deallocations"] == 47152


def run_json(*arguments: str) -> Any:
    command = [sys.executable, "-m", "tierpool", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)
