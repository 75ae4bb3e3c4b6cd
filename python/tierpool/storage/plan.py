"""A plan: which tensor lives where, what that costs, how fast it should be, and why. Values only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierpool.storage.roles import Role

Mode = Literal["resident", "experts", "layers"]
Tier = Literal["ram", "nvme"]


@dataclass(frozen=True)
class Placement:
    """Where one tensor lives: in memory for good, or on disk and in a slot while it is used."""

    name: str
    role: Role
    size_bytes: int
    tier: Tier


@dataclass(frozen=True)
class Budget:
    """Memory by purpose.

    Attributes
    ----------
    limit_bytes : int
        What the whole process may hold.
    source : str
        Where the limit comes from.
    purposes : mapping of str to int
        Bytes for each purpose; their sum never exceeds the limit.
    """

    limit_bytes: int
    source: str
    purposes: Mapping[str, int]

    @property
    def planned_bytes(self) -> int:
        """All purposes together."""
        return sum(self.purposes.values())

    @property
    def unused_bytes(self) -> int:
        """What no purpose needs."""
        return self.limit_bytes - self.planned_bytes


@dataclass(frozen=True)
class Estimate:
    """What one generated token costs at a short context.

    Attributes
    ----------
    hit_rate : float
        Share of the used experts expected in a slot already; 1.0 where nothing is cached.
    read_bytes, worst_read_bytes : int
        Bytes read from disk for a token: expected, and if every use missed.
    computed_bytes : int
        Bytes of weights that the token's arithmetic reads from memory.
    tokens_per_second : float
        Expected speed.
    bound : str
        What limits it: ``disk`` or ``memory bandwidth``.
    """

    hit_rate: float
    read_bytes: int
    worst_read_bytes: int
    computed_bytes: int
    tokens_per_second: float
    bound: str


@dataclass(frozen=True)
class Plan:
    """How a model will be run.

    Attributes
    ----------
    mode : str
        ``resident``: all in memory, nothing in the way. ``experts``: experts come and go through a cache of slots.
        ``layers``: the dense FFNs that are not in memory go around a ring of slots.
    stop_node : str
        The graph's node, without its layer's number, at which the engine stops; empty in mode ``resident``.
    units, slots, slot_bytes, ring_depth : int
        Streamed units of the model; slots for them, and the size of each; in mode ``layers`` the slots are the ring.
    mappings : int
        Mappings of memory that this needs at most.
    n_ubatch, threads, context : int
        Tokens of a prompt computed together, threads, positions.
    flash_attention, extra_buffers : bool
        The engine's settings; equal settings give equal logits.
    repacked_bytes : int
        Weights that the engine may hold as copies of its own layout, so that they count as anonymous memory.
    reasons : tuple of str
        Why it is so, a sentence each.
    """

    path: str
    architecture: str
    mode: Mode
    stop_node: str
    units: int
    slots: int
    slot_bytes: int
    ring_depth: int
    mappings: int
    n_ubatch: int
    threads: int
    context: int
    flash_attention: bool
    kv_type: str
    extra_buffers: bool
    repacked_bytes: int
    budget: Budget
    estimate: Estimate
    placements: tuple[Placement, ...]
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it; the budget with its sums."""
        values = asdict(self)
        values["budget"]["purposes"] = dict(self.budget.purposes)
        values["budget"] |= {"planned_bytes": self.budget.planned_bytes, "unused_bytes": self.budget.unused_bytes}
        values["placements"] = [{**asdict(placed), "role": placed.role.value} for placed in self.placements]
        return values
