"""PyTorch on a GPU with its memory in a pool.

Its allocator is chosen once a process: that is tested in processes of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import MemoryPool

    Run = Callable[[str], str]

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]


def test_torch_imports_a_buffer(device_pool: MemoryPool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    buffer = device_pool.allocate(4096)
    tensor = torch.from_dlpack(buffer).view(torch.float32)
    tensor.fill_(1.5)
    torch.cuda.synchronize()
    found = np.zeros(1024, np.float32)
    buffer.copy_to(found)
    assert found.tolist() == [1.5] * 1024
    assert torch.as_tensor(buffer, device="cuda").data_ptr() == buffer.address
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.from_dlpack(buffer).add_(1)


def test_torch_pinned_staging(pinned_pool: MemoryPool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from tierpool.integrations.torch import pinned_empty, release

    stream = torch.cuda.Stream()
    torch.ones(1, device="cuda")  # before, PyTorch takes no memory for pinned
    batch = pinned_empty((64, 1024), torch.float32, pinned_pool)
    assert batch.is_pinned()
    batch.fill_(2)
    with torch.cuda.stream(stream):
        on_gpu = batch.to("cuda", non_blocking=True)
    release(batch, after=stream)
    del batch
    stream.synchronize()
    assert on_gpu.sum().item() == 2 * 64 * 1024
    with pytest.raises(ValueError, match="that pinned_empty"):
        release(on_gpu)


def test_torch_pageable_staging(pool: MemoryPool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from tierpool.integrations.torch import pinned_empty, release

    batch = pinned_empty((64, 1024), torch.float32, pool).fill_(2)
    with torch.cuda.stream(torch.cuda.Stream()):
        on_gpu = batch.to("cuda", non_blocking=True)
        release(batch)  # the stream is none of the host's, and the copy is over
    del batch
    assert pool.get_statistics().active_allocations == 0
    torch.cuda.synchronize()
    assert on_gpu.sum().item() == 2 * 64 * 1024


INSTALL = """
import torch, tierpool
from tierpool.integrations.torch import install
pool = tierpool.MemoryPool(
    device="cuda:0", heap_size_mb=1024, num_heaps=1, warmup_sizes=[], magazines=False, {settings}
)
install(pool)
"""


def test_torch_installed(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    printed = run(
        INSTALL.format(settings="")
        + """
x = torch.ones(1000, 1000, device="cuda", requires_grad=True)
(x @ x).sum().backward()
assert x.grad.sum().item() == 2 * 1000**3, x.grad.sum().item()
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    y = torch.full((1 << 20,), 3.0, device="cuda")
y.record_stream(torch.cuda.current_stream())
torch.cuda.current_stream().wait_stream(side)
assert y.sum().item() == 3 << 20
assert pool.memory_stats()["allocated_bytes.all.current"] >= 12_000_000
print(pool.get_statistics().total_allocations > 5)
"""
    )
    assert printed.split() == ["True"]


def test_torch_installed_says_when_memory_is_out(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    printed = run(
        INSTALL.format(settings="on_exhaustion='raise'")
        + """
kept = torch.ones(600 << 20, dtype=torch.uint8, device="cuda")
for nbytes in (2 << 30, 600 << 20):
    try:
        torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    except RuntimeError as error:
        for named in (str(nbytes), "free", "largest"):
            assert named in str(error), (named, str(error))
    else:
        raise SystemExit("more memory than the pool has")
assert pool.memory_stats()["num_ooms"] == 2
del kept
print(torch.ones(900 << 20, dtype=torch.uint8, device="cuda")[-1].item())
print(torch.ones(8, device="cuda").sum().item())
"""
    )
    assert printed.split() == ["1", "8.0"]


def test_torch_installed_empties_the_pool_and_refuses_a_fraction(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(
        INSTALL.format(settings="")
        + """
from tierpool.integrations.torch import SETTERS, UNSET, _in_place
setters = {name for name in dir(_in_place[0].allocator()) if name.startswith("set_")}
assert setters <= set(SETTERS) | UNSET, setters
x = torch.ones(64 << 20, device="cuda")
del x
assert pool.get_statistics().committed_mb >= 256
torch.cuda.empty_cache()
assert pool.get_statistics().committed_mb < 256
try:
    torch.cuda.set_per_process_memory_fraction(0.5)
except RuntimeError as error:
    assert "max_bytes" in str(error), error
else:
    raise SystemExit("a fraction was taken and is not kept")
assert torch.ones(8, device="cuda").sum().item() == 8
"""
    )


def test_torch_installed_captures_what_allocates_nothing_and_refuses_the_rest(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(
        INSTALL.format(settings="")
        + """
x, y = torch.ones(1 << 20, device="cuda"), torch.empty(1 << 20, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    torch.add(x, x, out=y)
x.fill_(4)
graph.replay()
assert y.sum().item() == 8 << 20
try:
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        x + x
except RuntimeError as error:
    assert "captured into a graph" in str(error), error
else:
    raise SystemExit("memory for a graph")
assert (x + x).sum().item() == 8 << 20
"""
    )


def test_torch_installed_on_two_gpus(run: Run) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if torch.cuda.device_count() < 2:
        pytest.skip("ONE GPU HERE: a second install() is tested over a stand-in only")
    run(
        INSTALL.format(settings="")
        + """
other = tierpool.MemoryPool(device="cuda:1", heap_size_mb=256, num_heaps=1, warmup_sizes=[], magazines=False)
install(other)
x, y = torch.ones(1 << 20, device="cuda:0"), torch.full((1 << 20,), 2.0, device="cuda:1")
assert pool.get_statistics().active_allocations >= 1 and other.get_statistics().active_allocations >= 1
assert (x + y.to("cuda:0")).sum().item() == 3 << 20
"""
    )


def test_torch_installed_again_on_the_same_gpu(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(
        INSTALL.format(settings="")
        + """
x = torch.ones(1 << 20, device="cuda")
other = tierpool.MemoryPool(device="cuda:0", heap_size_mb=256, num_heaps=1, warmup_sizes=[], magazines=False)
install(other)
y = torch.ones(1 << 20, device="cuda")
assert other.get_statistics().active_allocations == 1
assert (x + y).sum().item() == 2 << 20
del x, y
torch.cuda.synchronize()
assert pool.get_statistics().active_allocations == other.get_statistics().active_allocations == 0
"""
    )


def test_torch_installed_too_late(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(
        """
import torch, tierpool
from tierpool.integrations.torch import install
torch.ones(1, device="cuda")
try:
    install(tierpool.MemoryPool(device="cuda:0", heap_size_mb=64, num_heaps=1, warmup_sizes=[]))
except RuntimeError as error:
    assert "before the first CUDA tensor" in str(error), error
else:
    raise SystemExit("no error")
"""
    )


def test_torch_uses_a_pool_for_segments(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
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


def test_torch_gets_back_what_it_has_cached_in_a_pool(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    printed = run(
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
    tensors = fill(1, 200 << 20)
except torch.OutOfMemoryError:
    print("no retry in a MemPool")  # PyTorch's issues 159674 and 175015
    forget(pool)
    tensors = fill(1, 200 << 20)
else:
    print("retries:", torch.cuda.memory_stats()["num_alloc_retries"])
assert tensors[0].sum().item() == 200 << 20
"""
    )
    assert printed.startswith("no retry") or int(printed.partition(": ")[2]) >= 1


def test_torch_refuses_expandable_segments(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
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


def test_torch_graphs_in_a_pool(run: Run) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(
        """
import torch, tierpool
from tierpool.integrations.torch import use
pool = tierpool.MemoryPool(device="cuda:0", heap_size_mb=256, num_heaps=1, warmup_sizes=[])
with use(pool):
    x = torch.ones(1 << 20, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 2 + 1
x.fill_(4)
graph.replay()
assert y.sum().item() == 9 << 20
"""
    )
