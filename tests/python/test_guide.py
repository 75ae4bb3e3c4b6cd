"""Every Python block of the Metal Memory Pool guide, unchanged, with only its free names supplied."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

MIB = 1 << 20
BLOCKS = sorted((Path(__file__).parent / "guide_blocks").glob("*.py"))

# What each block prints for one pool: two heaps of 8 MB, of 4 allocations one released and one a fallback of 12 MB.
EXPECTED = {
    "01": ["Largest allocation: 0.0MB", "Avg allocation: 0.0MB"],
    "02": [
        "Total allocations:     4",
        "Fallback allocations:  1",
        "Hit rate:              75.0%",
        "Active allocations:    3",
        "Total heaps:           2",
        "Active heaps:          2",
        "Heap utilization:      37.5%",
        "Largest allocation:    12.0MB",
        "Avg allocation:        4.8MB",
        "Total capacity:        16.0MB",
        "Used capacity:         6.0MB",
    ],
    "03": ["❌ Pool too small, increase heap_size_mb or num_heaps"],
    "04": ["⚠️ Pool over-provisioned, reduce to save memory"],
    "05": ["❌ Frequent fallbacks, pool too small"],
    "06": ["Fallback rate: 25.0%", "Largest allocation: 12.0MB", "Heap size: 8MB"],
    "07": ["Utilization: 37.5%", "Total capacity: 16.0MB", "Used capacity: 6.0MB", "Wasted: 10.0MB"],
    "08": ["Active allocations: 3", "Total heaps: 2", "Allocations per heap: 1.5"],
    "09": ["Largest allocation: 12.0MB", "Heap size: 8MB", "Model fits in single heap: False"],
    "10": [
        "Fallback rate: 25.0%",
        "Largest allocation: 12.0MB",
        "Current heap size: 8MB",
        "❌ Allocation (12.0MB) larger than heap (8MB)",
    ],
    "11": [],
    "12": ["Leaked buffers: 3"],
    "13": [],
}


def test_no_block_is_missing() -> None:
    assert [block.name[:2] for block in BLOCKS] == list(EXPECTED)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.stem)
def test_block(block: Path) -> None:
    config = MetalMemoryPoolConfig()
    config.heap_size_mb = 8
    config.num_heaps = 2
    config.warmup_sizes = [2]
    pool = MetalMemoryPool(config)
    keep = [pool.allocate(size * MIB) for size in (4, 2, 12)]
    pool.allocate(MIB).release()
    names = {"pool": pool, "config": config, "stats": pool.get_statistics(), "size": MIB}

    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(block.read_text(encoding="utf-8"), block, "exec"), names)
    assert output.getvalue().splitlines() == EXPECTED[block.name[:2]]
    assert pool.get_statistics().active_allocations == len(keep)
