"""The benchmark suite's own arithmetic: what google-benchmark wrote becomes rows, rows become tables and verdicts."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _suite_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run_of(name, threads, cpu, real, label="pair; memory untouched"):
    return {
        "name": name,
        "run_name": name,
        "run_type": "iteration",
        "threads": threads,
        "cpu_time": cpu,
        "real_time": real,
        "label": label,
    }


def write_runs(path, *runs):
    path.write_text(json.dumps({"benchmarks": list(runs)}))
    return path


def test_rows_are_medians_by_processor_time_and_of_two_threads_by_the_clock(tmp_path):
    from results import load_google_benchmark

    one = [run_of("pool/fixed/tierpool/threads:1", 1, cpu, 10 * cpu) for cpu in (5.0, 4.0, 9.0)]
    two = [run_of("pool/fixed/tierpool/threads:2", 2, 8.0, real) for real in (25.0, 24.0, 99.0)]
    paths = [write_runs(tmp_path / "one.json", *one, *two[:1]), write_runs(tmp_path / "two.json", *two[1:])]
    rows = {row.name: row for row in load_google_benchmark(paths)}
    assert rows["pool/fixed/tierpool"].value == 5.0
    assert rows["pool/fixed/tierpool"].unit == "ns/pair"
    assert rows["pool/fixed/tierpool"].note == "memory untouched"
    assert rows["pool/fixed/2-threads/tierpool"].value == 25.0
    assert rows["two-threads/fixed/tierpool"].value == 50.0 / 25.0


def test_a_row_that_could_not_run_is_an_error_with_its_reason(tmp_path):
    from results import load_google_benchmark

    broken = {
        "name": "pool/unavailable/jemalloc",
        "error_occurred": True,
        "error_message": "cannot allocate static TLS",
    }
    with pytest.raises(RuntimeError, match="jemalloc: cannot allocate static TLS"):
        load_google_benchmark([write_runs(tmp_path / "rows.json", broken)])


def test_results_survive_a_file(tmp_path):
    from results import Results, Row

    results = Results({"cores": "2"}, [Row("pool/fixed/tierpool", 5.0, "ns/pair", 7, 0.01, "memory untouched")])
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_a_table_shows_ours_over_each_peer():
    from report import markdown
    from results import Results, Row

    rows = [Row("pool/fixed/tierpool", 5.0, "ns/pair", 7), Row("pool/fixed/mimalloc", 10.0, "ns/pair", 7)]
    assert "| fixed | ns/pair | 5 | 10 (0.5) |" in markdown(Results({}, rows))


@pytest.mark.parametrize(
    ("unit", "before", "now", "spread", "is_worse"),
    [
        ("ns/pair", 10.0, 11.0, 0.0, True),
        ("ns/pair", 10.0, 11.0, 0.05, False),
        ("ns/pair", 10.0, 10.4, 0.0, False),
        ("ns/pair", 10.0, 5.0, 0.0, False),
        ("x", 2.0, 1.5, 0.0, True),
        ("requested / capacity", 0.99, 0.98, 0.0, True),
        ("requested / capacity", 0.98, 0.99, 0.0, False),
    ],
)
def test_worse_is_what_changed_for_the_worse_beyond_noise(unit, before, now, spread, is_worse):
    from report import comparison
    from results import Results, Row

    table, worse = comparison(
        Results({}, [Row("g/w/tierpool", before, unit, 7, spread)]),
        Results({}, [Row("g/w/tierpool", now, unit, 7, spread)]),
    )
    assert worse == (["g/w/tierpool"] if is_worse else [])
    assert f"{now / before:.2f}" in table


def test_new_and_vanished_rows_are_named():
    from report import comparison
    from results import Results, Row

    table, worse = comparison(Results({}, [Row("g/old/a", 1.0, "ms", 7)]), Results({}, [Row("g/new/a", 1.0, "ms", 7)]))
    assert "| g/new/a | | 1 | | new |" in table
    assert "| g/old/a | 1 | | | gone |" in table
    assert worse == []


def test_targets_are_judged_by_their_rows_and_by_nothing_else(tmp_path):
    import json

    import run_cuda
    from results import Results, Row

    figures = {
        "cuda/decode-sizes/tierpool": 32,
        "cuda/decode-sizes/cupy.MemoryPool": 400,
        "cuda/decode-sizes/torch.empty": 500,
        "cuda/reserved-bytes-moe-prefill/tierpool": 103,
        "cuda/reserved-bytes-moe-prefill/torch": 200,
        "cuda/reserved-bytes-moe-prefill/torch-expandable-segments": 101,
        "cuda/pinned-32MB/tierpool": 0.001,
        "cuda/pinned-32MB/cuMemHostAlloc": 10,
    }
    rows = [Row(name, float(value), "", 1) for name, value in figures.items()]
    text = run_cuda.save(Results({"GPU": "none"}, rows), tmp_path)
    stored = json.loads((tmp_path / "cuda_results.json").read_text())
    found = {target["what"]: (target["figure"], target["verdict"]) for target in stored["targets"]}
    assert found["allocate + release, decode sizes, over CuPy's pool"] == (0.08, "met")
    assert found["allocate + release, decode sizes, over torch.empty"] == (0.064, "missed")
    assert found["moe-prefill: MiB reserved above PyTorch's, the better of both"] == (2.0, "met")
    assert found["pinned 32 MB, times faster"] == (10000.0, "met")
    assert found["host to device, share of the link"] == (None, "not measured")
    assert "| pinned 32 MB, times faster | 1e+04 | >= 5,000 | met |" in text
    assert Results.load(tmp_path / "cuda_results.json").rows == rows
