"""What computes: an engine turns tokens into logits within a plan's memory. Values and an interface, no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from threading import Event

    import numpy as np
    from numpy.typing import NDArray

    from tierpool.storage.plan import Plan


@dataclass(frozen=True)
class LayerCounters:
    """What one layer asked of its slots so far.

    Attributes
    ----------
    layer : int
        Its number in the model.
    hits, misses, read_bytes
        As `EngineCounters` counts them.
    stall_ms : float
        Time in which computing waited for its reads.
    """

    layer: int
    hits: int
    misses: int
    read_bytes: int
    stall_ms: float


@dataclass(frozen=True)
class EngineCounters:
    """Counters since load; a snapshot.

    Attributes
    ----------
    hits, misses : int
        Units that were in memory when a layer asked for them, and those that were not: one for each token, layer and
        expert, decided before anything is loaded for it; or one for each batch and dense layer that goes around.
    requested_bytes, reused_bytes, read_bytes : int
        Bytes of the units asked for, of those that stayed in memory since they were read for something else, and bytes
        that came from the files for units.
    loaded_bytes : int
        Bytes read while loading: what stays in memory, and experts to fill the slots with.
    stall_ns : int
        Time in which computing waited for reads.
    read_busy_ns : int
        Time in which at least one read was under way.
    buffered_files : int
        Files that cannot be read past the page cache, which is slower.
    used_bytes, peak_bytes, limit_bytes : int
        Of the plan's budget: what is taken now, the most that was, and the limit.
    """

    hits: int
    misses: int
    requested_bytes: int
    reused_bytes: int
    read_bytes: int
    loaded_bytes: int
    stall_ns: int
    read_busy_ns: int
    buffered_files: int
    used_bytes: int
    peak_bytes: int
    limit_bytes: int


class Engine(Protocol):
    """A loaded model. One call at a time, except `cancel`, `get_counters` and `get_layer_counters`."""

    @property
    def plan(self) -> Plan:
        """What it was loaded by."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata, scalars as text: the chat template among them."""

    @property
    def vocabulary_size(self) -> int:
        """Logits per position."""

    @property
    def position(self) -> int:
        """Tokens evaluated and kept."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Cut a text into tokens; with the marks that begin a text, and with marks in the text read as such."""

    def detokenize(self, token: int) -> bytes:
        """Bytes of a token; perhaps a part of a character, perhaps none."""

    def token_text(self, token: int) -> str:
        """How the vocabulary writes a token, control tokens too, which `detokenize` leaves out."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""

    def evaluate(self, tokens: Sequence[int], cancelled: Event | None = None) -> NDArray[np.float32]:
        """Compute the next positions and return the last one's logits, a copy of shape ``(vocabulary_size,)``.

        Parameters
        ----------
        tokens : sequence of int
            What stands at these positions.
        cancelled : threading.Event, optional
            Set by who cancels, before `cancel` is called: so a cancel that comes just before this call is not lost.

        Raises
        ------
        ReadError
            When weights did not arrive; `position` is what it was, and the engine goes on working.
        CancelledError
            After `cancel`, or when `cancelled` is set; likewise.
        ValueError
            When there are no tokens, or more than `plan.context` has room for.
        """

    def truncate(self, position: int) -> None:
        """Forget the positions from `position` on."""

    def cancel(self) -> None:
        """End the evaluation under way, from any thread; without one, nothing happens."""

    def get_counters(self) -> EngineCounters:
        """Everything counted so far."""

    def get_layer_counters(self) -> list[LayerCounters]:
        """The same requests by layer; empty where nothing is streamed."""

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
