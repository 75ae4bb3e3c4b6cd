"""What a model needs besides its weights: KV cache, compute buffers, the process around it.

These are upper bounds of what llama.cpp reserves, from the sizes of its graph; `Footprint` is the whole of it.
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
_LIBRARY_BYTES = 32 * MIB  # graph, scheduler, threads
_VOCABULARY_ENTRY_BYTES = 320  # token, its hash entries and its merges
_COMPUTE_BASE_BYTES = 8 * MIB
_EMBEDDING_COPIES = 12  # of the hidden state, alive at once in a layer's attention
_FEED_FORWARD_COPIES = 4  # gate, up, their product, and the same quantised


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
    numbers = (
        sizes.vocabulary
        + _EMBEDDING_COPIES * sizes.embedding
        + _FEED_FORWARD_COPIES * sizes.feed_forward
        + 2 * sizes.experts
        + 2 * positions  # the attention mask, once as 32-bit and once as 16-bit floats, rounded up
    )
    return Footprint(
        library_bytes=_LIBRARY_BYTES + sizes.vocabulary * (_VOCABULARY_ENTRY_BYTES + _FLOAT_BYTES),
        kv_bytes=positions * sizes.kv_width * _KV_BYTES,
        compute_base_bytes=_COMPUTE_BASE_BYTES,
        compute_token_bytes=max(1, numbers * _FLOAT_BYTES),
    )
