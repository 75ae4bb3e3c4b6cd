"""The command line, run as a user runs it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import check_refusal, run, run_json

import tierpool

TRACE = """# {"name": "small", "torch_reserved_over_peak": 1.5, "torch_expandable_segments_over_peak": 1.25}
op,id,bytes
a,7,1048576
a,8,2097152
f,7,1048576
a,7,524288
f,8,2097152
"""
REPLAY_KEYS = [
    "events",
    "allocations",
    "peak_live_bytes",
    "capacity_bytes",
    "hit_rate",
    "fallback_allocations",
    "ns_per_event",
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv.gz"
    path.write_bytes(gzip.compress(TRACE.encode()))
    return path


@pytest.mark.parametrize("device", ["host", "simulated"])
def test_replay(trace: Path, device: str) -> None:
    result = run_json("replay", trace, "--device", device, "--heap-size-mb", 4, "--num-heaps", 2)
    assert list(result) == REPLAY_KEYS
    assert result.pop("ns_per_event") > 0
    assert result == {
        "events": 5,
        "allocations": 3,
        "peak_live_bytes": 3 << 20,
        "capacity_bytes": 8 << 20,
        "hit_rate": 1.0,
        "fallback_allocations": 0,
    }


def test_replay_counts_fallbacks(trace: Path) -> None:
    options = ["--heap-size-mb", 1, "--num-heaps", 1, "--strategy", "best-fit", "--placement", "first-fit"]
    result = run_json("replay", trace, *options)
    assert (result["fallback_allocations"], result["hit_rate"]) == (1, pytest.approx(2 / 3))


def test_replay_of_80_gb(trace: Path) -> None:
    result = run_json("replay", trace, "--device", "simulated", "--heap-size-mb", 80 * 1024, "--num-heaps", 1)
    assert result["capacity_bytes"] == 80 << 30


def test_fit(trace: Path) -> None:
    rows = run_json("replay", trace, "--fit")
    assert [row["placement"] for row in rows] == ["good-fit", "best-fit", "first-fit"]
    for row in rows:
        assert list(row) == ["placement", "capacity_bytes", "capacity_over_peak"]
        assert row["capacity_bytes"] % 256 == 0
        assert row["capacity_over_peak"] == pytest.approx(row["capacity_bytes"] / (3 << 20))
        assert 1.0 <= row["capacity_over_peak"] < 1.002
    assert [row["placement"] for row in run_json("replay", trace, "--fit", "--placement", "best-fit")] == ["best-fit"]


def test_tables_fit_80_columns_without_escape_codes(trace: Path) -> None:
    for arguments in (["replay", trace], ["replay", trace, "--fit"], ["demo"]):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80


def test_fit_shows_what_pytorch_needed(trace: Path) -> None:
    lines = run("replay", trace, "--fit").stdout.splitlines()
    assert any("PyTorch, default allocator" in line and "1.500" in line for line in lines)
    assert any("PyTorch, expandable segments" in line and "1.250" in line for line in lines)


def test_demo_as_json() -> None:
    result = run_json("demo")
    assert (result["trace"], result["events"]) == ("llama-1b-decode", 94304)
    assert result["warmup"]["committed_bytes"] == 640 << 20
    assert result["statistics"]["total_allocations"] == result["statistics"]["total_deallocations"] == 47152
    assert result["statistics"]["hit_rate"] == 1.0
    assert result["statistics"]["total_capacity_mb"] == 1024.0
    assert [finding["metric"] for finding in result["findings"]] == ["hit_rate", "utilization", "fallback_rate"]
    for kind in ("untouched", "written"):
        times = result[kind]
        assert times["direct_over_pool"] == times["direct_ns_per_event"] / times["pool_ns_per_event"] > 0
        assert times["malloc_over_pool"] == times["malloc_ns_per_event"] / times["pool_ns_per_event"] > 0


def test_demo_as_tables() -> None:
    output = run("demo").stdout
    for name in ("total_allocations", "hit_rate", "Findings", "over-provisioned", "untouched", "written in full"):
        assert name in output
    assert "total_acquired" not in output


def test_demo_ignores_the_environments_file(tmp_path: Path) -> None:
    config = tmp_path / "runtime.yaml"
    config.write_text("metal_optimizations: {memory_pool: {num_heaps: 100}}")
    result = run("demo", "--json", TIERPOOL_CONFIG=str(config))
    assert json.loads(result.stdout)["statistics"]["total_heaps"] == 4


def test_demo_with_pools_switched_off() -> None:
    result = json.loads(run("demo", "--json", TIERPOOL_DISABLE="1").stdout)
    assert (result["statistics"]["total_heaps"], result["statistics"]["hit_rate"]) == (0, 0.0)
    assert result["statistics"]["fallback_allocations"] == 47152


def test_a_reader_that_stops_early_is_no_error() -> None:
    result = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m tierpool demo | head -n 1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert result.stdout.startswith("Warmed 640 MB")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "hots"], "did you mean 'host'"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--strategy", "bestfit"], "did you mean 'best-fit'"),
        (["--placement", "goodfit"], "did you mean 'good-fit'"),
        (["--heap-size-mb", "0"], "heap_size_mb must be above 0"),
        (["--heap-size-mb", "nan"], "heap_size_mb must be a finite"),
        (["--heap-size-mb", "100000000"], "make heap_size_mb smaller"),
        (["--num-heaps", "0"], "num_heaps must be at least 1"),
        (["--fit", "--device", "host", "--num-heaps", "2"], "leave out --device, --num-heaps"),
        (["--fit", "--placement", "worst-fit"], "unknown placement 'worst-fit'"),
    ],
)
def test_bad_options(trace: Path, options: list[str], says: str) -> None:
    check_refusal(run("replay", trace, *options), 2, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TRACE + "f,9,10\n", "line 8"),
        (TRACE + "a,7,10\n", "line 8"),
        (TRACE + "x,1,1\n", "line 8: unknown operation"),
        ("op,id,bytes\n", "line 1"),
    ],
)
def test_bad_traces(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    for options in ([], ["--fit"]):
        check_refusal(run("replay", path, *options), 2, says)


def test_a_truncated_trace(trace: Path) -> None:
    trace.write_bytes(trace.read_bytes()[:-20])
    check_refusal(run("replay", trace), 2, "ends early")


def test_missing_files(tmp_path: Path, trace: Path) -> None:
    check_refusal(run("replay", tmp_path / "none.csv.gz"), 2, "none.csv.gz: No such file or directory")
    check_refusal(run("replay", tmp_path), 2, "Is a directory")
    check_refusal(run("replay", trace, TIERPOOL_CONFIG="none.yaml"), 2, "none.yaml: No such file or directory")


def test_wrong_type_in_the_environments_file(tmp_path: Path, trace: Path) -> None:
    config = tmp_path / "runtime.yaml"
    config.write_text("metal_optimizations: {memory_pool: {num_heaps: four}}")
    check_refusal(run("replay", trace, TIERPOOL_CONFIG=str(config)), 2, "num_heaps must be a whole number")


@pytest.mark.usefixtures("_few_addresses")
def test_a_pool_that_cannot_be_built_is_a_failure(trace: Path) -> None:
    result = run("replay", trace, "--heap-size-mb", 1000, "--num-heaps", 100)
    assert result.returncode == 1
    assert "tierpool: Failed to initialize MetalMemoryPool: 100 heaps of 1000MB" in result.stderr
    assert "Traceback" not in result.stderr


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == tierpool.__version__
    shown = run("--help").stdout
    assert "demo" in shown
    assert "replay" in shown
    assert run("nonsense").returncode == 2
