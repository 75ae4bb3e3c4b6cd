"""Configuration: names, forms and values, and every refusal."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierpool
from tierpool import ConfigError, MemoryPool, PoolConfig

SMALL: dict[str, Any] = {"heap_size_mb": 1, "num_heaps": 1, "warmup_sizes": []}
DOCUMENTED = {
    "enabled": True,
    "heap_size_mb": 256,
    "num_heaps": 4,
    "warmup_sizes": [32, 128, 512],
    "track_statistics": True,
    "log_exhaustion": True,
    "strategy": "round-robin",
    "placement": "good-fit",
    "on_exhaustion": "fallback",
    "max_bytes": None,
    "magazines": True,
    "exact_above": 1 << 20,
    "magazine_thread_bytes": None,
    "magazine_total_bytes": None,
    "track_origins": False,
    "device": "host",
    "dynamic_growth": False,
    "max_heaps": None,
    "growth_trigger": 0.9,
    "compaction": {"enabled": False, "threshold": 0.5, "interval_ms": 60000},
}


def small_config(**settings: Any) -> PoolConfig:
    return PoolConfig(**{**SMALL, **settings})


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "runtime.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def in_guide_shape(memory_pool: str) -> str:
    return f"metal_optimizations: {{enabled: true, memory_pool: {memory_pool}}}"


def test_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(PoolConfig()) == DOCUMENTED


def test_every_field_can_be_given_and_set() -> None:
    config = PoolConfig(heap_size_mb=8, num_heaps=2)
    config.warmup_sizes = [4]
    config.track_statistics = False
    assert (config.heap_size_mb, config.num_heaps, config.warmup_sizes) == (8, 2, [4])
    assert not config.track_statistics


def test_configs_do_not_share_lists() -> None:
    first, second = PoolConfig(), PoolConfig()
    first.warmup_sizes.append(1)
    first.compaction["threshold"] = 0.7
    assert second == PoolConfig()


def test_equality_copy_and_replace() -> None:
    config = PoolConfig(num_heaps=2)
    assert copy.deepcopy(config) == config
    assert dataclasses.replace(config, num_heaps=4) == PoolConfig()
    assert config != PoolConfig()


@pytest.mark.parametrize(
    ("size", "megabytes"),
    [
        (1, 1),
        (0.5, 0.5),
        (np.int32(2), 2),
        (np.float32(1.5), 1.5),
        ("1MiB", 1),
        ("1 MB", 1),
        ("1.5mb", 1.5),
        ("2048KiB", 2),
        ("0.002GB", 2 * 1024 / 1000),
        ("1048576B", 1),
    ],
)
def test_size_forms(size: Any, megabytes: float) -> None:
    pool = MemoryPool(**{**SMALL, "heap_size_mb": size})
    assert pool.config.heap_size_mb == pytest.approx(megabytes, abs=1e-6)
    assert pool.get_statistics().total_capacity_mb == pytest.approx(megabytes, abs=256 / 2**20)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("heap_size_mb", True),
        ("heap_size_mb", None),
        ("heap_size_mb", [256]),
        ("heap_size_mb", 1j),
        ("num_heaps", 2.0),
        ("num_heaps", True),
        ("num_heaps", "4"),
        ("warmup_sizes", 32),
        ("warmup_sizes", "32"),
        ("warmup_sizes", {"a": 1}),
        ("warmup_sizes", [True]),
        ("track_statistics", 1),
        ("log_exhaustion", "yes"),
        ("enabled", None),
        ("strategy", 1),
        ("placement", None),
        ("on_exhaustion", True),
        ("device", 0),
        ("max_bytes", 1.5),
        ("max_bytes", True),
        ("growth_trigger", "high"),
        ("max_heaps", "8"),
        ("compaction", True),
        ("compaction", {"enabled": 1}),
    ],
)
def test_wrong_types(key: str, value: Any) -> None:
    with pytest.raises(TypeError, match=key):
        MemoryPool(**{**SMALL, key: value})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("heap_size_mb", 0, "above 0, got 0"),
        ("heap_size_mb", -256, "above 0, got -256"),
        ("heap_size_mb", float("nan"), "finite"),
        ("heap_size_mb", float("inf"), "finite"),
        ("heap_size_mb", 2**50, r"2\*\*63"),
        ("heap_size_mb", 0.0001, "at least 256 bytes"),
        ("heap_size_mb", 2**30, "has .* in all; make heap_size_mb smaller"),
        ("heap_size_mb", "256", "write it with a unit, such as '256MiB'"),
        ("heap_size_mb", "many", "write it with a unit"),
        ("heap_size_mb", "-1MB", "write it with a unit"),
        ("num_heaps", 0, "at least 1, got 0; set enabled to false"),
        ("num_heaps", -1, "at least 1"),
        ("num_heaps", 2**40, "below"),
        ("warmup_sizes", [16, 0], r"warmup_sizes\[1\] must be above 0"),
        ("warmup_sizes", ["x"], r"warmup_sizes\[0\]"),
        ("strategy", "bestfit", "unknown strategy 'bestfit': did you mean 'best-fit'"),
        ("placement", "goodfit", "unknown placement 'goodfit': did you mean 'good-fit'"),
        ("on_exhaustion", "fall-back", "did you mean 'fallback'"),
        ("device", "hots", "unknown device 'hots': did you mean 'host'"),
        ("device", "metal", "not available in this version: choose 'host'"),
        ("max_bytes", 0, "above 0"),
        ("max_bytes", -5, "above 0"),
        ("max_bytes", 2**63, r"2\*\*63"),
        ("max_bytes", "lots", "write it with a unit"),
        ("dynamic_growth", True, "dynamic_growth is not available yet: .*num_heaps"),
        ("compaction", {"enabled": True}, "compaction is not available yet: .*trim"),
        ("compaction", {"treshold": 0.5}, "did you mean 'threshold'"),
        ("compaction", {"threshold": 2}, "compaction.threshold must be above 0 and at most 1, got 2"),
        ("compaction", {"interval_ms": 0}, "interval_ms"),
        ("growth_trigger", 0, "growth_trigger must be above 0"),
        ("max_heaps", 0, "max_heaps must be at least 1"),
    ],
)
def test_wrong_values(key: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        MemoryPool(**{**SMALL, key: value})
    assert str(caught.value).startswith("Failed to initialize MetalMemoryPool: ")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RuntimeError)


def test_announced_keys_are_accepted_while_off() -> None:
    config = {"dynamic_growth": False, "max_heaps": 8, "growth_trigger": 0.9, "compaction": {"threshold": 0.4}}
    complete = MemoryPool({**SMALL, **config}).config
    assert complete.max_heaps == 8
    assert complete.compaction == {"enabled": False, "threshold": 0.4, "interval_ms": 60000}


@pytest.mark.parametrize("build", [MemoryPool, PoolConfig, lambda **keys: MemoryPool(keys)])
def test_unknown_key(build: Any) -> None:
    with pytest.raises(ConfigError, match="unknown configuration key 'heap_size': did you mean 'heap_size_mb'"):
        build(heap_size=1)


def test_unknown_key_with_no_near_name() -> None:
    with pytest.raises(ConfigError, match="unknown configuration key 'zzz'; Known: allocation_strategy"):
        MemoryPool({"zzz": 1})


def test_unknown_attribute_is_refused_at_once() -> None:
    config = PoolConfig()
    with pytest.raises(AttributeError, match="did you mean 'num_heaps'"):
        config.num_heap = 3


def test_a_bad_attribute_is_refused_when_a_pool_is_built() -> None:
    config = small_config()
    config.heap_size_mb = -1
    with pytest.raises(ConfigError, match="heap_size_mb must be above 0"):
        MemoryPool(config)


class TestAllocationStrategy:
    def test_in_every_form(self, tmp_path: Path) -> None:
        attribute = small_config()
        attribute.allocation_strategy = "least-used"
        assert attribute.strategy == attribute.allocation_strategy == "least-used"
        file = write(tmp_path, in_guide_shape("{num_heaps: 1, warmup_sizes: [], allocation_strategy: least-used}"))
        pools = [
            MemoryPool(attribute),
            MemoryPool(small_config(allocation_strategy="least-used")),
            MemoryPool(**SMALL, allocation_strategy="least-used"),
            MemoryPool({**SMALL, "allocation_strategy": "least-used"}),
            MemoryPool.from_yaml(file),
        ]
        assert {pool.config.strategy for pool in pools} == {"least-used"}

    @pytest.mark.parametrize("build", [MemoryPool, PoolConfig, lambda **keys: MemoryPool(keys)])
    def test_both_at_once(self, build: Any) -> None:
        with pytest.raises(ConfigError, match="two names of one key"):
            build(strategy="best-fit", allocation_strategy="best-fit")

    def test_an_override_by_the_other_name_is_no_conflict(self) -> None:
        pool = MemoryPool({**SMALL, "allocation_strategy": "best-fit"}, strategy="most-used")
        assert pool.config.strategy == "most-used"


class TestForms:
    def test_dict_in_the_guide_shape(self) -> None:
        document = {
            "metal_optimizations": {"memory_pool": SMALL, "blit_queue": {"anything": 1}, "graceful_fallback": True},
            "server": {"port": 8080},
        }
        assert MemoryPool(document).config.heap_size_mb == 1

    def test_keywords_win_over_config_and_dict(self) -> None:
        assert MemoryPool(SMALL, num_heaps=3).config.num_heaps == 3
        config = small_config()
        assert MemoryPool(config, num_heaps=3).config.num_heaps == 3
        assert config.num_heaps == 1

    @pytest.mark.parametrize("config", [3, "runtime.yaml", [("num_heaps", 1)]])
    def test_other_types(self, config: Any) -> None:
        with pytest.raises(TypeError, match="PoolConfig or a dict"):
            MemoryPool(config)

    def test_the_pool_keeps_a_copy(self) -> None:
        config = small_config()
        pool = MemoryPool(config)
        config.num_heaps = 7
        pool.config.num_heaps = 9
        assert pool.config.num_heaps == 1

    def test_config_is_complete_and_in_numbers(self) -> None:
        config = MemoryPool(heap_size_mb="2MiB", num_heaps=1, warmup_sizes=("1MiB", 0.5), max_bytes="1GiB").config
        assert (config.heap_size_mb, config.warmup_sizes, config.max_bytes) == (2, [1, 0.5], 1 << 30)
        assert config.placement == "good-fit"


class TestWarmupSizeAboveTheHeap:
    def test_is_a_warning_when_the_user_gave_it(self, log_lines: Any) -> None:
        MemoryPool(heap_size_mb=4, num_heaps=1, warmup_sizes=[1, 8])
        assert log_lines() == [("WARNING", "MetalMemoryPool: Warmup size 8MB exceeds heap size 4MB, skipped")]

    def test_is_info_in_the_documented_default(self, log_lines: Any) -> None:
        MemoryPool(heap_size_mb=130, num_heaps=1)
        assert log_lines() == [("INFO", "MetalMemoryPool: Warmup size 512MB exceeds heap size 130MB, skipped")]

    @pytest.mark.parametrize("change", ["assign", "append"])
    def test_a_changed_default_is_the_users(self, change: str, log_lines: Any) -> None:
        config = PoolConfig(heap_size_mb=1, num_heaps=1)
        if change == "assign":
            config.warmup_sizes = [32, 128, 512]
        else:
            config.warmup_sizes.append(1)
        MemoryPool(config)
        assert {level for level, _ in log_lines()} == {"WARNING"}


def test_aliases_are_the_same_classes() -> None:
    assert tierpool.MetalMemoryPoolConfig is PoolConfig
