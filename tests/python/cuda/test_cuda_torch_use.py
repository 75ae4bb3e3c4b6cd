"""PyTorch's caching allocator over a pool: `use`, in processes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[str], str]

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]


def test_torch_uses_a_pool_for_segments(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    run(
        """
import torch, tierpool
from tierpool.integrations.torch import forget, use
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=256, num_heaps=1, warmup_sizes=[], on_exhaustion="raise")
with use(pool):
    x = torch.ones(8 << 20, device="cuda")
assert pool.get_statistics().used_capacity_mb >= 32
outside = torch.ones(64 << 20, device="cuda")
assert pool.get_statistics().used_capacity_mb < 256
with use(pool):
    try:
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        pass
    else:
        raise SystemExit("more memory than the pool has")
assert x.sum().item() == 8 << 20
assert torch.cuda.memory_stats()["allocated_bytes.all.current"] >= 32 << 20
del x
forget(pool)
assert pool.get_statistics().used_capacity_mb == 0, pool.get_statistics()
"""
    )


def test_torch_gets_what_it_has_cached_in_a_pool_by_forgetting_it_only(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    run(
        """
import torch, tierpool
from tierpool.integrations.torch import forget, use
pool = tierpool.MemoryPool(
    device="cuda:0", heap_size_mb=256, num_heaps=1, warmup_sizes=[], on_exhaustion="raise", magazines=False
)
def fill(count, nbytes):
    with use(pool):
        return [torch.ones(nbytes, dtype=torch.uint8, device="cuda") for _ in range(count)]
tensors = fill(4, 60 << 20)
del tensors
assert pool.get_statistics().used_capacity_mb >= 240, "PyTorch keeps what it has cached"
try:
    fill(1, 200 << 20)
except torch.OutOfMemoryError:
    assert pool.get_statistics().used_capacity_mb >= 240, "PyTorch freed what it has cached, and raised"
else:
    # Its issue 159674. Whether a version tries again or not: what it frees before is of no live MemPool.
    raise SystemExit(f"PyTorch {torch.__version__} frees what a live MemPool has cached: CUDA.md says that none does")
forget(pool)
assert pool.get_statistics().used_capacity_mb == 0, pool.get_statistics()
assert fill(1, 200 << 20)[0].sum().item() == 200 << 20
"""
    )


def test_torch_refuses_expandable_segments(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    run(
        """
import os
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
import torch, tierpool
from tierpool.integrations.torch import use
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=64, num_heaps=1, warmup_sizes=[])
try:
    use(pool).__enter__()
except RuntimeError as error:
    assert "expandable_segments:False" in str(error), error
else:
    raise SystemExit("no error")
assert torch.ones(8, device="cuda").sum().item() == 8
"""
    )


def test_torch_graphs_have_memory_of_their_own(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    run(
        """
import torch, tierpool
from tierpool.integrations.torch import _mem_pools, use
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=256, num_heaps=1, warmup_sizes=[])
def home_of(tensor):
    address = tensor.data_ptr()
    for segment in torch.cuda.memory_snapshot():
        if segment["address"] <= address < segment["address"] + segment["total_size"]:
            return tuple(segment["segment_pool_id"])
with use(pool):
    x = torch.ones(1 << 20, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 2 + 1
(_, mem_pool), = _mem_pools.values()
assert home_of(x) == tuple(mem_pool.id), (home_of(x), mem_pool.id)
assert home_of(y) == tuple(graph.pool()) != tuple(mem_pool.id), (home_of(y), graph.pool(), mem_pool.id)
x.fill_(4)
graph.replay()
assert y.sum().item() == 9 << 20
"""
    )


def test_torch_says_why_a_pool_in_use_has_nothing_for_a_graph(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    run(
        """
import torch, tierpool
from tierpool.integrations.torch import use
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=256, num_heaps=1, warmup_sizes=[])
with use(pool):
    x = torch.ones(1 << 20, device="cuda")
raised = None
try:
    with torch.cuda.graph(torch.cuda.CUDAGraph()), use(pool):
        torch.empty(1 << 20, device="cuda")
except RuntimeError as error:
    raised = error
while raised is not None and not isinstance(raised, torch.OutOfMemoryError):
    raised = raised.__context__  # the end of the capture may have an error of its own
assert raised is not None, "memory for a graph"
assert "captured into a graph" in str(raised), raised
torch.cuda.synchronize()
assert x.sum().item() == 1 << 20
"""
    )
