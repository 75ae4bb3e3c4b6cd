"""What a plan is asked for, and what follows from that whatever is streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tierpool._core import SPARE_MAPPINGS
from tierpool.storage.errors import PlanError
from tierpool.storage.footprint import MAX_BATCH, MIB, Footprint

if TYPE_CHECKING:
    from tierpool.storage.gguf import Model
    from tierpool.storage.hyperparameters import Hyperparameters
    from tierpool.storage.profile import Profile
    from tierpool.storage.streaming import Streaming

MARGIN_BYTES: Final = 64 * MIB
"""Kept free for what no estimate foresees."""

PROCESS_STEP_BYTES: Final = 8 * MIB
"""A process counts in steps, so that what is planned for one suffices for the next, which never holds just the same."""

MIN_IN_FLIGHT: Final = 4
"""Slots beyond those of the running layer, so that reads can be under way."""

MAPPINGS_KEPT: Final = 2 * SPARE_MAPPINGS
"""Mappings left to what else the process maps: while it loads the model, and as many that the core then keeps free."""

COMPUTE_SHARE: Final = 16
"""At most one part in this many of the memory above the minimum goes into larger batches."""


@dataclass(frozen=True)
class Request:
    """A model, a machine, a budget, and settings."""

    model: Model
    sizes: Hyperparameters
    profile: Profile
    footprint: Footprint
    budget_bytes: int
    budget_source: str
    context: int
    threads: int

    @property
    def batch_limit(self) -> int:
        """The most tokens that are computed together."""
        return min(MAX_BATCH, self.context)

    @property
    def process_bytes(self) -> int:
        """The process itself, with the library that computes."""
        limits = self.profile.limits
        imported_bytes = limits.process_bytes + limits.import_bytes
        return -(-imported_bytes // PROCESS_STEP_BYTES) * PROCESS_STEP_BYTES + self.footprint.library_bytes

    @property
    def fixed_bytes(self) -> int:
        """What is needed whatever is streamed, with batches of one token."""
        return self.process_bytes + self.footprint.kv_bytes + self.footprint.compute_bytes(1) + MARGIN_BYTES

    @property
    def mappings(self) -> int:
        """How many mappings the model's files may take."""
        limits = self.profile.limits
        return limits.max_mappings - limits.used_mappings - MAPPINGS_KEPT

    def require_mappings(self, needed: int) -> None:
        """Raise `PlanError` when the files need more."""
        if needed <= self.mappings:
            return
        available = self.profile.limits.max_mappings
        total = available - self.mappings + needed
        raise PlanError(
            f"{self.model.path} needs {total} mappings of memory, vm.max_map_count is {available}; "
            f"raise it: sysctl -w vm.max_map_count={total}",
            resource="mappings",
            needed=total,
            available=available,
        )

    @property
    def batch_bytes(self) -> int:
        """What the largest batches add to that."""
        return self.footprint.compute_bytes(self.batch_limit) - self.footprint.compute_bytes(1)

    @property
    def resident_bytes(self) -> int:
        """The least with all weights in memory."""
        return self.fixed_bytes + self.model.weight_bytes

    def streaming_bytes(self, streaming: Streaming) -> int:
        """The least with units streamed."""
        return (
            self.fixed_bytes
            + streaming.resident_bytes
            + streaming.edge_bytes
            + self.least_slots(streaming) * streaming.slot_bytes
        )

    def least_slots(self, streaming: Streaming) -> int:
        """The fewest slots that work: one token's experts of a layer and reads under way, or a ring of one layer."""
        if streaming.mode == "layers":
            return 1
        return min(len(streaming.units), self.sizes.used_experts + MIN_IN_FLIGHT)

    def batch_reserve(self, above_bytes: int) -> int:
        """How much of the memory above the minimum is set aside for larger batches.

        It grows with that memory and by less than it, so that more memory never means fewer slots.
        """
        return min(self.batch_bytes, above_bytes // COMPUTE_SHARE)

    def largest_batch(self, spare_bytes: int) -> int:
        """How many tokens fit into the buffers of one token and `spare_bytes`."""
        return self.footprint.largest_batch(self.footprint.compute_bytes(1) + spare_bytes, self.batch_limit)


def in_mib(size_bytes: int) -> str:
    """Show bytes in whole MiB, rounded up."""
    return f"{-(-size_bytes // MIB):,} MiB"
