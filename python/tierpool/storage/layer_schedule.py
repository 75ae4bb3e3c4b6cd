"""Which dense layers stay in memory, and the ring that the others go around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierpool.storage.units import Part, Unit

BEST_RING_DEPTH: Final = 3
"""One layer in use, one ready, one being read."""


@dataclass(frozen=True)
class LayerSchedule:
    """What stays, and what goes around.

    Attributes
    ----------
    pinned_names : frozenset of str
        Tensors of dense FFNs that stay in memory.
    pinned_bytes : int
        Their whole pages.
    ring_depth, slot_bytes : int
        Slots of the ring, and the size of each.
    streamed_layers, streamed_bytes : int
        Layers of which some part goes around, and the size of all such parts.
    """

    pinned_names: frozenset[str]
    pinned_bytes: int
    ring_depth: int
    slot_bytes: int
    streamed_layers: int
    streamed_bytes: int

    @property
    def ring_bytes(self) -> int:
        """All slots together."""
        return self.ring_depth * self.slot_bytes

    @property
    def size_bytes(self) -> int:
        """Memory that it needs."""
        return self.pinned_bytes + self.ring_bytes

    @property
    def read_bytes(self) -> int:
        """Bytes read for a token: nothing once every streamed layer has a slot of its own."""
        return self.streamed_bytes if self.streamed_layers > self.ring_depth else 0


def schedule_layers(units: Sequence[Unit], memory_bytes: int) -> LayerSchedule:
    """Fill `memory_bytes`, which must hold the largest unit, with a ring and pinned tensors.

    The ring comes first, up to its best depth; then tensors are pinned one by one, in an order whose every beginning is
    spread over the model, so that the disk finds time to read between streamed layers. Tensors rather than layers are
    pinned, so that hardly any memory stays unused.
    """
    best_depth = min(BEST_RING_DEPTH, len(units))
    affordable = (depth for depth in range(best_depth, 1, -1) if _pin(units, (), depth).size_bytes <= memory_bytes)
    depth = next(affordable, 1)
    unpinned = _pin(units, (), depth)
    if depth < best_depth:
        return unpinned
    order = [part for unit in spread(units) for part in unit.parts]
    # A later schedule may be smaller than an earlier one, because slots shrink with the last whole layer: from the end.
    for count in range(len(order) - 1, 0, -1):
        schedule = _pin(units, order[:count], depth)
        if schedule.size_bytes <= memory_bytes:
            return schedule
    return unpinned


def spread(units: Sequence[Unit]) -> list[Unit]:
    """Order units so that the first few, however many, lie far apart: by their index with its bits reversed."""
    bits = max(1, (len(units) - 1).bit_length())
    return [units[index] for index in sorted(range(len(units)), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))]


def _pin(units: Sequence[Unit], pinned: Sequence[Part], depth: int) -> LayerSchedule:
    names = frozenset(part.tensor_name for part in pinned)
    streamed = [sum(part.size_bytes for part in unit.parts if part.tensor_name not in names) for unit in units]
    layers = sum(1 for size in streamed if size)
    return LayerSchedule(
        pinned_names=names,
        pinned_bytes=sum(part.size_bytes for part in pinned),
        ring_depth=min(depth, layers),
        slot_bytes=max(streamed),
        streamed_layers=layers,
        streamed_bytes=sum(streamed),
    )
