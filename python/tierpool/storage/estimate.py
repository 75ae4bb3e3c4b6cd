"""How fast a plan should be: bytes read from disk and from memory for each generated token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from tierpool.storage.plan import Estimate
from tierpool.storage.roles import Role, role_of

if TYPE_CHECKING:
    from tierpool.storage.gguf import Model
    from tierpool.storage.hyperparameters import Hyperparameters
    from tierpool.storage.profile import Profile

ROUTING_SKEW: Final = 2.4
"""How unevenly experts are used, as `expected_hit_rate` takes it; 1 would be evenly."""


def expected_hit_rate(cached_share: float) -> float:
    """Guess the hit rate of a cache that holds this share of all experts.

    The curve goes through what a skewed router without locality in time gave (0.50 at 25 %, 0.78 at 45 %, 0.91 at 66 %
    of the experts); real models lie above it. It is a guess until the model has run; statistics then tell.
    """
    return 1.0 - math.pow(1.0 - cached_share, ROUTING_SKEW)


def computed_bytes(model: Model, sizes: Hyperparameters) -> int:
    """Bytes of weights that one token's arithmetic reads."""
    tied = not any(role_of(tensor.name) is Role.OUTPUT for tensor in model.tensors)
    total = 0
    for tensor in model.tensors:
        role = role_of(tensor.name)
        if role is Role.EXPERT and sizes.experts:
            total += tensor.size_bytes * sizes.used_experts // sizes.experts
        elif role is not Role.EMBEDDING or tied:  # one row of the embedding, unless it is the output as well
            total += tensor.size_bytes
    return total


def estimate(  # noqa: PLR0913  (one argument a quantity)
    profile: Profile, computed: int, *, hit_rate: float, read_bytes: int, worst_read_bytes: int, overlapped: bool
) -> Estimate:
    """Put a token's reads and arithmetic together; `overlapped` when the next layer is read during the arithmetic."""
    disk = max(1.0, profile.read_bytes_per_second, profile.read_bytes_per_second_single)
    disk_seconds = read_bytes / disk
    memory_seconds = computed / max(1.0, profile.memory_bytes_per_second)
    seconds = max(disk_seconds, memory_seconds) if overlapped else disk_seconds + memory_seconds
    return Estimate(
        hit_rate=hit_rate,
        read_bytes=read_bytes,
        worst_read_bytes=worst_read_bytes,
        computed_bytes=computed,
        tokens_per_second=1.0 / seconds if seconds else 0.0,
        bound="disk" if disk_seconds > memory_seconds else "memory bandwidth",
    )
