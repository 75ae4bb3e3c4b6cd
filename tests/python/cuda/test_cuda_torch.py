"""PyTorch on a GPU with its memory in a pool: imports, pinned staging, and `install`.

Its allocator is chosen once a process: that is tested in processes of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import MemoryPool

    Run = Callable[[str], str]
    MakePool = Callable[..., MemoryPool]

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]


def test_torch_imports_a_buffer(device_pool: MemoryPool) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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


def test_torch_pinned_staging(make_device_pool: MakePool, busy: Any) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    from tierpool.integrations.torch import pinned_empty, release

    pool = make_device_pool(device="pinned", heap_size_mb=1, on_exhaustion="raise")  # for one batch
    stream = torch.cuda.Stream()
    on_gpu = torch.zeros(256, 1024, device="cuda")  # before, PyTorch takes no memory for pinned
    batch = pinned_empty((256, 1024), torch.float32, pool)
    assert batch.is_pinned()
    batch.fill_(2)
    address = batch.data_ptr()
    torch.cuda.synchronize()
    busy.occupy(stream.cuda_stream)
    with torch.cuda.stream(stream):
        on_gpu.copy_(batch, non_blocking=True)
    release(batch, after=stream)
    del batch
    pending_mb, served_at_once = pool.get_statistics().pending_mb, pool.try_allocate(1 << 20)
    assert not busy.is_over(stream.cuda_stream)
    assert (pending_mb, served_at_once) == (1, None)
    again = pinned_empty((256, 1024), torch.float32, pool).fill_(9)  # waits for the copy
    assert again.data_ptr() == address
    stream.synchronize()
    assert on_gpu.sum().item() == 2 * 256 * 1024
    with pytest.raises(ValueError, match="that pinned_empty"):
        release(on_gpu)


def test_torch_stages_batch_after_batch(make_device_pool: MakePool, busy: Any) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    from tierpool.integrations.torch import pinned_empty, release

    pool = make_device_pool(device="pinned", heap_size_mb=2, on_exhaustion="raise")  # for two batches
    stream = torch.cuda.Stream()
    on_gpu = torch.zeros(12, 256, 1024, device="cuda")
    samples = torch.arange(12 * 256 * 1024, dtype=torch.float32).view(12, 256, 1024)
    torch.cuda.synchronize()
    for index in range(len(samples)):
        if index % 4 == 0:
            busy.occupy(stream.cuda_stream)  # the copies lag behind what fills the batches
        batch = pinned_empty((256, 1024), torch.float32, pool)
        batch.copy_(samples[index])
        with torch.cuda.stream(stream):
            on_gpu[index].copy_(batch, non_blocking=True)
        release(batch, after=stream)
    del batch
    stream.synchronize()
    assert torch.equal(on_gpu.cpu(), samples)
    statistics = pool.get_statistics()
    assert (statistics.total_allocations, statistics.fallback_allocations) == (12, 0)


def test_torch_pageable_staging(pool: MemoryPool) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    printed = run(
        INSTALL.format(settings="")
        + """
x = torch.ones(1000, 1000, device="cuda", requires_grad=True)
(x @ x).sum().backward()
assert x.grad.sum().item() == 2 * 1000**3, x.grad.sum().item()
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    y = torch.full((1 << 20,), 3.0, device="cuda")
torch.cuda.current_stream().wait_stream(side)
assert y.sum().item() == 3 << 20
assert pool.memory_stats()["allocated_bytes.all.current"] >= 12_000_000
print(pool.get_statistics().total_allocations > 5)
"""
    )
    assert printed.split() == ["True"]


def test_torch_installed_keeps_memory_for_a_recorded_stream(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    run(
        INSTALL.format(settings="")
        + """
default, side = torch.cuda.current_stream(), torch.cuda.Stream()
def ones_of_side(value):
    with torch.cuda.stream(side):
        return torch.full((1 << 20,), value, device="cuda")
ones_of_side(3.0).sum().item()  # every kernel is there then: to load one waits for the device
for recorded in (False, True):
    y = ones_of_side(3.0)
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # about a second
    total = y.sum()
    address = y.data_ptr()
    if recorded:
        y.record_stream(default)
    del y
    pending_mb = pool.get_statistics().pending_mb
    z = ones_of_side(5.0)
    assert not default.query(), "the stream was not busy for long enough"
    assert pending_mb == (4 if recorded else 0), (recorded, pending_mb)
    assert (z.data_ptr() != address) == recorded, "without the record it is reused at once"
assert total.item() == 3 << 20
"""
    )


def test_torch_installed_says_when_memory_is_out(run: Run) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    printed = run(
        INSTALL.format(settings="on_exhaustion='raise'")
        + """
kept = torch.ones(600 << 20, dtype=torch.uint8, device="cuda")
for nbytes in (2 << 30, 600 << 20):
    try:
        torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    except RuntimeError as error:
        for named in (str(nbytes), "free", "largest free block", "fragmentation"):
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
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
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
