"""What the storage tests share: synthetic models from the benchmarks, and a profile of a machine that is nobody's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tierpool.storage.limits import Limits
from tierpool.storage.profile import Profile

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2] / "benchmarks" / "python"), str(HERE / "support")]


@pytest.fixture(scope="session")
def profile() -> Profile:
    """2 GB/s of disk, 20 GB/s of memory, 2 processors."""
    limits = Limits(
        memory_limit_bytes=None,
        memory_limit_source="",
        memory_used_by_others_bytes=0,
        memory_available_bytes=8 << 30,
        process_bytes=50 << 20,
        cores=2,
        max_mappings=65_530,
    )
    return Profile("model.gguf", True, 2e9, 1.5e9, 20e9, limits)
