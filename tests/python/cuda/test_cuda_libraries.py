"""Libraries on a GPU with their memory in a pool, as their users use them.

What a library chooses once a process is chosen in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tierpool import MemoryPool

    Run = Callable[[str], str]

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]


def test_cupy(device_pool: MemoryPool) -> None:
    cupy = pytest.importorskip("cupy", reason="needs CuPy: pip install 'tierpool[cupy]'")
    from tierpool.integrations.cupy import use

    with use(device_pool):
        array = cupy.arange(1 << 16, dtype=cupy.float32)
        with cupy.cuda.Stream(non_blocking=True) as stream:
            other = cupy.full(1 << 16, 2, cupy.float32)
            stream.synchronize()
        assert device_pool.get_statistics().active_allocations >= 2
        assert float((array * other).sum()) == float(2 * np.arange(1 << 16, dtype=np.float64).sum())
    buffer = device_pool.allocate(1024)
    cupy.from_dlpack(buffer)[:] = 3
    assert int(cupy.asarray(buffer).sum()) == 3 * 1024
    del array, other
    cupy.cuda.Device().synchronize()


def test_cupy_installed(run: Run) -> None:
    pytest.importorskip("cupy", reason="needs CuPy: pip install 'tierpool[cupy]'")
    run(
        """
import cupy, tierpool
from tierpool.integrations.cupy import install
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=64, num_heaps=1, warmup_sizes=[], on_exhaustion="raise")
install(pool)
array = cupy.arange(1 << 16, dtype=cupy.float64)
assert pool.get_statistics().active_allocations >= 1
assert float(array.sum()) == sum(range(1 << 16))
try:
    cupy.zeros(1 << 28)
except MemoryError as error:
    assert str(1 << 31) in str(error) and "on_exhaustion='fallback'" in str(error), error
else:
    raise SystemExit("more memory than the pool has")
del array
cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)
assert cupy.ones(8).sum() == 8
if cupy.cuda.runtime.getDeviceCount() > 1:
    install(pool)
    with cupy.cuda.Device(1):
        try:
            cupy.zeros(8)
        except RuntimeError as error:
            assert "cuda:1" in str(error), error
        else:
            raise SystemExit("memory of the wrong GPU")
"""
    )


def test_numba_loads_the_plugin_by_itself(run: Run) -> None:
    pytest.importorskip("numba.cuda", reason="needs Numba's CUDA target: pip install 'tierpool[numba]'")
    run(
        """
import os
os.environ["NUMBA_CUDA_MEMORY_MANAGER"] = "tierpool.integrations.numba"
import numpy
from numba import cuda
from tierpool.integrations import numba as plugin
array = cuda.to_device(numpy.arange(1000, dtype=numpy.float32))
assert plugin._own_pool(0).get_statistics().active_allocations == 1
assert array.copy_to_host().sum() == 499500
"""
    )


def test_numba(run: Run) -> None:
    pytest.importorskip("numba.cuda", reason="needs Numba's CUDA target: pip install 'tierpool[numba]'")
    run(
        """
import numpy, tierpool
from numba import cuda
from tierpool.integrations.numba import install
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=64, num_heaps=1, warmup_sizes=[])
install(pool)
array = cuda.to_device(numpy.arange(1000, dtype=numpy.float32))
assert pool.get_statistics().active_allocations == 1
assert array.copy_to_host().sum() == 499500
assert cuda.current_context().get_memory_info().total == 64 << 20
del array
cuda.current_context().deallocations.clear()
assert pool.get_statistics().active_allocations == 0
"""
    )


def test_triton(device_pool: MemoryPool) -> None:
    pytest.importorskip("triton", reason="needs Triton: pip install 'tierpool[triton]'")
    from tierpool.integrations.triton import allocator, install

    install(device_pool)
    scratch = allocator(device_pool)(1000, 512, None)
    assert scratch.data_ptr() % 512 == 0
    assert device_pool.get_statistics().active_allocations == 1
    del scratch
    assert device_pool.get_statistics().active_allocations == 0


def test_triton_kernel_scratch(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs Triton: pip install 'tierpool[triton]'")
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    script = tmp_path / "scratch.py"  # Triton reads a kernel's source
    script.write_text(
        """
import torch, triton, triton.language as tl, tierpool
from tierpool.integrations.triton import allocator

@triton.jit
def double(data, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    # A descriptor made on the device is what takes scratch memory.
    row, column = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    whole = tl.make_tensor_descriptor(data, shape=[rows, columns], strides=[columns, 1], block_shape=[ROWS, COLUMNS])
    whole.store([row, column], whole.load([row, column]) * 2)

pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=64, num_heaps=1, warmup_sizes=[])
triton.set_allocator(allocator(pool))
x = torch.arange(256 * 256, dtype=torch.float32, device="cuda").view(256, 256)
expected = x * 2
double[(8, 8)](x, 256, 256, ROWS=32, COLUMNS=32)
assert torch.equal(x, expected)
statistics = pool.get_statistics()
print("scratch", statistics.total_allocations, statistics.active_allocations)
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, allocations, live = done.stdout.split()
    if int(allocations) == 0:
        pytest.skip("THIS TRITON TAKES NO SCRATCH MEMORY FOR DESCRIPTORS")
    assert int(live) == 0


def test_jax(device_pool: MemoryPool) -> None:
    pytest.importorskip("jax", reason="needs JAX: pip install 'tierpool[jax]'")
    from tierpool.integrations.jax import array

    buffer = device_pool.allocate(4096)
    buffer.copy_from(np.arange(1024, dtype=np.float32))
    assert float(array(buffer, "float32", (4, 256)).sum()) == 1023 * 512
    assert array(buffer).shape == (4096,)
    with pytest.raises(ValueError, match="do not fit"):
        array(buffer, "float32", 1025)
