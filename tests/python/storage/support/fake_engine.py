"""An engine without a model: it says what it was told to say, and counts what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierpool import CancelledError
from tierpool.storage.engine import EngineCounters, LayerCounters
from tierpool.storage.plan import Budget, Estimate, Plan

END = 256  # after all bytes
BEGIN = 257
VOCABULARY_SIZE = 258
UNIT_BYTES = 1000


def make_plan(context: int = 64) -> Plan:
    return Plan(
        path="fake.gguf",
        architecture="fake",
        mode="experts",
        stop_node="ffn_moe_topk",
        units=8,
        slots=4,
        slot_bytes=UNIT_BYTES,
        ring_depth=0,
        mappings=0,
        n_ubatch=16,
        threads=1,
        context=context,
        flash_attention=True,
        kv_type="F16",
        extra_buffers=False,
        repacked_bytes=0,
        budget=Budget(1 << 30, "test", {}),
        estimate=Estimate(0.5, 0, 0, 0, 1.0, "disk"),
        placements=(),
        reasons=(),
    )


class FakeEngine:
    """After a prompt it continues with `answer`; a token is a byte, and `END` ends. Every token misses one unit."""

    def __init__(self, answer: bytes = b"", *, context: int = 64, metadata: Mapping[str, str] | None = None) -> None:
        self.plan = make_plan(context)
        self.metadata: Mapping[str, str] = metadata or {}
        self.vocabulary_size = VOCABULARY_SIZE
        self.closes = 0
        self.evaluated: list[list[int]] = []
        self.before_cancels_are_forgotten: Callable[[], None] = lambda: None
        self.before_evaluation: Callable[[int], None] = lambda _count: None
        self._answer = [*answer, END]
        self._kept: list[int] = []
        self._cancelled = threading.Event()
        self._counters = EngineCounters(0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 1 << 30)

    @property
    def position(self) -> int:
        return len(self._kept)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        assert parse_special
        return [BEGIN] * add_special + list(text.encode())

    def detokenize(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""

    def token_text(self, token: int) -> str:
        return {END: "</s>", BEGIN: "<s>"}[token]

    def is_end(self, token: int) -> bool:
        return token == END

    def evaluate(self, tokens: Sequence[int], cancelled: threading.Event | None = None) -> NDArray[np.float32]:
        assert not self.closes
        assert len(tokens) + len(self._kept) <= self.plan.context
        self.before_cancels_are_forgotten()
        self._cancelled.clear()
        if cancelled is not None and cancelled.is_set():
            raise CancelledError("cancelled")
        self.evaluated.append(list(tokens))
        self.before_evaluation(len(self.evaluated))
        if self._cancelled.is_set():
            raise CancelledError("cancelled")
        self._kept += tokens
        self._count(len(tokens))
        logits = np.full(VOCABULARY_SIZE, -20, np.float32)
        logits[self._answer[min(len(self.evaluated) - 1, len(self._answer) - 1)]] = 20
        return logits

    def _count(self, tokens: int) -> None:
        now = self._counters
        self._counters = replace(
            now,
            hits=now.hits + 3 * tokens,
            misses=now.misses + tokens,
            requested_bytes=now.requested_bytes + 4 * UNIT_BYTES * tokens,
            reused_bytes=now.reused_bytes + 3 * UNIT_BYTES * tokens,
            read_bytes=now.read_bytes + UNIT_BYTES * tokens,
            stall_ns=now.stall_ns + 1_000_000 * tokens,
            read_busy_ns=now.read_busy_ns + 2_000_000 * tokens,
        )

    def read_between_tokens(self, read_busy_ns: int) -> None:
        """Read ahead, as a ring does when a token has been computed."""
        self._counters = replace(self._counters, read_busy_ns=self._counters.read_busy_ns + read_busy_ns)

    def truncate(self, position: int) -> None:
        del self._kept[position:]
        if position == 0:
            self.evaluated.clear()

    def cancel(self) -> None:
        self._cancelled.set()

    def get_counters(self) -> EngineCounters:
        return self._counters

    def get_layer_counters(self) -> list[LayerCounters]:
        now = self._counters
        return [LayerCounters(0, now.hits, now.misses, now.read_bytes, now.stall_ns / 1e6)]

    def close(self) -> None:
        self.closes += 1
