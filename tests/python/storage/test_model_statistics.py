"""What a model counts and measures, with an engine whose counters are known."""

from __future__ import annotations

import sys

import pytest
from fake_engine import UNIT_BYTES, FakeEngine

from tierpool.storage import LanguageModel
from tierpool.storage.model_statistics import StatisticsGatherer


class TestStatistics:
    def test_prompts_and_what_was_generated_are_apart(self) -> None:
        model = LanguageModel(FakeEngine(b"abc"))
        for _ in range(2):
            list(model.generate([1] * 10, temperature=0))
        statistics = model.get_statistics()
        prompt, generation = statistics.prompt, statistics.generation
        assert (prompt.tokens, generation.tokens) == (20, 6)
        assert (prompt.misses, generation.misses) == (20, 6)
        assert generation.requested_bytes == generation.reused_bytes + generation.read_bytes == 24 * UNIT_BYTES
        assert generation.hit_rate == 0.75
        assert generation.bytes_per_token == UNIT_BYTES
        assert generation.stall_ms == 6
        assert generation.read_gb_per_second == pytest.approx(UNIT_BYTES / 2e6)
        assert generation.seconds > 0
        assert generation.tokens_per_second == generation.tokens / generation.seconds
        assert statistics.loaded_bytes == 77

    def test_reading_between_tokens_takes_time_too(self) -> None:
        """A ring reads on while a token is chosen; its bytes count with the token that waits for them."""
        engine = FakeEngine()
        gatherer = StatisticsGatherer(engine)
        for _ in range(4):
            engine.read_between_tokens(read_busy_ns=8_000_000)
            with gatherer.measure("generation", 1):
                engine.evaluate([1])
        generation = gatherer.phase("generation")
        assert (generation.read_bytes, generation.read_busy_ms) == (4 * UNIT_BYTES, 4 * (8 + 2))
        assert generation.read_gb_per_second == pytest.approx(UNIT_BYTES / 10e6)

    def test_memory_is_the_kernels_and_the_budget_the_plans(self) -> None:
        statistics = LanguageModel(FakeEngine()).get_statistics()
        assert statistics.budget_bytes == 1 << 30
        assert statistics.peak_bytes >= statistics.anonymous_bytes + statistics.shared_bytes
        if sys.platform == "linux":
            assert statistics.anonymous_bytes > 1 << 20

    def test_before_anything_rates_are_zero(self) -> None:
        values = LanguageModel(FakeEngine()).get_statistics().to_dict()
        for phase in ("prompt", "generation"):
            assert set(values[phase].values()) == {0}
        assert set(values["generation"]) > {"tokens_per_second", "hit_rate", "bytes_per_token", "read_gb_per_second"}

    def test_layers(self) -> None:
        model = LanguageModel(FakeEngine(b"a"))
        list(model.generate([1], temperature=0))
        (layer,) = model.get_layer_statistics()
        assert (layer.hits, layer.misses, layer.read_bytes, layer.stall_ms) == (6, 2, 2 * UNIT_BYTES, 2.0)
