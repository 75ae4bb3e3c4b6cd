"""How a process ends while a library still has memory of a pool on a GPU: with its own exit code and in silence."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

# Of PyTorch at its import, where a package of that name is installed.
KNOWN_WARNINGS = ("ignore:The pynvml package is deprecated:FutureWarning",)

SETUP = """
import builtins, gc
import tierpool

def make_pool(device="cuda:0", **settings):
    small = {"device": device, "heap_size_mb": 256, "num_heaps": 1, "warmup_sizes": [], "magazines": False}
    return tierpool.MemoryPool({**small, **settings})

def keep(held):
    builtins.held = held  # outlives all modules
    cycle = [held]
    cycle.append(cycle)

"""
# The product takes a workspace that is freed after Python has ended.
TORCH = """
import torch
def make_tensors():
    x = torch.ones(512, 512, device="cuda", requires_grad=True)
    (x @ x).sum().backward()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        y = torch.full((1 << 20,), 3.0, device="cuda")
    y.record_stream(torch.cuda.current_stream())
    torch.cuda._sleep(500_000_000)
    return [x, x.grad, y, y + 1]

"""
ENDS = {
    "torch-installed": """
from tierpool.integrations.torch import install
pool = make_pool()
install(pool)
tensors = make_tensors()
keep(make_tensors())
assert pool.get_statistics().active_allocations >= 8
""",
    "torch-installed-pool-dropped": """
from tierpool.integrations.torch import install
install(make_pool())
gc.collect()
tensors = make_tensors()
keep(make_tensors())
""",
    "torch-used": """
from tierpool.integrations.torch import use
pool = make_pool()
with use(pool):
    tensors = make_tensors()
    keep(make_tensors())
assert pool.get_statistics().active_allocations >= 1
""",
    "torch-used-by-two-pools": """
from tierpool.integrations.torch import forget, use
for _ in range(2):
    pool = make_pool()
    with use(pool):
        keep(make_tensors())
    forget(pool)  # the tensors outlive it
    del pool
""",
    "torch-exits-in-the-block": """
from tierpool.integrations.torch import use
with use(make_pool()):
    tensors = make_tensors()
    keep(make_tensors())
    raise SystemExit(0)
""",
    "torch-pinned": """
from tierpool.integrations.torch import pinned_empty, release
pool = make_pool("pinned")
on_gpu = torch.zeros(1 << 20, device="cuda")
tensors = [pinned_empty(1 << 20, torch.float32, pool) for _ in range(2)]
torch.cuda._sleep(500_000_000)
for tensor in tensors:
    on_gpu.copy_(tensor, non_blocking=True)
release(tensors[0])
keep(tensors[1])
del tensors[1]
""",
    "cupy-installed": """
import cupy
from tierpool.integrations.cupy import install
pool = make_pool()
install(pool)
array = cupy.arange(1 << 16, dtype=cupy.float32)
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    keep([array * 2, cupy.ones(1 << 16).sum()])
assert pool.get_statistics().active_allocations >= 3
""",
    "cupy-used": """
import cupy
from tierpool.integrations.cupy import use
with use(make_pool()):
    array = cupy.arange(1 << 16, dtype=cupy.float32)
    keep([array * 2])
    raise SystemExit(0)
""",
    "numba-installed": """
import numpy
from numba import cuda
from tierpool.integrations.numba import install
pool = make_pool()
install(pool)
array = cuda.to_device(numpy.arange(1000, dtype=numpy.float32))
keep([cuda.device_array(1 << 16), cuda.to_device(numpy.ones(8))])
assert pool.get_statistics().active_allocations == 3
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_with_arrays_still_alive(end: str) -> None:
    library = end.partition("-")[0]
    pytest.importorskip("numba.cuda" if library == "numba" else library, reason=f"needs 'tierpool[{library}]'")
    script = SETUP + (TORCH if library == "torch" else "") + ENDS[end]
    warnings = [argument for known in KNOWN_WARNINGS for argument in ("-W", known)]
    command = [sys.executable, *warnings, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
