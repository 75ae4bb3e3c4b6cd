"""Where configuration comes from: YAML, the environment, arguments, and which of them wins."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tierpool import ConfigError, MemoryPool, PoolConfig

SMALL: dict[str, Any] = {"heap_size_mb": 1, "num_heaps": 1, "warmup_sizes": []}


def small_config(**settings: Any) -> PoolConfig:
    return PoolConfig(**{**SMALL, **settings})


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "runtime.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def in_guide_shape(memory_pool: str) -> str:
    return f"metal_optimizations: {{enabled: true, memory_pool: {memory_pool}}}"


class TestYaml:
    def test_the_guide_example(self, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            "metal_optimizations:\n  enabled: true\n\n  memory_pool:\n    enabled: true\n"
            "    heap_size_mb: 256        # Size of each heap in MB\n    num_heaps: 4\n"
            "    warmup_sizes: [32, 128, 512]\n    track_statistics: true\n    log_exhaustion: true\n",
        )
        assert MemoryPool.from_yaml(file, warmup_sizes=[1]).config == PoolConfig(warmup_sizes=[1])

    def test_neighbours_are_left_alone(self, tmp_path: Path) -> None:
        text = "server: [1, 2]\nmetal_optimizations:\n  fallback_log_level: warn\n  command_ring: {size: 3}\n"
        assert MemoryPool.from_yaml(write(tmp_path, text), **SMALL).config == small_config()

    @pytest.mark.parametrize(
        "text", ["", "# nothing\n", "metal_optimizations:\n", "metal_optimizations: {memory_pool: }"]
    )
    def test_empty_sections(self, tmp_path: Path, text: str) -> None:
        assert MemoryPool.from_yaml(str(write(tmp_path, text)), **SMALL).config.heap_size_mb == 1

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("metal_optimizations:\n  memory_pool: {heap_size_mb: [1\n", "line 3, column 1: not valid YAML"),
            ("a: b: c\n", "line 1, column 5: not valid YAML"),
            ("a: 1\nb: \x07\n", "line 2, column 4: not valid YAML"),
            ("when: 2024-99-99\n", "not valid YAML"),
            ("- 1\n- 2\n", "must hold sections"),
            ("metal_optimizations: [1]\n", "metal_optimizations must be a section"),
            ("metal_optimizations: {memory_pool: 3}\n", "memory_pool must be a section"),
            (in_guide_shape("{heapsize_mb: 3}"), "did you mean 'heap_size_mb'"),
            (in_guide_shape("{3: 3}"), "unknown configuration key 3"),
            (in_guide_shape("{heap_size_mb: -3}"), "heap_size_mb must be above 0, got -3"),
            (in_guide_shape("{strategy: best-fit, allocation_strategy: best-fit}"), "two names of one key"),
        ],
    )
    def test_refusals_name_the_file(self, tmp_path: Path, text: str, says: str) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            MemoryPool.from_yaml(write(tmp_path, text))
        assert "runtime.yaml" in str(caught.value)
        assert str(caught.value).startswith("Failed to initialize MetalMemoryPool: ")

    @pytest.mark.parametrize("text", [in_guide_shape("{num_heaps: four}"), "metal_optimizations: {enabled: 1}"])
    def test_wrong_types_name_the_file(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(TypeError, match=r"runtime\.yaml: "):
            MemoryPool.from_yaml(write(tmp_path, text))

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "runtime.yaml"
        path.write_bytes(b"a: 1\nb: \xff\n")
        with pytest.raises(ConfigError, match="line 2, column 4"):
            MemoryPool.from_yaml(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nothing\.yaml: No such file or directory"):
            MemoryPool.from_yaml(tmp_path / "nothing.yaml")

    def test_a_section_in_the_wrong_place_is_pointed_out(self, tmp_path: Path, log_lines: Any) -> None:
        file = write(tmp_path, "memory_pool: {num_heaps: 2}\n")
        assert MemoryPool.from_yaml(file, **{**SMALL, "num_heaps": 1}).config.num_heaps == 1
        assert [level for level, _ in log_lines()] == ["WARNING"]


class TestSources:
    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = write(tmp_path, in_guide_shape("{heap_size_mb: 2, num_heaps: 3, warmup_sizes: []}"))
        monkeypatch.setenv("TIERPOOL_CONFIG", str(path))
        return path

    @pytest.mark.usefixtures("file")
    def test_argument_then_file_then_default(self) -> None:
        config = MemoryPool({"num_heaps": 1}).config
        assert (config.heap_size_mb, config.num_heaps, config.placement) == (2, 1, "good-fit")
        assert MemoryPool(heap_size_mb=1).config.heap_size_mb == 1

    @pytest.mark.usefixtures("file")
    def test_a_pool_config_is_complete(self) -> None:
        assert MemoryPool(small_config()).config.heap_size_mb == 1

    @pytest.mark.usefixtures("file")
    def test_a_named_file_wins_over_the_environment(self, tmp_path: Path) -> None:
        other = tmp_path / "other.yaml"
        other.write_text(in_guide_shape("{heap_size_mb: 1, warmup_sizes: []}"))
        config = MemoryPool.from_yaml(other).config
        assert (config.heap_size_mb, config.num_heaps) == (1, 4)

    def test_a_missing_file_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TIERPOOL_CONFIG", "nowhere.yaml")
        with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
            MemoryPool()

    @pytest.mark.parametrize("value", ["maybe", "2"])
    def test_a_bad_switch_is_an_error(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("TIERPOOL_DISABLE", value)
        with pytest.raises(ConfigError, match=f"TIERPOOL_DISABLE is '{value}'; set it to 1"):
            MemoryPool(**SMALL)


class TestDisabled:
    @pytest.fixture(params=["keyword", "dict", "section", "master switch", "environment", "environment, config"])
    def disabled(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MemoryPool:
        if request.param.startswith("environment"):
            monkeypatch.setenv("TIERPOOL_DISABLE", "1")
            return MemoryPool(small_config() if "config" in request.param else None)
        return {
            "keyword": lambda: MemoryPool(enabled=False),
            "dict": lambda: MemoryPool({"enabled": False}),
            "section": lambda: MemoryPool({"metal_optimizations": {"memory_pool": {"enabled": False}}}),
            "master switch": lambda: MemoryPool(
                {"metal_optimizations": {"enabled": False, "memory_pool": {"enabled": True}}}
            ),
        }[request.param]()

    def test_every_allocation_is_a_counted_fallback(self, disabled: MemoryPool, log_lines: Any) -> None:
        log_lines()
        assert not disabled.config.enabled
        buffer = disabled.allocate(1 << 20)
        stats = disabled.get_statistics()
        assert buffer.heap_index is None
        assert (stats.total_heaps, stats.total_capacity_mb, stats.utilization, stats.hit_rate) == (0, 0.0, 0.0, 0.0)
        assert (stats.total_allocations, stats.fallback_allocations, stats.exhaustion_events) == (1, 1, 1)
        assert log_lines() == []
        assert disabled.warmup().warm_bytes == 0

    def test_zero_means_enabled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TIERPOOL_DISABLE", "0")
        assert MemoryPool(**SMALL).config.enabled


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(("level", "number"), [("DEBUG", logging.DEBUG), ("warn", logging.WARNING)])
def test_log_level_from_the_environment(level: str, number: int) -> None:
    code = "import logging, tierpool; print(logging.getLogger('tierpool').level)"
    assert run_python(code, TIERPOOL_LOG_LEVEL=level).stdout.strip() == str(number)


def test_an_unknown_log_level_is_reported_and_changes_nothing() -> None:
    code = "import logging, tierpool; print(logging.getLogger('tierpool').level)"
    result = run_python(code, TIERPOOL_LOG_LEVEL="loud")
    assert result.stdout.strip() == "0"
    assert "TIERPOOL_LOG_LEVEL is 'LOUD', which is no level; set it to one of DEBUG" in result.stderr
