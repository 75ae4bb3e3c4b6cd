"""Decode with a Llama of random weights under PyTorch, every tensor in a pool, and say how fast that was.

Run: ``python benchmarks/python/cuda_llama_decode.py [--prompt N] [--tokens N] [--allocator tierpool|torch]``
"""

from __future__ import annotations

import argparse
from typing import Any

from tierpool import MemoryPool
from tierpool.integrations.torch import install

MIB = 2**20


def decode(prompt: int, tokens: int) -> float:
    """Tokens a second, after a warm-up."""
    import torch  # noqa: PLC0415  (after install)

    from cuda_models import Llama, Sequence  # noqa: PLC0415

    torch.manual_seed(1)
    model = Llama()
    Sequence(model, prompt).decode_seconds(8)
    seconds: float = Sequence(model, prompt).decode_seconds(tokens)
    return tokens / seconds


def show(stats: dict[str, Any]) -> None:
    """Print what an allocator counted, under the names that both have."""
    for name in ("allocation.all.allocated", "num_device_alloc", "num_ooms"):
        print(f"{name:<30} {stats[name]:>12,}")
    for name in ("allocated_bytes.all.peak", "reserved_bytes.all.peak"):
        print(f"{name:<30} {stats[name] / MIB:>12,.1f} MiB")


def main() -> None:
    """Decode under the allocator that the command line names."""
    parser = argparse.ArgumentParser(description="Decode with a Llama of random weights under PyTorch.")
    parser.add_argument("--prompt", type=int, default=512, metavar="N")
    parser.add_argument("--tokens", type=int, default=128, metavar="N")
    parser.add_argument("--allocator", choices=("tierpool", "torch"), default="tierpool")
    options = parser.parse_args()
    if options.allocator == "tierpool":
        pool = MemoryPool(device="cuda:0", heap_size_mb=16 * 1024, num_heaps=1, warmup_sizes=[], magazines=False)
        install(pool)
        speed = decode(options.prompt, options.tokens)
        stats: dict[str, Any] = pool.memory_stats()
    else:
        speed = decode(options.prompt, options.tokens)
        import torch  # noqa: PLC0415

        stats = torch.cuda.memory_stats()
    print(f"{options.allocator}: {speed:.1f} tokens a second")
    show(stats)


if __name__ == "__main__":
    main()
