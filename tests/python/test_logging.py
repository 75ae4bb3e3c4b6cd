"""Records on their way to `logging.getLogger("tierpool")`."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import MemoryPool, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds
LOGGER = logging.getLogger("tierpool")
EXHAUSTED = "MetalMemoryPool: Heap exhausted for 17MB allocation, falling back to device allocation"
CONSIDER = "MetalMemoryPool: Consider increasing heap_size_mb or num_heaps"


class Calling(logging.Handler):
    """Calls a function with each record."""

    def __init__(self, call: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.call = call

    def emit(self, record: logging.LogRecord) -> None:
        self.call(record)


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[logging.LogRecord], object]], None]]:
    """Let a function handle all of tierpool's records for the length of a test."""
    added: list[logging.Handler] = []
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False

    def add(call: Callable[[logging.LogRecord], object]) -> None:
        added.append(Calling(call))
        LOGGER.addHandler(added[-1])

    yield add
    for handler in added:
        LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = propagate


class TestDelivery:
    def test_when_the_call_returns(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool()
        held = pool.allocate(TOO_LARGE)
        assert log_lines() == [("WARNING", EXHAUSTED), ("INFO", CONSIDER)]
        pool.close()
        lines = log_lines()
        assert [level for level, _ in lines] == ["ERROR"] * len(lines) != []
        assert all(text.startswith("MetalMemoryPool: ") for _, text in lines)
        del held
        assert log_lines() == []

    def test_when_the_call_raises(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(on_exhaustion="raise")
        for call in (
            lambda: pool.allocate(TOO_LARGE),
            lambda: make_pool(on_exhaustion="raise").allocate_batch([TOO_LARGE]),
            lambda: make_pool(on_exhaustion="raise", heap_size_mb=1).allocate(TOO_LARGE),
        ):
            with pytest.raises(OutOfMemoryError):
                call()
            assert [level for level, _ in log_lines()] == ["WARNING", "INFO"]

    def test_from_the_constructor(self, make_pool: MakePool, log_lines: Any) -> None:
        make_pool(warmup_sizes=[32])
        assert log_lines() == [("WARNING", "MetalMemoryPool: Warmup size 32MB exceeds heap size 16MB, skipped")]

    def test_on_the_thread_of_the_call(self, make_pool: MakePool, handle: Any) -> None:
        seen: list[tuple[str, str]] = []
        handle(lambda record: seen.append((record.threadName, record.funcName)))

        def allocate_on_thread() -> None:
            make_pool().allocate(TOO_LARGE)

        thread = threading.Thread(target=allocate_on_thread, name="worker")
        thread.start()
        thread.join()
        assert seen == [("worker", "allocate_on_thread")] * 2

    def test_text_is_no_format(self, make_pool: MakePool, handle: Any) -> None:
        records: list[logging.LogRecord] = []
        handle(records.append)
        make_pool().allocate(TOO_LARGE)
        assert [(record.name, record.msg, record.getMessage()) for record in records] == [
            ("tierpool", "%s", EXHAUSTED),
            ("tierpool", "%s", CONSIDER),
        ]

    def test_releases_say_nothing(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool()
        with pool.numpy():
            held = [pool.allocate(8), pool.allocate_batch([8, 8]), np.empty(5000), pool.allocate(8).array()]
        held.clear()
        pool.allocate(8).release()
        pool.release(pool.allocate(8))
        pool.trim()
        pool.close()
        assert log_lines() == []


class TestLevel:
    def test_is_asked_at_each_message(self, make_pool: MakePool, handle: Any) -> None:
        seen: list[str] = []
        handle(lambda record: seen.append(record.levelname))
        for level, expected in (
            (logging.ERROR, []),
            (logging.WARNING, ["WARNING"]),
            (logging.DEBUG, ["WARNING", "INFO"]),
            (logging.CRITICAL, []),
            (logging.INFO, ["WARNING", "INFO"]),
        ):
            LOGGER.setLevel(level)
            make_pool().allocate(TOO_LARGE)
            assert seen == expected
            seen.clear()
        logging.disable(logging.CRITICAL)
        try:
            make_pool().allocate(TOO_LARGE)
        finally:
            logging.disable(logging.NOTSET)
        assert seen == []


class TestHandlers:
    def test_may_use_the_pool(self, make_pool: MakePool, handle: Any) -> None:
        pool, seen = make_pool(), []

        def use_everything(record: logging.LogRecord) -> None:
            seen.append(record.levelname)
            with pool.numpy():
                array = np.ones(5000)
            buffers = pool.allocate(8), pool.allocate(TOO_LARGE), pool.allocate_batch([8, TOO_LARGE])
            seen.append(pool.get_statistics().active_allocations >= len(buffers) + array.ndim)
            pool.trim()

        handle(use_everything)
        pool.allocate(TOO_LARGE)
        assert seen == ["WARNING", True, "INFO", True]
        assert pool.get_statistics().active_allocations == 0

    def test_may_close_the_pool(self, make_pool: MakePool, handle: Any) -> None:
        pool, seen = make_pool(), []
        handle(lambda record: (seen.append(record.getMessage()), pool.close()))
        held = pool.allocate(TOO_LARGE)
        assert pool.closed
        assert held.nbytes == TOO_LARGE
        assert seen[:2] == [EXHAUSTED, "MetalMemoryPool: Memory leak detected!"]
        assert seen[-1] == CONSIDER

    def test_may_exhaust_another_pool(self, make_pool: MakePool, handle: Any) -> None:
        pools = [make_pool() for _ in range(5)]
        unused, seen = pools[1:], []

        def exhaust_next(record: logging.LogRecord) -> None:
            seen.append(record.levelname)
            if unused:
                unused.pop().allocate(TOO_LARGE)

        handle(exhaust_next)
        pools[0].allocate(TOO_LARGE)
        assert sorted(seen) == ["INFO"] * 5 + ["WARNING"] * 5

    def test_that_raise_harm_neither_the_call_nor_later_records(
        self, make_pool: MakePool, handle: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unraisable: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append((args.exc_type, args.object)))
        seen = []

        def fail(record: logging.LogRecord) -> None:
            seen.append(record.levelname)
            raise RuntimeError(record.levelname)

        handle(fail)
        pool = make_pool()
        buffer = pool.allocate(TOO_LARGE)
        assert buffer.nbytes == TOO_LARGE
        assert seen == ["WARNING", "INFO"]
        assert unraisable == [(RuntimeError, "the logger 'tierpool'")] * 2
        with pytest.raises(OutOfMemoryError, match="out of memory"):
            make_pool(on_exhaustion="raise").allocate(TOO_LARGE)
        assert len(seen) == 4

    def test_keep_an_exception_that_is_being_handled(self, make_pool: MakePool, handle: Any) -> None:
        handle(lambda record: None)
        try:
            raise KeyError("mine")
        except KeyError:
            make_pool().allocate(TOO_LARGE)
            assert sys.exc_info()[0] is KeyError

    def test_that_replace_the_logger_get_the_next_record(self, make_pool: MakePool, handle: Any) -> None:
        seen = []

        def go_silent(record: logging.LogRecord) -> None:
            seen.append(record.levelname)
            LOGGER.setLevel(logging.ERROR)

        handle(go_silent)
        make_pool().allocate(TOO_LARGE)
        assert seen == ["WARNING"]


class TestExhaustionPair:
    def test_once_for_many_in_a_row(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(device="simulated")
        for _ in range(1000):
            pool.allocate(TOO_LARGE)
        found = log_lines()
        assert found[:2] == [("WARNING", EXHAUSTED), ("INFO", CONSIDER)]
        assert len(found) % 3 == 2  # a slow machine may see a second come round, with three lines
        assert len(found) < 100
        assert pool.get_statistics().exhaustion_events == 1000

    def test_for_each_pool(self, make_pool: MakePool, log_lines: Any) -> None:
        for _ in range(3):
            make_pool().allocate(TOO_LARGE)
            assert log_lines() == [("WARNING", EXHAUSTED), ("INFO", CONSIDER)]

    def test_switched_off(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(log_exhaustion=False)
        pool.allocate(TOO_LARGE)
        assert pool.try_allocate(TOO_LARGE) is None
        assert pool.get_statistics().exhaustion_events == 2
        assert log_lines() == []

    def test_not_for_an_attempt(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool()
        assert pool.try_allocate(TOO_LARGE) is None
        assert log_lines() == []


class TestThreads:
    def test_each_sees_its_own_records(self, make_pool: MakePool, handle: Any) -> None:
        seen: list[tuple[str, str]] = []
        handle(lambda record: seen.append((threading.current_thread().name, record.levelname)))
        counts: list[int] = []

        def work() -> None:
            name = threading.current_thread().name
            for turn in range(1, 26):
                make_pool(device="simulated").allocate(TOO_LARGE)
                counts.append(seen.count((name, "WARNING")) - turn)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [0] * 200
        assert len(seen) == 400

    def test_one_pool_of_all_says_it_once(self, make_pool: MakePool, log_lines: Any) -> None:
        pool, start = make_pool(device="simulated"), threading.Barrier(8)

        def work() -> None:
            start.wait()
            for _ in range(200):
                pool.allocate(TOO_LARGE)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [text for _, text in log_lines()]
        assert found[0] == EXHAUSTED
        assert 1 <= found.count(EXHAUSTED) == found.count(CONSIDER) < 20
        assert pool.get_statistics().exhaustion_events == 1600
