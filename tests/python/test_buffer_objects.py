"""The Python object behind a buffer: recycled memory, subclasses, refused copies, and the calls that make it."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tierpool
from tierpool import Buffer, BufferBatch, MemoryPool, _core

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

TOO_LARGE = 17 << 20  # for the heaps of 16 MB that make_pool builds
KEPT_OBJECTS = 1024  # dead objects whose memory is kept


def live(pool: MemoryPool) -> int:
    return pool.get_statistics().active_allocations


class TestRecycling:
    def test_the_next_object_has_the_last_ones_memory(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        place = id(buffer)
        del buffer
        assert id(pool.allocate(16)) == place

    def test_nothing_of_the_last_object_is_left(self, pool: MemoryPool) -> None:
        def given_up(buffer: Buffer) -> None:
            buffer.release()

        def seen_and_given_up(buffer: Buffer) -> None:
            with buffer, memoryview(buffer):
                pass

        def address_handed_out(buffer: Buffer) -> None:
            assert buffer.__array_interface__["version"] == 3

        def exported(buffer: Buffer) -> None:
            buffer.__dlpack__()

        def referenced(buffer: Buffer) -> None:
            references.append(weakref.ref(buffer))

        def nothing(_: Buffer) -> None:
            pass

        references: list[weakref.ref[Buffer]] = []
        for treat in (given_up, seen_and_given_up, address_handed_out, exported, referenced, nothing):
            old = pool.allocate(TOO_LARGE)
            place = id(old)
            treat(old)
            del old
            new = pool.allocate(24)
            assert id(new) == place
            assert (new.nbytes, new.heap_index is None, new.released) == (24, False, False)
            assert weakref.getweakrefcount(new) == 0
            assert all(reference() is None for reference in references)
            memoryview(new)[:] = bytes(24)
            new.release()
            assert new.released
            assert live(pool) == 0

    def test_more_objects_than_are_kept(self, pool: MemoryPool) -> None:
        for _ in range(3):
            buffers = [pool.allocate(8) for _ in range(2 * KEPT_OBJECTS)]
            assert len({id(buffer) for buffer in buffers}) == len({buffer.address for buffer in buffers})
            assert live(pool) == 2 * KEPT_OBJECTS
            del buffers
            assert live(pool) == 0

    def test_objects_die_on_other_threads(self, pool: MemoryPool) -> None:
        for _ in range(4):
            buffers = [pool.allocate(8) for _ in range(100)]
            thread = threading.Thread(target=buffers.clear)
            thread.start()
            thread.join()
            assert live(pool) == 0

    def test_no_object_and_no_reference_is_lost(self, pool: MemoryPool) -> None:
        def work() -> None:
            batch = pool.allocate_batch(sizes)
            for buffer in (pool.allocate(8), pool.try_allocate(8, alignment=512), batch[0], *list(batch)):
                assert buffer is not None
                memoryview(buffer).release()
            pool.release(buffer)
            with pytest.raises(TypeError):
                pool.allocate(size="8")  # type: ignore[arg-type]

        sizes = np.full(40, 8)
        kept_alive = (Buffer, BufferBatch, _core.MemoryPool, MemoryPool, pool, None)
        work()
        gc.collect()
        before = [sys.getrefcount(one) for one in kept_alive], sys.getallocatedblocks()
        for _ in range(2_500):  # some 10**5 buffers
            work()
        gc.collect()
        counts, blocks = [sys.getrefcount(one) for one in kept_alive], sys.getallocatedblocks()
        assert all(abs(now - then) < 100 for now, then in zip(counts, before[0], strict=True))
        assert abs(blocks - before[1]) < 1_000
        assert live(pool) == 0

    def test_is_no_work_for_the_cycle_collector(self, pool: MemoryPool) -> None:
        assert not gc.is_tracked(pool.allocate(8))
        assert not gc.is_tracked(pool.allocate_batch([8]))


class Block(Buffer):
    """A buffer that knows what it is for."""

    def __init__(self, _: Buffer, layer: int) -> None:
        self.layer = layer


class Slim(Buffer):
    __slots__ = ()


class TestSubclasses:
    def test_take_the_memory_over(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        memoryview(buffer)[:] = b"contents"
        address = buffer.address
        block = Block(buffer, layer=3)
        assert isinstance(block, Buffer)
        assert (block.layer, block.nbytes, block.address, block.heap_index) == (3, 8, address, 0)
        assert bytes(block) == b"contents"
        assert buffer.released
        assert live(pool) == 1
        del buffer
        assert live(pool) == 1
        pool.release(block)
        assert live(pool) == 0

    @pytest.mark.parametrize("make", [Buffer, Slim, lambda buffer: Block(buffer, 1)])
    @pytest.mark.parametrize("nbytes", [8, TOO_LARGE], ids=["heap", "fallback"])
    def test_live_and_die_as_buffers_do(self, pool: MemoryPool, make: Any, nbytes: int) -> None:
        one = make(pool.allocate(nbytes))
        references = weakref.ref(one), weakref.ref(one, lambda _: ended.append(live(pool)))
        ended: list[int] = []
        array = np.asarray(one)
        with pytest.raises(BufferError, match="live views"):
            one.release()
        del one
        assert live(pool) == 1
        array[:8] = 7
        del array
        assert (live(pool), ended, references[0]()) == (0, [1], None)
        with make(pool.allocate_batch([nbytes])[0]) as left:
            assert left.nbytes == nbytes
        assert left.released
        assert live(pool) == 0

    @pytest.mark.parametrize("objects", range(1, 12))
    def test_of_what_a_finalizer_released_meanwhile(self, pool: MemoryPool, objects: int) -> None:
        class Finalizer:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                if not buffer.released:
                    buffer.release()

        buffer = pool.allocate(8)
        gc.collect()
        Finalizer()
        thresholds = gc.get_threshold()
        gc.set_threshold(objects)  # one of these runs the collector just when the subclass' object is made
        try:
            block = Block(buffer, layer=1)
        except ValueError:
            assert live(pool) == 0
        else:
            assert live(pool) == 1
            assert block.address != 0
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()

    def test_after_an_export(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        buffer.__dlpack__()  # never consumed
        slim = Slim(buffer)
        export = np.from_dlpack(slim)
        del slim, buffer
        export[:] = 1
        assert live(pool) == 1
        del export
        assert live(pool) == 0

    def test_in_a_cycle(self, pool: MemoryPool) -> None:
        block: Any = Block(pool.allocate(8), 1)
        block.itself = block
        del block
        gc.collect()
        assert live(pool) == 0

    def test_die_beside_recycled_objects(self, pool: MemoryPool) -> None:
        for _ in range(3):
            mixed = [make(pool.allocate(8)) for make in (Slim, Buffer) * 200]
            assert live(pool) == 400
            del mixed
            assert live(pool) == 0

    @pytest.mark.parametrize("arguments", [(), (8,), ("pool",), (None,)])
    def test_of_anything_else(self, arguments: tuple[Any, ...]) -> None:
        for make in (Buffer, Slim):
            with pytest.raises(TypeError, match=r"takes one tierpool\.Buffer, .*pool\.allocate\(size\)"):
                make(*arguments)

    def test_of_too_much(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        for make in (Buffer, Slim):
            with pytest.raises(TypeError, match="takes one"):
                make(buffer, 1)  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="takes one"):
                make(buffer, layer=1)  # type: ignore[call-arg]
        assert not buffer.released

    def test_of_a_buffer_that_cannot_be_taken(self, pool: MemoryPool) -> None:
        released, seen = pool.allocate(8), pool.allocate(8)
        released.release()
        view = memoryview(seen)
        with pytest.raises(ValueError, match="released already"):
            Slim(released)
        with pytest.raises(BufferError, match="live views"):
            Slim(seen)
        view[:] = b"still ok"
        view.release()
        assert bytes(Slim(seen)) == b"still ok"

    def test_whose_init_fails(self, pool: MemoryPool) -> None:
        with pytest.raises(TypeError, match="layer"):
            Block(pool.allocate(8))  # type: ignore[call-arg]
        assert live(pool) == 0


class TestCopies:
    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps, lambda one: one.__reduce_ex__(4)])
    def test_are_refused_with_a_remedy(self, pool: MemoryPool, duplicate: Any) -> None:
        for one in (pool.allocate(8), Slim(pool.allocate(8)), Block(pool.allocate(8), 1)):
            with pytest.raises(TypeError, match=r"cannot pickle '.*' nor copy it: .* bytes\(buffer\)"):
                duplicate(one)
        with pytest.raises(TypeError, match=r"cannot pickle 'tierpool\.BufferBatch' nor copy it: .* copy the bytes"):
            duplicate(pool.allocate_batch([8]))
        del one
        assert live(pool) == 0

    def test_what_the_remedy_says(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(3)
        memoryview(buffer)[:] = b"abc"
        assert (bytes(buffer), np.array(buffer).tolist()) == (b"abc", list(b"abc"))


class TestCalls:
    @pytest.mark.parametrize("pool_class", [MemoryPool, _core.MemoryPool])
    def test_have_signatures(self, pool_class: Any) -> None:
        expected = {
            "allocate": "(self, /, size, alignment=256, stream=None)",
            "try_allocate": "(self, /, size, alignment=256, stream=None)",
            "allocate_batch": "(self, /, sizes)",
            "release": "(self, /, buffer, stream=None)",
        }
        for name, signature in expected.items():
            call = getattr(pool_class, name)
            assert str(inspect.signature(call)) == signature
            assert inspect.ismethoddescriptor(call)
            assert call.__objclass__ is pool_class
            assert "Raises" in call.__doc__ or "errors" in call.__doc__

    def test_take_positions_and_names(self, pool: MemoryPool) -> None:
        for call in (pool.allocate, pool.try_allocate):
            for buffer in (call(8, 512), call(8, alignment=512), call(alignment=512, size=8), call(size=8)):
                assert buffer is not None
                assert (buffer.nbytes, buffer.address % 256) == (8, 0)
            aligned = call(**{"size": 8, "ali" + "gnment": 4096})  # type: ignore[arg-type]  # not an interned name
            assert aligned is not None
            assert aligned.address % 4096 == 0
        batch = pool.allocate_batch(sizes=[8, 8])
        pool.release(buffer=batch[0])
        assert batch[0].released

    @pytest.mark.parametrize(
        ("arguments", "keywords", "message"),
        [
            ((), {}, "{}() missing required argument '{}'"),
            ((1, 256, None, 1), {}, r"{}() takes at most \d arguments? \(4 given\)"),
            ((1,), {"colour": 1}, "{}() got an unexpected keyword argument 'colour'"),
            ((), {"Größe": 1}, "{}() got an unexpected keyword argument 'Größe'"),
            ((1,), {"first": 1}, "{}() got multiple values for argument '{}'"),
        ],
    )
    def test_refuse_other_arguments(
        self, pool: MemoryPool, arguments: tuple[Any, ...], keywords: dict[str, Any], message: str
    ) -> None:
        firsts = {"allocate": "size", "try_allocate": "size", "allocate_batch": "sizes", "release": "buffer"}
        for name, first in firsts.items():
            named = {first if key == "first" else key: value for key, value in keywords.items()}
            expected = message.replace("{}()", name + r"\(\)").replace("{}", first)
            with pytest.raises(TypeError, match=expected):
                getattr(pool, name)(*arguments, **named)
        assert live(pool) == 0

    def test_are_inherited_and_may_be_overridden(self) -> None:
        class Counting(MemoryPool):
            calls = 0

            def allocate(self, size: Any, alignment: Any = 256) -> Buffer:
                self.calls += 1
                return super().allocate(size, alignment)

        pool = Counting(heap_size_mb=1, num_heaps=1, warmup_sizes=[])
        assert pool.allocate(8).nbytes == 8
        assert pool.try_allocate(8) is not None
        assert pool.calls == 1
        assert Counting.try_allocate is MemoryPool.try_allocate

    def test_of_a_pool_that_was_not_built(self) -> None:
        class Early(MemoryPool):
            def __init__(self, call: Callable[[MemoryPool], object]) -> None:
                call(self)
                super().__init__(heap_size_mb=1, num_heaps=1, warmup_sizes=[])

        calls: tuple[Callable[[MemoryPool], object], ...] = (
            lambda pool: pool.allocate(8),
            lambda pool: pool.try_allocate(8, 512),
            lambda pool: pool.allocate_batch([8]),
            lambda pool: pool.release(None),  # type: ignore[arg-type]
        )
        for call in calls:
            with pytest.raises(RuntimeError, match=r"was not built: call super\(\)\.__init__\(\) before"):
                Early(call)
            with pytest.raises(RuntimeError, match="was not built"):
                call(MemoryPool.__new__(MemoryPool))

    def test_on_other_objects(self, pool: MemoryPool) -> None:
        with pytest.raises(TypeError, match="doesn't apply to a 'int' object"):
            MemoryPool.allocate(3, 8)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _core.with_own_calls(int)  # type: ignore[type-var]
        assert MemoryPool.allocate(pool, 8).nbytes == 8

    def test_of_a_pool_with_a_second_compiled_base(self) -> None:
        class Both(MemoryPool, _core.Trace):
            def __init__(self) -> None:
                MemoryPool.__init__(self, heap_size_mb=1, num_heaps=1, warmup_sizes=[])
                none = np.empty(0, np.uint64)
                _core.Trace.__init__(self, np.empty(0, np.uint8), none, none, 1)

        both = Both()
        buffer = both.allocate(8)
        both.release(buffer)
        assert len(both.allocate_batch([8, 8])) == 2
        assert both.get_statistics().total_allocations == 3
        assert both.event_count == 0
        with pytest.raises(RuntimeError, match="was not built"):
            Both.__new__(Both).allocate(8)

    def test_sizes_of_every_length(self, make_pool: MakePool) -> None:
        pool = make_pool(device="simulated", heap_size_mb=1 << 20)
        for size in (0, 1, (1 << 30) - 1, 1 << 30, (1 << 31) + 7, 1 << 35):
            assert pool.allocate(size).nbytes == pool.allocate(np.int64(size)).nbytes == size
        assert pool.try_allocate((1 << 63) - 1) is None
        assert pool.allocate(True).nbytes == 1

    def test_log_before_they_return(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(on_exhaustion="raise")
        with pytest.raises(tierpool.OutOfMemoryError):
            pool.allocate(TOO_LARGE)
        assert [level for level, _ in log_lines()] == ["WARNING", "INFO"]
        fallback = make_pool().allocate(TOO_LARGE)
        assert [level for level, _ in log_lines()][:1] == ["WARNING"]
        assert fallback.heap_index is None
