"""Runs of a bench that never ran, and what would follow from them."""

from __future__ import annotations

from dataclasses import replace

from fake_engine import make_plan

from tierpool.storage.bench_child import ChildResult
from tierpool.storage.bench_result import SIDES, BenchResult, BenchRun
from tierpool.storage.plan import Estimate, Mode, Placement, Plan
from tierpool.storage.profile import Profile
from tierpool.storage.roles import Role

TOKENS = [5, 6, 7]


def finished(speed: float, *, tokens: list[int] = TOKENS, digest: str = "same", read_bytes: int = 100) -> ChildResult:
    phase = {
        "tokens_per_second": speed,
        "bytes_per_token": read_bytes,
        "read_bytes": 2 * read_bytes,
        "misses": 4,
        "hit_rate": 0.5,
        "read_gb_per_second": 1.0,
        "stall_ms": 1.0,
    }
    names = ("prompt", "cold", "warm")
    return ChildResult(
        "finished",
        values={
            "phases": dict.fromkeys(names, phase),
            "digests": dict.fromkeys(names, digest),
            "tokens": tokens,
            "major_faults": 0,
            "load_seconds": 2.5,
            "process_peak_bytes": 768 << 20,
        },
        group_peak_bytes=1000,
    )


KILLED = ChildResult("killed", "killed by the kernel", kills=1)


FAILED = ChildResult("failed", "the disk is gone")


def result(profile: Profile, *, plan: Plan | None = None, **sides: list[ChildResult]) -> BenchResult:
    bandwidths = {"streamed": (1.2e9, 1.4e9)}
    runs = [
        BenchRun(side, pair, child, bandwidths.get(side, ()))
        for side in SIDES
        for pair, child in enumerate(sides.get(side, ()), start=1)
    ]
    return BenchResult(plan or make_plan(), profile, 1 << 30, 3, 2, False, tuple(runs))


def streaming_plan(mode: Mode = "experts") -> Plan:
    """It reads 100 bytes for a token; what is streamed are 8 units of 50 bytes."""
    placements = (Placement("a", Role.EXPERT, 400, "nvme"), Placement("b", Role.NORM, 9, "ram"))
    estimate = Estimate(0.5, 100, 200, 0, 1.0, "disk")
    return replace(make_plan(), mode=mode, placements=placements, estimate=estimate)
