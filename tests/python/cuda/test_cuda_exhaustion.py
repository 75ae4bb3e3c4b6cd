"""A GPU that a pool fills to its end: nothing else may run there meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "python"


@pytest.mark.parametrize("on_exhaustion", ["raise", "fallback"])
def test_heaps_larger_than_the_gpu_end_and_serve_again(run: Callable[[str], str], on_exhaustion: str) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("TESTS BESIDE THIS ONE WOULD RUN OUT OF MEMORY: run it alone, without -n")
    run(
        f"""
import ctypes, re, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import numpy as np, tierpool
from cuda_driver import Driver
LARGE = 1 << 30
driver = Driver()

def memory():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value

free_bytes, total_bytes = memory()
pool = tierpool.MemoryPool(
    device="cuda:0", heap_size_mb=(total_bytes >> 20) * 5 // 8, num_heaps=2, warmup_sizes=[],
    log_exhaustion=False, on_exhaustion={on_exhaustion!r},
)
assert pool.memory_stats()["reserved_bytes.all.current"] == 0, "addresses take no memory"
held, said = [], ""
while not said:
    assert len(held) * LARGE < total_bytes, "more memory than the GPU has"
    try:
        held.append(pool.allocate(LARGE))
    except tierpool.OutOfMemoryError as error:
        said = str(error)
        assert (error.requested_bytes, error.free_bytes >= LARGE) == (LARGE, True), said
assert len(held) * LARGE > free_bytes - 4 * LARGE, (len(held), free_bytes)
wanted = r"requested 1073741824 .*, largest free block .*, free .*, fragmentation .*%; device 'cuda:0' has .* free "
assert re.search(wanted, said), said
assert "release buffers" in said, said
assert pool.try_allocate(LARGE) is None
assert pool.memory_stats()["num_ooms"] == 2
held.clear()
again, sent, found = pool.allocate(LARGE), np.arange(1 << 20, dtype=np.int32), np.zeros(1 << 20, np.int32)
again.copy_from(sent)
again.copy_to(found)
assert (sent == found).all()
again.release()
pool.trim()
assert pool.memory_stats()["reserved_bytes.all.current"] == 0
assert memory()[0] > free_bytes - LARGE, "what the pool does not use is the GPU's again"
"""
    )
