"""What every Python test shares: a clean environment and a small pool."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import tierpool
from tierpool import cuda

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20

# A slow machine fails no test.
settings.register_profile("tierpool", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tierpool")
# A shell lets its background jobs, and so these tests and what they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, and say so loudly."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    reason = cuda.unavailable_reason() if marked else None  # starts the driver: only where somebody needs it
    if reason is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"NO CUDA HERE, not tested: {reason}"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIERPOOL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_pool() -> Callable[..., tierpool.MemoryPool]:
    """Build a pool of one cold 16 MB heap unless told otherwise."""

    def make(**settings: object) -> tierpool.MemoryPool:
        small = {"heap_size_mb": 16, "num_heaps": 1, "warmup_sizes": []}
        return tierpool.MemoryPool({**small, **settings})

    return make


@pytest.fixture
def calls_with_stream() -> Callable[[tierpool.MemoryPool, tierpool.Buffer, Any], list[Callable[[], object]]]:
    """Bind every call of a pool, and of a buffer of it, that names a stream."""

    def make(pool: tierpool.MemoryPool, buffer: tierpool.Buffer, stream: Any) -> list[Callable[[], object]]:
        return [
            partial(pool.allocate, 64, stream=stream),
            partial(pool.try_allocate, 64, stream=stream),
            partial(buffer.release, stream=stream),
            partial(buffer.record_stream, stream),
            partial(pool.release, buffer, stream=stream),
        ]

    return make


@pytest.fixture
def pool(make_pool: Callable[..., tierpool.MemoryPool]) -> tierpool.MemoryPool:
    """Two cold heaps of 16 MB on the host."""
    return make_pool(num_heaps=2)


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Return level and text of what tierpool has logged since the last call."""
    caplog.set_level(logging.DEBUG, logger="tierpool")

    def lines() -> list[tuple[str, str]]:
        found = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "tierpool"]
        caplog.clear()
        return found

    return lines


@pytest.fixture
def _few_addresses() -> Iterator[None]:
    """Leave this process, and those it starts, 64 GB of addresses."""
    if sys.platform != "linux":
        pytest.skip("only Linux holds a process to RLIMIT_AS")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (64 << 30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
