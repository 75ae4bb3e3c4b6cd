"""How steps end: scopes, events of work in flight, and the warning when they do not."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tierpool import BufferPool, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeEvent:
    """Work in flight that is done when the test says so."""

    def __init__(self, done: bool = False) -> None:
        self.done = done
        self.waits = 0

    def is_complete(self) -> bool:
        return self.done

    def wait(self) -> None:
        self.waits += 1
        self.done = True


class TestStep:
    def test_it_resets(self) -> None:
        arena = BufferPool()
        for _ in range(3):
            with arena.step() as scope:
                assert scope is arena
                lease = arena.alloc(1000)
            assert not lease.live
        assert (arena.get_statistics().fresh, arena.get_statistics().resets) == (1, 3)

    def test_what_escapes_is_refused(self) -> None:
        arena = BufferPool()
        with pytest.raises(BufferError, match=r"float32 \(250,\) with 1 view"), arena.step():
            escaped = arena.alloc(1000, "f4").array()
        assert arena.in_use_count == 1
        del escaped
        with arena.step():
            pass

    def test_an_exception_goes_on(self) -> None:
        arena = BufferPool()
        kept = []

        def fail(keeps: bool) -> None:
            with arena.step():
                array = arena.alloc(1000).array()
                if keeps:
                    kept.append(array)
                del array
                raise KeyError

        with pytest.raises(KeyError):
            fail(keeps=True)
        assert arena.in_use_count == 1  # still seen
        kept.clear()
        with pytest.raises(KeyError):
            fail(keeps=False)
        assert arena.get_statistics().resets == 1
        with arena.step():
            pass

    def test_one_at_a_time(self) -> None:
        arena = BufferPool()
        with arena.step():
            lease = arena.alloc(8)
            with pytest.raises(RuntimeError, match="a step of this buffer pool is open"), arena.step():
                pass
            assert lease.live
        with arena.step():
            pass


class TestEvents:
    def test_buffers_wait_for_the_event(self) -> None:
        arena = BufferPool()
        event = FakeEvent()
        freed, kept = arena.alloc(1000), arena.alloc(1000)
        first = freed.address
        freed.release()
        arena.reset(event)
        assert not kept.live
        stats = arena.get_statistics()
        assert (stats.quarantined_count, stats.quarantined_bytes, stats.free_count) == (1, 1024, 1)
        assert arena.alloc(1000).address == first
        held = arena.alloc_batch([1000, 1000])
        assert arena.get_statistics().fresh == 3
        event.done = True
        more = arena.alloc(1000)
        assert arena.get_statistics().fresh == 3
        assert event.waits == 0
        del held, more

    def test_it_is_waited_for_before_a_failure(self) -> None:
        arena = BufferPool(max_buffers=1)
        arena.alloc(1000)
        held = arena.alloc(1000)
        event = FakeEvent()
        arena.reset(after=event)
        assert arena.alloc(1000).live
        assert event.waits == 1
        del held

    def test_the_pool_waits_at_its_end(self) -> None:
        arena = BufferPool()
        held = arena.alloc(1000)
        event = FakeEvent()
        arena.reset(event)
        del held, arena
        assert event.waits == 1

    def test_an_event_is_let_go(self) -> None:
        arena = BufferPool()
        held = arena.alloc(1000)
        event = FakeEvent(done=True)
        reference = weakref.ref(event)
        arena.reset(event)
        del event, held
        arena.reset()
        assert reference() is None

    def test_what_an_event_raises_is_reported_and_keeps_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken:
            asked = 0

            def is_complete(self) -> bool:
                self.asked += 1
                raise KeyError("device lost")

            wait = is_complete

        reported: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", reported.append)
        arena = BufferPool(max_buffers=1)
        held = arena.alloc(1000)
        broken = Broken()
        arena.reset(broken)
        with pytest.raises(OutOfMemoryError, match="max_buffers"):
            arena.alloc(1000)
        assert broken.asked
        assert {type(one.exc_value) for one in reported} == {KeyError}
        assert len(reported) == broken.asked
        assert arena.get_statistics().quarantined_count == 1
        del held, arena

    @pytest.mark.parametrize("event", [3, object(), "done"])
    def test_what_is_no_event(self, event: Any) -> None:
        arena = BufferPool()
        lease = arena.alloc(8)
        with pytest.raises(TypeError, match=r"after must have is_complete\(\) and wait\(\), got "):
            arena.reset(event)
        assert lease.live

    def test_events_of_other_threads(self) -> None:
        """An event may need the interpreter while the pool waits for it without."""
        arena = BufferPool(max_buffers=1)
        held = arena.alloc(1000)
        done = threading.Event()
        worker = threading.Thread(target=done.set)

        class InThread:
            def is_complete(self) -> bool:
                return done.is_set()

            def wait(self) -> None:
                worker.start()
                assert done.wait(60)

        arena.reset(InThread())
        assert arena.alloc(1000).live
        worker.join()
        del held


class TestAlarm:
    def test_growth_in_every_step_is_named_once(self, log_lines: Callable[[], list[tuple[str, str]]]) -> None:
        arena = BufferPool("simulated", track_origins=True)
        for step in range(20):
            arena.alloc_batch([(step + 1) << 20])
            arena.reset()
        (line,) = log_lines()
        assert line[0] == "WARNING"
        assert "Fresh allocations in 8 resets in a row: " in line[1]
        assert "test_growth_in_every_step_is_named_once" in line[1]

    def test_a_missing_reset_is_named_once(self, log_lines: Callable[[], list[tuple[str, str]]]) -> None:
        arena = BufferPool("simulated")
        held = [arena.alloc(100) for _ in range(40_000)]
        (line,) = log_lines()
        assert "16385 fresh allocations without a reset: 16385 of 256B; is a reset() missing" in line[1]
        assert "set track_origins=True" in line[1]
        del held

    def test_a_steady_program_is_left_alone(self, log_lines: Callable[[], list[tuple[str, str]]]) -> None:
        arena = BufferPool("simulated")
        for _ in range(50):
            arena.alloc_batch(range(1, 1000))
            arena.reset()
        assert log_lines() == []


def test_warnings_reach_the_log_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="tierpool")
    arena = BufferPool("simulated")
    for step in range(8):
        assert not caplog.records
        arena.alloc(1 << (step + 10))
        arena.reset()
    assert len(caplog.records) == 1
