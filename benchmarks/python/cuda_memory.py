"""Device memory that PyTorch workloads reserve, and their speed: in a pool by `install()` and by PyTorch itself.

A figure is (reserved - base) / (live peak - base): base is what the model holds before the work, live peak the most
that tensors asked for at once, reserved the most that the allocator held of the device during the work, after it gave
back what it had free before. Base and peak are PyTorch's own counts of requested bytes, the same for all, because the
work is the same; each contender runs in a process of its own.

The pool runs without magazines, and with those it has by default: what they park cannot become a larger block, and
PyTorch asks for many sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
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
    "tierpool-default-magazines": {},
}
CONTENDERS = ("torch", "torch-expandable-segments", *POOLS)
DECODE_PAIRS = 5
# Of a pair, contenders take short turns on the same processors: a machine that others use as well is slower now and
# then, and not everywhere alike.
TURNS = 24
TURN_TOKENS = 8
PROMPT_TOKENS = 512
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


def serve_decode(contender: str) -> None:
    """Answer each line of the input by the tokens a second of the next few of a sequence."""
    Meter(contender)
    import torch  # noqa: PLC0415  (after install)

    from cuda_models import Llama, Sequence  # noqa: PLC0415

    torch.manual_seed(1)
    model = Llama()
    sequence = Sequence(model, PROMPT_TOKENS)
    for _ in sys.stdin:
        if sequence.length == TURNS * TURN_TOKENS:
            sequence = Sequence(model, PROMPT_TOKENS)
        print(TURN_TOKENS / sequence.decode_seconds(TURN_TOKENS), flush=True)


class Decoder:
    """A process that decodes whenever it is asked: its start and its model's are not paid for each figure."""

    def __init__(self, contender: str) -> None:
        command = [sys.executable, __file__, "--one", "decode", contender]
        self._process = subprocess.Popen(
            command, env=environment_of(contender), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tokens_per_second(self) -> float:
        """Decode once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("decode\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that decodes ended with {self._process.wait()}")
        return float(answer)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def environment_of(contender: str) -> dict[str, str]:
    """What a contender's process sees."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTORCH_")}
    return inherited | ENVIRONMENTS.get(contender, {})


def in_own_process(*arguments: str) -> dict[str, float]:
    """Run this program for one figure."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, __file__, "--one", *arguments, "--result", str(result)]
        done = subprocess.run(command, env=environment_of(arguments[-1]), capture_output=True, text=True, check=False)
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


def take_turns(ours: Decoder, theirs: Decoder) -> dict[str, float]:
    """The medians of each one's turns, and of the ratios of turns that follow one another."""
    turns: dict[str, list[float]] = {"tierpool": [], "torch": [], "ratio": []}
    for turn in range(TURNS):
        first, second = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        speeds = {first: first.tokens_per_second(), second: second.tokens_per_second()}
        turns["tierpool"].append(speeds[ours])
        turns["torch"].append(speeds[theirs])
        turns["ratio"].append(speeds[ours] / speeds[theirs])
    return {name: median(figures) for name, figures in turns.items()}


def decode_rows() -> Iterator[Row]:
    """Tokens a second, in pairs: both decode the same lengths in turn, none while the other does."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-2:])
    with closing(Decoder("tierpool")) as ours, closing(Decoder("torch")) as theirs:
        pairs = [take_turns(ours, theirs) for _ in range(DECODE_PAIRS + 1)][1:]
    for name in ("tierpool", "torch"):
        figures = [pair[name] for pair in pairs]
        yield Row(f"cuda/llama-decode/{name}", median(figures), "tok/s", len(figures), spread(figures))
    ratios = [pair["ratio"] for pair in pairs]
    yield Row("cuda/llama-decode-ratio/tierpool", median(ratios), "x", len(ratios), spread(ratios), "of torch")


def all_rows(_repetitions: int) -> Iterator[Row]:
    """Run everything."""
    for name in ("llama-serving-mix", "moe-prefill", "gpt2-training"):
        yield from memory_rows(name)
    yield from decode_rows()  # the last, as it stays on two processors


def one() -> None:
    """Run one workload for one contender, as `in_own_process` and `Decoder` ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    name, contender = options.one
    if name == "decode":
        serve_decode(contender)
    else:
        options.result.write_text(json.dumps(run_workload(name, contender)))


if __name__ == "__main__":
    if "--one" in sys.argv:
        one()
    else:
        main("Device memory that PyTorch workloads reserve.", all_rows)
