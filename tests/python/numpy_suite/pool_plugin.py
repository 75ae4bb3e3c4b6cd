"""Runs NumPy's own test suite with every array in a pool.

Run it from this folder, whose ``pytest.ini`` loads it::

    cd tests/python/numpy_suite && python -m pytest --pyargs numpy._core numpy.lib

The run fails when arrays are not in the pool, whatever NumPy's tests say.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

import tierpool

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class PoolSession:
    """The pool and what holds its arrays' handler in place."""

    pool: tierpool.MemoryPool
    handler: ExitStack = field(default_factory=ExitStack)


SESSION = pytest.StashKey[PoolSession]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that shape the pool."""
    group = parser.getgroup("tierpool")
    group.addoption("--pool-heaps", type=int, default=4, help="number of heaps (default: 4)")
    group.addoption("--pool-heap-size-mb", type=float, default=64, help="size of each (default: 64)")
    group.addoption("--pool-min-bytes", type=int, default=0, help="smaller requests go to NumPy (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    """Put every array from here on into the pool: the tests run in this context, to which the handler belongs."""
    pool = tierpool.MemoryPool(
        heap_size_mb=config.getoption("--pool-heap-size-mb"),
        num_heaps=config.getoption("--pool-heaps"),
        warmup_sizes=[],
        log_exhaustion=False,
    )
    session = PoolSession(pool)
    session.handler.enter_context(pool.numpy(min_bytes=config.getoption("--pool-min-bytes")))
    config.stash[SESSION] = session


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give NumPy its own handler back; arrays that still live keep their memory."""
    session = config.stash.get(SESSION, None)
    if session is not None:
        session.handler.close()
        session.pool.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that did not begin with its arrays in the pool."""
    name = get_handler_name(np.empty(1000))
    if not name.startswith("tierpool"):
        pytest.fail(f"arrays come from the handler {name!r}, not from the pool")
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which the pool served nothing."""
    statistics = session.config.stash[SESSION].pool.get_statistics()
    if session.testscollected and statistics.total_allocations == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the pool did."""
    statistics = config.stash[SESSION].pool.get_statistics().to_dict()
    terminalreporter.section("tierpool")
    for name in ("total_allocations", "total_deallocations", "active_allocations", "fallback_allocations"):
        terminalreporter.write_line(f"{name:>22} {statistics[name]:,}")
    for name in ("hit_rate", "utilization", "peak_used_mb", "largest_allocation_mb", "fragmentation"):
        terminalreporter.write_line(f"{name:>22} {statistics[name]:,.3f}")
    if statistics["total_allocations"] == 0:
        terminalreporter.write_line("no array came from the pool", red=True)
