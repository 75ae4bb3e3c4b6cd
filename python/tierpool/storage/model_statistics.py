"""What a loaded model did and what it took: values, and how they are gathered."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tierpool.storage.process_memory import read_anonymous_bytes, read_process_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierpool.storage.engine import Engine, EngineCounters


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class PhaseStatistics:
    """Prompts, or what was generated after them, all generations together.

    Attributes
    ----------
    tokens : int
        Tokens that were computed. The last token of a generation is chosen, but not computed.
    seconds : float
        Time spent computing them, waiting for reads included.
    requested_bytes, reused_bytes, read_bytes : int
        Bytes of units asked for, found in memory, and read from the files.
    hits, misses : int
        Units found in memory, and not: one for each token, layer and unit.
    stall_ms : float
        Time in which computing waited for reads.
    read_busy_ms : float
        Time in which at least one read was under way; between two evaluations too, which counts to the later one, as
        what is read then does.
    """

    tokens: int
    seconds: float
    requested_bytes: int
    reused_bytes: int
    read_bytes: int
    hits: int
    misses: int
    stall_ms: float
    read_busy_ms: float

    @property
    def tokens_per_second(self) -> float:
        """Speed; 0.0 before the first token."""
        return _share(self.tokens, self.seconds)

    @property
    def bytes_per_token(self) -> float:
        """Bytes read for a token; 0.0 before the first."""
        return _share(self.read_bytes, self.tokens)

    @property
    def hit_rate(self) -> float:
        """Share of the units found in memory; 0.0 when none was asked for."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def read_gb_per_second(self) -> float:
        """Bandwidth while reads were under way; 0.0 without reads."""
        return _share(self.read_bytes / 1e9, self.read_busy_ms / 1e3)

    def to_dict(self) -> dict[str, Any]:
        """All fields and ratios."""
        names = ("tokens_per_second", "bytes_per_token", "hit_rate", "read_gb_per_second")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class ModelStatistics:
    """Everything since load; a snapshot.

    Attributes
    ----------
    prompt, generation : PhaseStatistics
        The two phases apart.
    loaded_bytes : int
        Bytes read once, while loading.
    buffered_files : int
        Files that cannot be read past the page cache, which is slower.
    budget_bytes : int
        What the process may hold, by the plan.
    anonymous_bytes, shared_bytes : int
        What it holds now as the kernel counts: `ProcessMemory` says how.
    peak_bytes : int
        The most of both together, looked at after every token.
    file_bytes : int
        Page cache that is mapped, which no budget covers.
    """

    prompt: PhaseStatistics
    generation: PhaseStatistics
    loaded_bytes: int
    buffered_files: int
    budget_bytes: int
    anonymous_bytes: int
    shared_bytes: int
    peak_bytes: int
    file_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, the phases as dicts with their ratios."""
        return {**asdict(self), "prompt": self.prompt.to_dict(), "generation": self.generation.to_dict()}


@dataclass
class _Totals:
    """What one phase has added up."""

    tokens: int = 0
    seconds: float = 0.0
    counters: dict[str, int] = field(default_factory=dict)

    def add(self, tokens: int, seconds: float, before: EngineCounters, after: EngineCounters) -> None:
        self.tokens += tokens
        self.seconds += seconds
        begin, end = asdict(before), asdict(after)
        self.counters = {name: self.counters.get(name, 0) + end[name] - begin[name] for name in end}

    def to_statistics(self) -> PhaseStatistics:
        total = self.counters
        return PhaseStatistics(
            tokens=self.tokens,
            seconds=self.seconds,
            requested_bytes=total.get("requested_bytes", 0),
            reused_bytes=total.get("reused_bytes", 0),
            read_bytes=total.get("read_bytes", 0),
            hits=total.get("hits", 0),
            misses=total.get("misses", 0),
            stall_ms=total.get("stall_ns", 0) / 1e6,
            read_busy_ms=total.get("read_busy_ns", 0) / 1e6,
        )


class StatisticsGatherer:
    """Adds up what an engine does; one evaluation at a time, snapshots from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._totals: defaultdict[str, _Totals] = defaultdict(_Totals)
        self._counted = engine.get_counters()
        memory = read_process_memory()
        self._shared_bytes = memory.shared_bytes
        self._peak_bytes = memory.anonymous_bytes + memory.shared_bytes

    @contextmanager
    def measure(self, phase: str, tokens: int) -> Iterator[None]:
        """Count what happens inside to `phase`, and what was read since the last time; the tokens only if it ends well.

        A ring reads on between two evaluations. Its bytes count when a layer waits for them, so that the time it took
        has to count there as well.
        """
        begin, computed = time.perf_counter(), 0
        try:
            yield
            computed = tokens
        finally:
            seconds, after = time.perf_counter() - begin, self._engine.get_counters()
            anonymous_bytes = read_anonymous_bytes()
            with self._lock:
                self._totals[phase].add(computed, seconds, self._counted, after)
                self._counted = after
                # Slots are touched while loading, so that only the rest grows from token to token.
                self._peak_bytes = max(self._peak_bytes, anonymous_bytes + self._shared_bytes)

    def phase(self, name: str) -> PhaseStatistics:
        """Return what was counted to a phase; zeros for one that never was."""
        with self._lock:
            return self._totals[name].to_statistics()

    def snapshot(self) -> ModelStatistics:
        """Return everything gathered so far."""
        memory, counters = read_process_memory(), self._engine.get_counters()
        with self._lock:
            self._shared_bytes = memory.shared_bytes
            self._peak_bytes = max(self._peak_bytes, memory.anonymous_bytes + memory.shared_bytes)
            return ModelStatistics(
                prompt=self._totals["prompt"].to_statistics(),
                generation=self._totals["generation"].to_statistics(),
                loaded_bytes=counters.loaded_bytes,
                buffered_files=counters.buffered_files,
                budget_bytes=self._engine.plan.budget.limit_bytes,
                anonymous_bytes=memory.anonymous_bytes,
                shared_bytes=memory.shared_bytes,
                peak_bytes=self._peak_bytes,
                file_bytes=memory.file_bytes,
            )
