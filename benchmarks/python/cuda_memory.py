"""Device memory that PyTorch workloads reserve, and their speed: in a pool by `install()` and by PyTorch itself.

A figure is (reserved - base) / (live peak - base): base is what the model holds before the work, live peak the most
that tensors asked for at once, reserved the most that the allocator held of the device during the work, after it gave
back what it had free before. Base and peak are PyTorch's own counts of requested bytes, the same for all, because the
work is the same; each contender runs in a process of its own.

The pool runs without magazines, with magazines of 16 MiB a thread, and with those it has by default: what they park
cannot become a larger block, and PyTorch asks for many sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from measure import Row, main, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAP_MB = 96 * 1024
ENVIRONMENTS = {"torch-expandable-segments": {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}}
POOLS: dict[str, dict[str, Any]] = {
    "tierpool": {"magazines": False},
    "tierpool-16MiB-magazines": {"magazine_thread_bytes": "16MiB"},
    "tierpool-default-magazines": {},
}
CONTENDERS = ("torch", "torch-expandable-segments", *POOLS)
DECODE_TOKENS = 128
DECODE_PAIRS = 5
MIB = 2**20


class Meter:
    """What an allocator holds: PyTorch's, or a pool in its place."""

    def __init__(self, contender: str) -> None:
        self.pool: Any = None
        if contender in POOLS:
            from tierpool import MemoryPool  # noqa: PLC0415  (the contender's only)
            from tierpool.integrations.torch import install  # noqa: PLC0415

            settings = POOLS[contender]
            self.pool = MemoryPool(device="cuda:0", heap_size_mb=HEAP_MB, num_heaps=1, warmup_sizes=[], **settings)
            install(self.pool)

    def begin(self) -> None:
        """Begin the measured work."""
        import torch  # noqa: PLC0415  (after install)

        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # trims a pool
        if self.pool is None:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.pool.reset_statistics()

    def figures(self) -> dict[str, int]:
        """Reserved bytes, and for PyTorch also the requested bytes now and at their peak."""
        import torch  # noqa: PLC0415

        stats = torch.cuda.memory_stats() if self.pool is None else self.pool.memory_stats()
        reserved = {"reserved": stats["reserved_bytes.all.peak"]}
        if self.pool is not None:
            return reserved
        return {
            **reserved,
            "now": stats["requested_bytes.all.current"],
            "peak": stats["requested_bytes.all.peak"],
        }


def run_workload(name: str, contender: str) -> dict[str, float]:
    """Run one in this process."""
    meter = Meter(contender)
    import torch  # noqa: PLC0415  (after install)

    from cuda_models import WORKLOADS  # noqa: PLC0415

    torch.manual_seed(1)
    workload = WORKLOADS[name]()
    workload.prepare()
    meter.begin()
    base = meter.figures().get("now", 0)
    start = time.perf_counter()
    workload.run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {**meter.figures(), "base": base, "seconds": seconds}


def run_decode(contender: str) -> dict[str, float]:
    """Tokens a second of one sequence, after a warm-up."""
    Meter(contender)
    import torch  # noqa: PLC0415  (after install)

    from cuda_models import Llama, decode_seconds  # noqa: PLC0415

    torch.manual_seed(1)
    model = Llama()
    decode_seconds(model, 512, 16)
    return {"tokens_per_second": DECODE_TOKENS / decode_seconds(model, 512, DECODE_TOKENS)}


def in_own_process(*arguments: str) -> dict[str, float]:
    """Run this program for one figure."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTORCH_")}
    environment |= ENVIRONMENTS.get(arguments[-1], {})
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, __file__, "--one", *arguments, "--result", str(result)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-3000:]}")
        figures: dict[str, float] = json.loads(result.read_text())
    return figures


def memory_rows(name: str) -> Iterator[Row]:
    """One workload by every contender."""
    found = {contender: in_own_process(name, contender) for contender in CONTENDERS}
    base, peak = found["torch"]["base"], found["torch"]["peak"]
    note = f"base {base / MIB:,.0f} MiB, live peak {peak / MIB:,.0f} MiB"
    for contender, figures in found.items():
        ratio = (figures["reserved"] - base) / (peak - base)
        more = f"{note}; reserved {figures['reserved'] / MIB:,.0f} MiB"
        yield Row(f"cuda/reserved-{name}/{contender}", ratio, "reserved / live peak", 1, 0.0, more)
    for contender, figures in found.items():
        yield Row(f"cuda/reserved-bytes-{name}/{contender}", figures["reserved"] / MIB, "MiB", 1)
    for contender, figures in found.items():
        yield Row(f"cuda/seconds-{name}/{contender}", figures["seconds"], "s", 1)


def decode_rows(repetitions: int) -> list[Row]:
    """Tokens a second, in pairs."""
    samples: dict[str, list[float]] = {contender: [] for contender in (*POOLS, "torch")}
    for _ in range(min(repetitions, DECODE_PAIRS)):
        for contender, figures in samples.items():
            figures.append(in_own_process("decode", contender)["tokens_per_second"])
    rows = [
        Row(f"cuda/llama-decode/{contender}", median(figures), "tok/s", len(figures), spread(figures))
        for contender, figures in samples.items()
    ]
    for contender in POOLS:
        ratios = [ours / theirs for ours, theirs in zip(samples[contender], samples["torch"], strict=True)]
        rows.append(
            Row(f"cuda/llama-decode-ratio/{contender}", median(ratios), "x", len(ratios), spread(ratios), "of torch")
        )
    return rows


def all_rows(repetitions: int) -> Iterator[Row]:
    """Run everything."""
    yield from decode_rows(repetitions)
    for name in ("llama-serving-mix", "moe-prefill", "gpt2-training"):
        yield from memory_rows(name)


def one() -> None:
    """Run one workload for one contender, as `in_own_process` asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    name, contender = options.one
    figures = run_decode(contender) if name == "decode" else run_workload(name, contender)
    options.result.write_text(json.dumps(figures))


if __name__ == "__main__":
    if "--one" in sys.argv:
        one()
    else:
        main("Device memory that PyTorch workloads reserve.", all_rows)
