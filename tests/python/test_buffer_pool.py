"""The buffer pool as a whole: what it is built from, its limits, its statistics, steps, events and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import BufferPool, ConfigError, MemoryPool, OutOfMemoryError, PoolClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20


class TestConstruction:
    def test_defaults(self) -> None:
        arena = BufferPool()
        assert arena.source.device == "host"
        assert not arena.source.config.enabled
        assert not arena.closed
        assert repr(arena) == "<BufferPool on 'host': 0 leases, 0 bytes held>"

    @pytest.mark.parametrize("device", ["host", "simulated"])
    def test_on_a_device(self, device: str) -> None:
        arena = BufferPool(device)
        lease = arena.alloc(1000)
        assert arena.source.device == device
        assert arena.source.get_statistics().fallback_allocations == 1
        assert lease.live

    def test_on_a_pool(self, pool: MemoryPool) -> None:
        arena = BufferPool(pool)
        lease = arena.alloc(1000)
        assert arena.source is pool
        assert pool.get_statistics().used_capacity_mb == 1024 / MIB
        del arena
        assert lease.live  # holds the buffers
        del lease
        assert pool.get_statistics().active_allocations == 0

    def test_no_file_adds_heaps(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        file = tmp_path / "runtime.yaml"
        file.write_text("metal_optimizations: {memory_pool: {enabled: true, num_heaps: 2, max_bytes: 1}}")
        monkeypatch.setenv("TIERPOOL_CONFIG", str(file))
        assert BufferPool().alloc(1000).live

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"source": "hots"}, ConfigError, "host"),
            ({"source": 3}, TypeError, "source must be a MemoryPool or the name of a device, got int"),
            ({"size_classes": "power-of-too"}, ConfigError, "power-of-two"),
            ({"size_classes": 8}, TypeError, "size_classes must be a name, got int 8"),
            ({"zero": "allways"}, ConfigError, "always"),
            ({"zero": True}, TypeError, "zero must be a name, got bool True"),
            ({"max_bytes": 0}, ConfigError, "max_bytes must be above 0"),
            ({"max_bytes": "much"}, ConfigError, "max_bytes is 'much', which is no size"),
            ({"max_bytes": 1.5}, TypeError, "max_bytes must be a whole number"),
            ({"max_buffers": 0}, ConfigError, "max_buffers must be at least 1, got 0"),
            ({"max_buffers": -1}, ValueError, "max_buffers must not be negative, got -1"),
            ({"max_buffers": "3"}, TypeError, "max_buffers must be a whole number"),
            ({"checked": 1}, TypeError, "checked must be true or false, got int 1"),
            ({"track_origins": None}, TypeError, "track_origins must be true or false"),
            ({"zeros": "never"}, TypeError, "zeros"),
            ({"source": "simulated", "zero": "fresh"}, ConfigError, "cannot write to memory of device 'simulated'"),
        ],
    )
    def test_bad_settings(self, settings: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            BufferPool(**settings)

    def test_a_bad_switch_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TIERPOOL_NO_RESIDENCY", "maybe")
        with pytest.raises(ConfigError, match="TIERPOOL_NO_RESIDENCY is 'maybe'; set it to 1"):
            BufferPool()

    def test_a_subclass_that_forgets_init(self) -> None:
        class Forgetful(BufferPool):
            def __init__(self) -> None:
                pass

        with pytest.raises(TypeError, match="__init__"):
            Forgetful()
        unborn = BufferPool.__new__(BufferPool)
        assert repr(unborn) == "<BufferPool, not built>"
        for call in (lambda: unborn.alloc(1), lambda: unborn.alloc_batch([1]), unborn.reset):
            with pytest.raises(RuntimeError, match=r"was not built: call super\(\).__init__\(\)"):
                call()

    def test_methods_refuse_other_objects(self) -> None:
        with pytest.raises(TypeError):
            BufferPool.alloc(3, 4)  # type: ignore[call-overload]

    def test_text_as_a_limit(self) -> None:
        arena = BufferPool(max_bytes="1MiB")
        with pytest.raises(OutOfMemoryError, match="max_bytes 1048576 bytes"):
            arena.alloc(MIB + 1)


class TestSizes:
    @pytest.mark.parametrize(
        ("size_classes", "nbytes", "class_bytes"),
        [
            ("eighths", 0, 256),
            ("eighths", 1, 256),
            ("eighths", 257, 512),
            ("eighths", 2049, 2304),
            ("eighths", 9 << 20, 9 << 20),
            ("eighths", (9 << 20) + 1, 10 << 20),
            ("power-of-two", 2049, 4096),
            ("exact", 2049, 2049),
        ],
    )
    def test_classes(self, size_classes: str, nbytes: int, class_bytes: int) -> None:
        arena = BufferPool("simulated", size_classes=size_classes)
        lease = arena.alloc(nbytes)
        stats = arena.get_statistics()
        assert (lease.nbytes, stats.in_use_bytes, stats.live_requested_bytes) == (nbytes, class_bytes, nbytes)

    def test_exact_stands_beside_the_classes(self) -> None:
        arena = BufferPool()
        exact, rounded = arena.alloc_exact(3000), arena.alloc(3000)
        assert exact.nbytes == rounded.nbytes == 3000
        assert [one.class_bytes for one in arena.get_statistics().classes] == [3000, 3072]
        exact.release()
        other = arena.alloc(3000)  # never from a buffer that its class would overrun
        assert arena.get_statistics().fresh == 3
        assert other.live

    def test_waste_of_eighths_is_an_eighth_at_most(self) -> None:
        arena = BufferPool("simulated")
        for nbytes in np.unique(np.geomspace(2048, 1 << 40, 5000).astype(np.int64)).tolist():
            before = arena.get_statistics()
            arena.alloc(nbytes)
            assert arena.get_statistics().waste_bytes - before.waste_bytes <= nbytes / 8

    @pytest.mark.parametrize(
        ("nbytes", "message"), [(1 << 62, "no memory left"), (2**63 - 1, "more than any device has")]
    )
    def test_impossible_sizes(self, nbytes: int, message: str) -> None:
        arena = BufferPool()
        with pytest.raises(OutOfMemoryError, match=message) as caught:
            arena.alloc(nbytes)
        assert caught.value.requested_bytes == nbytes
        assert arena.get_statistics().held_count == 0


class TestZero:
    @pytest.mark.parametrize(
        ("zero", "first", "second"), [("fresh", 0, 7), ("always", 0, 0), ("poison", 0xCB, 0xCB), ("never", None, 7)]
    )
    @pytest.mark.parametrize("on_heaps", [False, True])
    def test_policies(self, make_pool: MakePool, zero: str, first: int | None, second: int, on_heaps: bool) -> None:
        arena = BufferPool(make_pool() if on_heaps else "host", zero=zero)
        for expected in (first, second):
            lease = arena.alloc(1000)
            array = lease.array()
            if expected is not None:
                assert set(array.tolist()) == {expected}
            array[:] = 7
            del array, lease
            arena.reset()


class TestLimits:
    def test_the_pool_is_intact_after_a_refusal(self) -> None:
        arena = BufferPool(max_bytes=4096)
        held = arena.alloc(2048)
        with pytest.raises(OutOfMemoryError) as caught:
            arena.alloc(4096)
        assert caught.value.requested_bytes == 4096
        assert held.live
        assert arena.get_statistics().held_bytes == 2048
        assert arena.alloc(2048).live

    def test_free_buffers_make_room(self) -> None:
        arena = BufferPool(max_bytes=4096)
        arena.alloc(4096)
        assert arena.alloc(1024).live
        assert arena.get_statistics().held_bytes == 1024

    def test_the_source_says_what_it_lacks(self, make_pool: MakePool) -> None:
        arena = BufferPool(make_pool(on_exhaustion="raise"))
        with pytest.raises(OutOfMemoryError, match=r"requested 18874368 bytes .*no heap can hold it"):
            arena.alloc(17 * MIB)
        assert arena.alloc(MIB).live

    def test_trim_and_clear(self) -> None:
        arena = BufferPool()
        held = arena.alloc(1024)
        arena.alloc_batch([1024, 4096, 64 << 10])
        assert (arena.free_count, arena.free_bytes) == (3, 1024 + 4096 + (64 << 10))
        assert arena.trim(0) == 0
        assert arena.trim(1) == 1024
        assert arena.trim(4097) == 4096 + (64 << 10)
        arena.alloc(2000)
        arena.clear()
        assert (arena.free_count, arena.free_bytes, arena.in_use_count) == (0, 0, 1)
        assert held.live
        with pytest.raises(ValueError, match="nbytes must not be negative"):
            arena.trim(-1)

    def test_use_after_clear(self) -> None:
        arena = BufferPool()
        arena.alloc(100)
        arena.clear()
        assert arena.alloc(100).live
        assert arena.get_statistics().fresh == 2


class TestClose:
    def test_new_work_is_refused_and_leases_stay(self) -> None:
        with BufferPool() as arena:
            held = arena.alloc(100)
            arena.alloc(100)
        assert arena.closed
        assert repr(arena) == "<BufferPool on 'host': closed>"
        for call in (lambda: arena.alloc(1), lambda: arena.alloc_exact(1), lambda: arena.alloc_batch([1])):
            with pytest.raises(PoolClosedError, match="the buffer pool is closed; create a new BufferPool"):
                call()
        with pytest.raises(PoolClosedError, match="cannot register memory"):
            arena.register_existing(np.ones(3))
        held.array()[:] = 1
        assert arena.get_statistics().held_count == 1
        held.release()
        assert arena.get_statistics().held_count == 0
        arena.close()
        arena.reset()
        arena.clear()

    def test_a_closed_source(self, pool: MemoryPool) -> None:
        arena = BufferPool(pool)
        held = arena.alloc(100)
        pool.close()
        with pytest.raises(PoolClosedError):
            arena.alloc(10_000)
        assert held.live


class TestStatistics:
    def test_fields_and_identities(self) -> None:
        arena = BufferPool()
        batch = arena.alloc_batch([100, 1000, 1000])
        arena.reset()
        kept = arena.alloc(900)
        stats = arena.get_statistics()
        assert (stats.fresh, stats.reused, stats.resets, stats.reuse_rate) == (3, 1, 1, 0.25)
        assert (stats.requested_bytes, stats.leased_bytes) == (3000, 256 + 3 * 1024)
        assert stats.waste_bytes == stats.leased_bytes - stats.requested_bytes
        assert stats.waste_ratio == stats.waste_bytes / stats.requested_bytes
        assert (stats.in_use_count, stats.in_use_bytes, stats.live_requested_bytes) == (1, 1024, 900)
        assert (stats.high_water_bytes, stats.held_bytes, stats.held_count) == (2304, 2304, 3)
        assert (stats.free_count, stats.free_bytes) == (arena.free_count, arena.free_bytes) == (2, 1280)
        assert [(one.class_bytes, one.fresh, one.reused, one.in_use_count) for one in stats.classes] == [
            (256, 1, 0, 0),
            (1024, 2, 1, 1),
        ]
        assert sum(one.waste_bytes for one in stats.classes) == stats.waste_bytes
        del batch, kept

    def test_to_dict_and_repr(self) -> None:
        arena = BufferPool()
        arena.alloc(100)
        stats = arena.get_statistics()
        fields = stats.to_dict()
        assert fields["classes"] == [stats.classes[0].to_dict()]
        assert {name: value for name, value in fields.items() if name != "classes"} == {
            name: getattr(stats, name) for name in fields if name != "classes"
        }
        assert repr(stats).startswith("BufferPoolStatistics(fresh=1, reused=0, ")
        assert "SizeClassStatistics(class_bytes=256, " in repr(stats)
