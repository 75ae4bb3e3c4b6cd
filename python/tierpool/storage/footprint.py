"""What a model needs besides its weights: KV cache, compute buffers, the process around it.

Upper bounds of what llama.cpp reserves. Its buffers reuse memory from operation to operation, so that the most
demanding stage of the graph counts, not their sum; tests compare the bounds with what it reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tierpool.storage.hyperparameters import Hyperparameters

MIB: Final = 1 << 20

MAX_BATCH: Final = 512
"""Tokens of a prompt that llama.cpp computes together unless told otherwise."""

_KV_BYTES = 2  # 16-bit floats, keys and values alike
_FLOAT_BYTES = 4
_CONTEXT_STEP = 256  # llama.cpp rounds the context up to this
_LIBRARY_BYTES = 16 * MIB  # graph, scheduler, threads
_VOCABULARY_ENTRY_BYTES = 320  # token, its hash entries and its merges
_COMPUTE_BASE_BYTES = 8 * MIB


@dataclass(frozen=True)
class Footprint:
    """Bytes that stay the same whatever is streamed, and those that grow with each token of a batch."""

    library_bytes: int
    kv_bytes: int
    compute_base_bytes: int
    compute_token_bytes: int

    def compute_bytes(self, n_ubatch: int) -> int:
        """Size of the compute buffers when `n_ubatch` tokens are computed together."""
        return self.compute_base_bytes + n_ubatch * self.compute_token_bytes

    def largest_batch(self, compute_bytes: int, limit: int) -> int:
        """How many tokens, from 1 to `limit`, can be computed together in `compute_bytes`."""
        tokens = (compute_bytes - self.compute_base_bytes) // self.compute_token_bytes
        return max(1, min(limit, tokens))


def rounded_context(context: int) -> int:
    """Positions that the KV cache really has."""
    return -(-context // _CONTEXT_STEP) * _CONTEXT_STEP


def estimate_footprint(sizes: Hyperparameters, context: int) -> Footprint:
    """Bound what llama.cpp needs for `context` positions, with flash attention and a 16-bit KV cache."""
    positions = rounded_context(context)
    numbers = max(_attention_numbers(sizes, positions), _feed_forward_numbers(sizes, positions), _output_numbers(sizes))
    # Beside the buffers, the arithmetic converts its widest input to 16-bit floats or less.
    numbers += max(sizes.feed_forward, sizes.attention, sizes.embedding) // 2
    return Footprint(
        library_bytes=_LIBRARY_BYTES + sizes.vocabulary * (_VOCABULARY_ENTRY_BYTES + _FLOAT_BYTES),
        kv_bytes=positions * sizes.kv_width * _KV_BYTES,
        compute_base_bytes=_COMPUTE_BASE_BYTES,
        compute_token_bytes=max(1, numbers * _FLOAT_BYTES),
    )


def _mask_numbers(sizes: Hyperparameters, positions: int) -> int:
    return sizes.masks * positions // 2  # 16-bit floats


def _attention_numbers(sizes: Hyperparameters, positions: int) -> int:
    # Hidden state and its norm; queries before and after rotation, keys and values, and the result.
    return 2 * sizes.embedding + 5 * sizes.attention + _mask_numbers(sizes, positions)


def _feed_forward_numbers(sizes: Hyperparameters, positions: int) -> int:
    # Gate, up and their product; or the product and what each expert makes of it.
    wide = max(3 * sizes.feed_forward, sizes.feed_forward + sizes.used_experts * sizes.embedding)
    return 4 * sizes.embedding + wide + 2 * sizes.experts + _mask_numbers(sizes, positions)


def _output_numbers(sizes: Hyperparameters) -> int:
    return sizes.vocabulary + 2 * sizes.embedding
