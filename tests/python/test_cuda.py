"""What the package says about CUDA, with and without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tierpool import DeviceError, MemoryPool, cuda


def test_availability_and_reason_agree() -> None:
    reason = cuda.unavailable_reason()
    assert cuda.is_available() == (reason is None)
    assert reason is None or len(reason) > 10


def test_counts_and_names_agree() -> None:
    assert len(cuda.device_names()) == cuda.device_count()
    assert cuda.is_available() == (cuda.device_count() > 0)
    assert cuda.is_available() == (cuda.driver_version() is not None)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "pinned", "pinned-write-combined"])
def test_a_pool_without_cuda_says_why(device: str) -> None:
    if cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match=r"^Device cuda:0 is not available: ") as caught:
        MemoryPool(device=device, heap_size_mb=2, num_heaps=1, warmup_sizes=[])
    assert str(cuda.unavailable_reason()) in str(caught.value)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        MemoryPool(device="cuda:99", heap_size_mb=2, num_heaps=1, warmup_sizes=[])


def test_import_starts_no_driver() -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("no list of mappings on this system")
    script = "import tierpool, tierpool.cuda; print('libcuda' in open('/proc/self/maps').read())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


@pytest.mark.skipif(not cuda.is_available(), reason="NO CUDA HERE: pools on a GPU are not tested")
def test_pools_on_a_gpu_serve() -> None:
    for device in ("cuda:0", "pinned"):
        with MemoryPool(device=device, heap_size_mb=64, num_heaps=1, warmup_sizes=[16]) as pool:
            buffer = pool.allocate(1 << 20)
            assert buffer.heap_index == 0
            del buffer
            assert pool.get_statistics().total_allocations == 1


@pytest.mark.skipif(not cuda.is_available(), reason="NO CUDA HERE: forks with a running driver are not tested")
def test_a_forked_child_is_refused() -> None:
    script = """
import os, tierpool
from tierpool import cuda
assert cuda.is_available()
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=8, num_heaps=1, warmup_sizes=[])
kept = pool.allocate(1 << 20)
child = os.fork()
if child == 0:
    assert not cuda.is_available() and "forked" in str(cuda.unavailable_reason())
    try:
        tierpool.MemoryPool(device="cuda:0", heap_size_mb=8, num_heaps=1, warmup_sizes=[])
    except tierpool.DeviceError as error:
        os._exit(0 if "forked" in str(error) else 2)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
