"""What the integrations tell PyTorch and CuPy, with stand-ins for both, and the compiled hooks, called as they do."""

from __future__ import annotations

import ctypes
import gc
import sys
import warnings
import weakref
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tierpool import _core
from tierpool.integrations import cupy as cupy_integration
from tierpool.integrations import device_index as device_index_module
from tierpool.integrations import torch as integration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tierpool

    MakePool = Callable[..., tierpool.MemoryPool]

GPUS = 4

# All that PyTorch 2.3 to 2.13 has.
PYTORCHS_SETTERS = (
    *("set_init_fn", "set_reset_fn", "set_memory_fraction_fn", "set_base_alloc_fn", "set_record_stream_fn"),
    *("set_begin_allocate_to_pool", "set_end_allocate_to_pool_fn", "set_release_pool"),
)


class Wrapper:
    """PyTorch's wrapper of a pluggable allocator, which owns it."""

    def __init__(self, setters: dict[str, Any]) -> None:
        self._allocator = SimpleNamespace(**setters)

    def allocator(self) -> SimpleNamespace:
        return self._allocator


class StandIn:
    """PyTorch, as far as `install` and `use` know it: it changes its allocator once and not after its first use."""

    class OutOfMemoryError(RuntimeError):
        """PyTorch's."""

    def __init__(self) -> None:
        self.set: dict[str, int] = {}
        self.changes = 0
        self.is_used = False
        self.is_capturing = False
        self.question_fails_with: BaseException | None = None
        self.entered: list[Any] = []
        self.wrappers: list[weakref.ref[Wrapper]] = []  # not kept alive, as PyTorch does not
        self.cuda = SimpleNamespace(
            memory=SimpleNamespace(CUDAPluggableAllocator=self._wrap, change_current_allocator=self._change),
            MemPool=lambda _allocator: object(),
            use_mem_pool=self._use_mem_pool,
            empty_cache=lambda: None,
            is_current_stream_capturing=self._is_current_stream_capturing,
        )

    def _wrap(self, _path: str, _allocate: str, _free: str) -> Any:
        setters = {name: lambda address, name=name: self.set.update({name: address}) for name in PYTORCHS_SETTERS}
        wrapper = Wrapper(setters)
        self.wrappers.append(weakref.ref(wrapper))
        return wrapper

    def _change(self, _wrapper: Any) -> None:
        if self.changes or self.is_used:
            raise RuntimeError("Can't swap an already initialized allocator")
        self.changes += 1

    @contextmanager
    def _use_mem_pool(self, pool: Any, device: int) -> Iterator[None]:
        self.entered.append(pool)
        try:
            yield
        finally:
            self.entered.remove(pool)

    def _is_current_stream_capturing(self) -> bool:
        if self.question_fails_with is not None:
            raise self.question_fails_with
        return self.is_capturing


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    for name, empty in {"_in_place": [], "_serving": {}, "_mem_pools": {}, "_behind_mem_pools": []}.items():
        monkeypatch.setattr(integration, name, empty)
    yield stand_in
    for index in range(GPUS):
        _core.install_pool(index, None)


@pytest.fixture
def on_gpu(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tierpool.MemoryPool]:
    """Build a pool of the host that passes for one of a GPU."""
    places: dict[int, int] = {}

    def make(index: int, **settings: object) -> tierpool.MemoryPool:
        pool = make_pool(**{"magazines": False, **settings})
        places[id(pool)] = index
        return pool

    for module in (integration, device_index_module):
        monkeypatch.setattr(module, "device_index", lambda pool: places[id(pool)])
    return make


def hook(name: str, result: Any, *arguments: Any) -> Any:
    """One of the compiled functions, called as PyTorch does: without the GIL."""
    function = getattr(ctypes.CDLL(_core.__file__), f"tierpool_torch_{name}")
    function.restype, function.argtypes = result, arguments
    return function


def allocate(nbytes: int, index: int) -> int:
    arguments = (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)
    address: int | None = hook("allocate", ctypes.c_void_p, *arguments)(nbytes, index, None)
    return address or 0


def free(address: int) -> None:
    hook("free", None, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)(address, 0, 0, None)


class TestInstall:
    def test_every_setter_is_used_or_left_out_on_purpose(
        self, torch: StandIn, on_gpu: Callable[..., tierpool.MemoryPool]
    ) -> None:
        assert not set(integration.SETTERS) & integration.UNSET
        assert set(integration.SETTERS) | integration.UNSET == set(PYTORCHS_SETTERS)
        integration.install(on_gpu(0))
        assert torch.set == {
            setter: _core.torch_allocator_addresses[function] for setter, function in integration.SETTERS.items()
        }

    def test_each_gpu_has_its_pool(self, torch: StandIn, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        pools = [on_gpu(0), on_gpu(1)]
        for pool in pools:
            integration.install(pool)
        assert torch.changes == 1
        addresses = [allocate(1000 * (index + 1), index) for index in (0, 1)]
        assert [pool.memory_stats()["allocated_bytes.all.current"] for pool in pools] == [1024, 2048]
        for address in addresses:
            free(address)
        assert [pool.get_statistics().active_allocations for pool in pools] == [0, 0]
        assert allocate(1000, 2) == 0

    @pytest.mark.usefixtures("torch")
    def test_another_pool_takes_the_place(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        first, second = on_gpu(0), on_gpu(0)
        integration.install(first)
        kept = allocate(1000, 0)
        integration.install(second)
        other = allocate(1000, 0)
        assert [pool.get_statistics().active_allocations for pool in (first, second)] == [1, 1]
        free(kept)
        assert [pool.get_statistics().active_allocations for pool in (first, second)] == [0, 1]
        free(other)

    def test_too_late(self, torch: StandIn, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        torch.is_used = True
        with pytest.raises(RuntimeError, match="before the first CUDA tensor"):
            integration.install(on_gpu(0))
        assert allocate(1000, 0) == 0

    @pytest.mark.usefixtures("torch")
    def test_magazines_are_warned_of(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        with pytest.warns(UserWarning, match="magazines=False"):
            integration.install(on_gpu(0, magazines=True))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            integration.install(on_gpu(0))

    @pytest.mark.usefixtures("torch")
    def test_use_needs_the_caching_allocator(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        pool = on_gpu(0)
        integration.install(pool)
        with pytest.raises(RuntimeError, match="leave use"):
            integration.use(pool).__enter__()
        assert allocate(1000, 0) != 0
        hook("trim", None)()


class TestUse:
    @pytest.mark.usefixtures("torch")
    def test_one_pool_a_gpu_until_it_is_forgotten(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        first, second = on_gpu(0), on_gpu(0)
        with integration.use(first):
            pass
        with pytest.raises(RuntimeError, match="forget"):
            integration.use(second).__enter__()
        integration.forget(first)
        with integration.use(second):
            assert allocate(1000, 0) != 0
        assert second.get_statistics().active_allocations == 1

    def test_no_memory_for_a_graph_is_said_to_be_that(
        self, torch: StandIn, on_gpu: Callable[..., tierpool.MemoryPool]
    ) -> None:
        pool = on_gpu(0)
        with pytest.raises(StandIn.OutOfMemoryError, match=r"^CUDA out of memory$"), integration.use(pool):
            raise torch.OutOfMemoryError("CUDA out of memory")
        torch.is_capturing = True
        refused = r"^CUDA out of memory; .* being captured into a graph, .* before the capture"
        with pytest.raises(StandIn.OutOfMemoryError, match=refused), integration.use(pool):
            raise torch.OutOfMemoryError("CUDA out of memory")
        with pytest.raises(KeyError, match="other"), integration.use(pool):
            raise KeyError("other")

    def test_the_reason_is_said_once_by_blocks_within_blocks(
        self, torch: StandIn, on_gpu: Callable[..., tierpool.MemoryPool]
    ) -> None:
        pool = on_gpu(0)
        torch.is_capturing = True
        with pytest.raises(StandIn.OutOfMemoryError) as raised, integration.use(pool), integration.use(pool):
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert str(raised.value).count("being captured into a graph") == 1

    @pytest.mark.parametrize(
        ("failure", "seen"),
        [(RuntimeError("device-side assert"), StandIn.OutOfMemoryError), (KeyboardInterrupt(), KeyboardInterrupt)],
    )
    def test_the_block_ends_when_the_reason_cannot_be_found(
        self,
        torch: StandIn,
        on_gpu: Callable[..., tierpool.MemoryPool],
        failure: BaseException,
        seen: type[BaseException],
    ) -> None:
        def run_out_of_memory() -> None:
            with integration.use(on_gpu(0)):
                assert len(torch.entered) == 1
                raise torch.OutOfMemoryError("CUDA out of memory")

        torch.question_fails_with = failure
        with pytest.raises(seen):
            run_out_of_memory()
        assert torch.entered == []

    def test_one_allocator_is_behind_all_mem_pools_and_never_dies(
        self, torch: StandIn, on_gpu: Callable[..., tierpool.MemoryPool]
    ) -> None:
        for index in range(2):
            pool = on_gpu(index)
            with integration.use(pool):
                pass
            integration.forget(pool)
        integration._behind_mem_pools.clear()  # as at the end of the interpreter
        gc.collect()
        assert [wrapper() is not None for wrapper in torch.wrappers] == [True]

    @pytest.mark.usefixtures("torch")
    def test_expandable_segments_are_refused(
        self, on_gpu: Callable[..., tierpool.MemoryPool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
            monkeypatch.setenv(name, "max_split_size_mb:64,expandable_segments:True")
            with pytest.raises(RuntimeError, match="expandable_segments:False"):
                integration.use(on_gpu(0)).__enter__()
            monkeypatch.delenv(name)


class TestHooks:
    @pytest.mark.usefixtures("torch")
    def test_emptying_the_cache_trims_the_pool(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        pool = on_gpu(0)
        integration.install(pool)
        free(allocate(4 << 20, 0))
        assert pool.get_statistics().committed_mb == 4
        hook("trim", None)()
        assert pool.get_statistics().committed_mb == 0

    @pytest.mark.usefixtures("torch")
    def test_base_of_an_allocation(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        integration.install(on_gpu(0))
        address = allocate(1000, 0)
        size = ctypes.c_size_t()
        base = hook("base_allocation", ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t))
        assert (base(address, ctypes.byref(size)), size.value) == (address, 1024)
        free(address)

    @pytest.mark.usefixtures("torch")
    def test_no_hook_logs(
        self, on_gpu: Callable[..., tierpool.MemoryPool], log_lines: Callable[[], list[tuple[str, str]]]
    ) -> None:
        pool = on_gpu(0)
        integration.install(pool)
        outside = allocate(64 << 20, 0)  # more than the heap has, which a pool's own allocate() says
        assert outside != 0
        free(outside)
        assert allocate(1 << 62, 0) == 0
        pool.get_statistics()  # delivers what has waited
        assert log_lines() == []


class TestCupy:
    @pytest.fixture
    def cupy(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """CuPy, as far as the allocator knows it."""
        stand_in = SimpleNamespace(device=0)
        stand_in.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDevice=lambda: stand_in.device),
            get_current_stream=lambda: SimpleNamespace(ptr=0),
            UnownedMemory=lambda address, nbytes, owner, index: (address, nbytes, owner, index),
            MemoryPointer=lambda memory, offset: (memory, offset),
        )
        monkeypatch.setitem(sys.modules, "cupy", stand_in)
        return stand_in

    def test_memory_is_on_the_current_device_or_refused(
        self, cupy: SimpleNamespace, on_gpu: Callable[..., tierpool.MemoryPool]
    ) -> None:
        pools = [on_gpu(0), on_gpu(1)]
        allocator = cupy_integration.allocator(*pools)
        cupy.device = 1
        (address, nbytes, owner, index), offset = allocator(1000)
        assert (owner.address, nbytes, index, offset) == (address, 1000, 1, 0)
        assert [pool.get_statistics().active_allocations for pool in pools] == [0, 1]
        cupy.device = 2
        with pytest.raises(RuntimeError, match=r"current device is 2.*'cuda:2'"):
            allocator(1000)

    @pytest.mark.usefixtures("cupy")
    def test_two_pools_on_one_gpu(self, on_gpu: Callable[..., tierpool.MemoryPool]) -> None:
        with pytest.raises(ValueError, match="one pool a GPU"):
            cupy_integration.allocator(on_gpu(0), on_gpu(0))
