"""What ``tierpool demo`` measures: the decode of a small Llama, from a pool and from direct allocation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tierpool import _core
from tierpool.config import DEFAULT_WARMUP_SIZES, PoolConfig
from tierpool.pool import MemoryPool
from tierpool.trace import packaged_trace, read_trace

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """Nanoseconds per event of one replay, median of `ROUNDS` interleaved rounds."""

    pool_ns_per_event: float
    direct_ns_per_event: float
    malloc_ns_per_event: float

    @property
    def direct_over_pool(self) -> float:
        """How many times longer the device's own allocation takes."""
        return self.direct_ns_per_event / self.pool_ns_per_event

    @property
    def malloc_over_pool(self) -> float:
        """How many times longer malloc takes."""
        return self.malloc_ns_per_event / self.pool_ns_per_event

    def to_dict(self) -> dict[str, float]:
        """Every time and both ratios by name."""
        ratios = {"direct_over_pool": self.direct_over_pool, "malloc_over_pool": self.malloc_over_pool}
        return {**asdict(self), **ratios}


@dataclass(frozen=True)
class DemoResult:
    """All that the demo found."""

    trace_name: str
    events: int
    peak_live_bytes: int
    device: str
    warmup: _core.WarmupReport
    untouched: Comparison
    written: Comparison | None  #: None where the processor cannot write the memory
    statistics: _core.PoolStatistics

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, ready for JSON."""
        return {
            "trace": self.trace_name,
            "device": self.device,
            "events": self.events,
            "peak_live_bytes": self.peak_live_bytes,
            "warmup": {"committed_bytes": self.warmup.committed_bytes, "milliseconds": self.warmup.milliseconds},
            "untouched": self.untouched.to_dict(),
            "written": None if self.written is None else self.written.to_dict(),
            "statistics": self.statistics.to_dict(),
            "findings": [finding_to_dict(finding) for finding in self.statistics.diagnose()],
        }


def finding_to_dict(finding: _core.Finding) -> dict[str, str | float]:
    """Return a finding as plain values."""
    return {
        "metric": finding.metric,
        "value": finding.value,
        "verdict": finding.verdict,
        "advice": finding.advice,
    }


def compare(trace: _core.Trace, pool: MemoryPool, *, write: bool) -> Comparison:
    """Replay a trace from a pool, from its device and from malloc, in turns so that all see the same machine."""
    contestants: tuple[Callable[[], float], ...] = (
        lambda: _core.replay(trace, pool, write),
        lambda: _core.replay_direct(trace, pool.device, write),
        lambda: _core.replay_malloc(trace, write),
    )
    rounds = [[run() / trace.event_count for run in contestants] for _ in range(ROUNDS)]
    return Comparison(*(median(times) for times in zip(*rounds, strict=True)))


def run(progress: Callable[[int, int], object] | None = None, device: str = "host") -> DemoResult:
    """Warm the default pool and replay the shipped trace.

    Parameters
    ----------
    progress : callable, optional
        Told the bytes warmed and the bytes to warm.
    device : str
        Where the pool is. Memory out of the processor's reach is not written.
    """
    trace = read_trace(packaged_trace())
    # Complete, so that the machine's configuration file does not change what the demo shows.
    with MemoryPool(PoolConfig(warmup_sizes=[], device=device)) as pool:
        largest_mb = max((heap.capacity_mb for heap in pool.heaps()), default=0.0)
        warmup = pool.warmup([size for size in DEFAULT_WARMUP_SIZES if size <= largest_mb], progress)
        untouched = compare(trace.core, pool, write=False)
        written = compare(trace.core, pool, write=True) if pool.host_accessible else None
        # The counts of one replay, not of all rounds.
        pool.reset_statistics()
        _core.replay(trace.core, pool, False)
        statistics = pool.get_statistics()
    return DemoResult(
        trace_name=str(trace.header.get("name", "trace")),
        device=pool.device,
        events=trace.core.event_count,
        peak_live_bytes=trace.core.peak_live_bytes,
        warmup=warmup,
        untouched=untouched,
        written=written,
        statistics=statistics,
    )
