"""The comparison: what a run computes, how runs end, and what follows from them."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_runs import KILLED, finished, result, streaming_plan
from fake_engine import UNIT_BYTES, FakeEngine
from typer.testing import CliRunner

from tierpool import ConfigError
from tierpool.cli import app
from tierpool.storage import bench_child
from tierpool.storage.bench import bench
from tierpool.storage.bench_child import ChildResult, drop_page_cache, run_child
from tierpool.storage.bench_result import BenchResult
from tierpool.storage.gguf import ModelFile
from tierpool.storage.memory_group import MemoryGroup, MemoryGroupError
from tierpool.storage.profile import Profile


class TestChild:
    def test_a_process_that_is_killed_is_not_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        monkeypatch.setattr(bench_child, "_COMMAND", [sys.executable, "-c", code])
        assert run_child({}, None).outcome == "killed"

    def test_a_process_that_dies_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = "import sys; sys.exit('the disk is gone')"
        monkeypatch.setattr(bench_child, "_COMMAND", [sys.executable, "-c", code])
        child = run_child({}, None)
        assert (child.outcome, child.message) == ("failed", "ended with 1: the disk is gone\n")

    def test_events_are_followed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = (
            "import json, sys; task = json.load(sys.stdin)\n"
            "for event in [{'event': 'loaded', 'seconds': 2}, {'event': 'token'}, {'event': 'done', 'got': task}]:\n"
            "    print(json.dumps(event), flush=True)"
        )
        monkeypatch.setattr(bench_child, "_COMMAND", [sys.executable, "-c", code])
        events: list[str] = []
        child = run_child({"a": 1}, None, events.append)
        assert child.outcome == "finished"
        assert events == ["loaded", "token", "done"]
        assert dict(child.values) == {"load_seconds": 2, "got": {"a": 1}}

    def test_half_a_line_of_a_killed_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = (
            "import json, os, signal; print(json.dumps({'event': 'token'}))\n"
            "print(json.dumps({'event': 'done'})[:9], end='', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
        )
        monkeypatch.setattr(bench_child, "_COMMAND", [sys.executable, "-c", code])
        events: list[str] = []
        assert run_child({}, None, events.append).outcome == "killed"
        assert events == ["token"]

    def test_a_process_that_ends_before_it_is_done_has_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = "import json; print(json.dumps({'event': 'token'}))"
        monkeypatch.setattr(bench_child, "_COMMAND", [sys.executable, "-c", code])
        child = run_child({}, None)
        assert (child.outcome, child.message) == ("failed", "ended with 0: ")

    def test_an_interrupted_run_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = "import json, time; print(json.dumps({'event': 'token'}), flush=True); time.sleep(99)"
        monkeypatch.setattr(bench_child, "_COMMAND", [sys.executable, "-c", code])
        children: list[subprocess.Popen[str]] = []
        start = subprocess.Popen

        def keep(*arguments: Any, **settings: Any) -> subprocess.Popen[str]:
            children.append(start(*arguments, **settings))
            return children[-1]

        monkeypatch.setattr(subprocess, "Popen", keep)

        def interrupt(_event: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_child({}, None, interrupt)
        assert children[0].returncode == -signal.SIGKILL


def test_a_run_computes_two_phases_of_greedy_tokens() -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
    from tierpool.storage.bench_run import run

    engine = FakeEngine(b"abcdefgh")
    events: list[str] = []
    values = run(engine, [1, 2, 3], 2, None, lambda event, **_values: events.append(event))
    assert engine.evaluated == [[1, 2, 3], [*b"a"], [*b"b"], [*b"c"], [*b"d"]]
    assert values["tokens"] == [*b"abcde"]
    assert events == ["prompt", *["token"] * 4]
    assert {name: phase["tokens"] for name, phase in values["phases"].items()} == {"prompt": 3, "cold": 2, "warm": 2}
    assert values["phases"]["warm"]["read_bytes"] == 2 * UNIT_BYTES
    assert len(set(values["digests"].values())) == 3
    again = run(replace_answer(engine, b"abcdefgx"), [1, 2, 3], 2, None, lambda _event, **_values: None)
    assert again["digests"] == values["digests"]  # what was never asked for makes no difference
    other = run(replace_answer(engine, b"abcxefgh"), [1, 2, 3], 2, None, lambda _event, **_values: None)
    assert {name for name in other["digests"] if other["digests"][name] != values["digests"][name]} == {"warm"}


def test_a_run_computes_the_tokens_it_is_given() -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
    from tierpool.storage.bench_run import run

    engine = FakeEngine(b"abcdefgh")
    run(engine, [1, 2, 3], 2, [4, 5, 6, 7], lambda _event, **_values: None)
    assert engine.evaluated == [[1, 2, 3], [4], [5], [6], [7]]


def replace_answer(engine: FakeEngine, answer: bytes) -> FakeEngine:
    return FakeEngine(answer, context=engine.plan.context)


class TestCommand:
    """``tierpool bench`` where something goes wrong; the rest is tested as a user runs it."""

    def test_no_control_group_is_a_loud_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_limit_bytes: int) -> MemoryGroup:
            raise MemoryGroupError("no control group can hold a process")

        monkeypatch.setattr("tierpool.storage.bench.MemoryGroup", refuse)
        result = CliRunner().invoke(app, ["bench", "model.gguf", "--memory", "1GiB"])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "NO MEMORY LIMIT: no control group" in result.stderr
        assert "--no-limit compares without one" in result.stderr

    def test_memory_is_needed_for_a_limit(self) -> None:
        result = CliRunner().invoke(app, ["bench", "model.gguf"])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--memory is missing" in result.stderr
        assert "--no-limit" in result.stderr
        with pytest.raises(ConfigError, match="no memory is given"):
            bench("model.gguf")

    def test_what_streaming_read_is_shown(self, monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
        streamed = [finished(10, read_bytes=105)]
        found = result(profile, plan=streaming_plan(), streamed=streamed, plain=[finished(1)], defaults=[KILLED])
        monkeypatch.setattr("tierpool.cli_bench.bench", lambda *_arguments, **_settings: found)
        shown = CliRunner().invoke(app, ["bench", "model.gguf", "--memory", "1GiB"], env={"COLUMNS": "200"}).stdout
        assert "off the plan by +5.0% cold, +5.0% warm" in shown
        assert "misses: 4 cold, 4 warm" in shown
        assert "MiB): 1.050 cold, 1.050 warm" in shown
        assert "direct reads before and after the runs 1.30 GB/s; share of these 0.77 cold, 0.77 warm" in shown
        assert "Budget unused: 25.0%, by the plan 100.0%" in shown
        assert "load s" in shown

    def test_ctrl_c(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_arguments: object, **_settings: object) -> BenchResult:
            raise KeyboardInterrupt

        monkeypatch.setattr("tierpool.cli_bench.bench", interrupt)
        monkeypatch.setattr(signal, "signal", lambda *_arguments: None)  # this process goes on
        result = CliRunner().invoke(app, ["bench", "model.gguf", "--memory", "1GiB"])
        assert result.exit_code == 130
        assert "interrupted" in result.stderr

    @pytest.mark.parametrize("differ", [False, True])
    def test_different_logits_end_with_1(self, monkeypatch: pytest.MonkeyPatch, profile: Profile, differ: bool) -> None:
        plain = finished(1, digest="other" if differ else "same")
        found = result(profile, streamed=[finished(10)], plain=[plain], defaults=[KILLED])
        monkeypatch.setattr("tierpool.cli_bench.bench", lambda *_arguments, **_settings: found)
        shown = CliRunner().invoke(app, ["bench", "model.gguf", "--memory", "1GiB"])
        assert shown.exit_code == differ
        assert ("DIFFERENT" in shown.stdout) == differ
        assert "killed" in shown.stdout


def test_dropping_pages_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"weights" * 1000)
    drop_page_cache([ModelFile(str(file), 7000, 0, 0)])
    assert file.read_bytes() == b"weights" * 1000


@pytest.fixture(scope="session")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
    from make_model import write_model
    from model_shapes import shape_of_size

    path = tmp_path_factory.mktemp("models") / "moe.gguf"
    write_model(path, shape_of_size("qwen3moe", "Q4_0", 60 << 20, experts=32))
    return path


@pytest.fixture(scope="session")
def budget_bytes(moe: Path, profile: Profile) -> int:
    """Enough for a run to work, which is a smaller process than this one, and too little for the whole model."""
    from tierpool.storage import PlanError, make_plan

    process_bytes = run_child({"side": "measure"}, None).values["process_bytes"]
    of_a_run = replace(profile, limits=replace(profile.limits, process_bytes=process_bytes, import_bytes=0))
    with pytest.raises(PlanError) as refusal:
        make_plan(moe, memory=1, context=256, profile=of_a_run)
    return refusal.value.needed + (24 << 20)


@pytest.mark.parametrize("limited", [False, True])
def test_both_sides_compute_the_same(
    moe: Path, budget_bytes: int, limited: bool, request: pytest.FixtureRequest
) -> None:
    if limited:
        request.getfixturevalue("_memory_groups")
    steps: list[tuple[int, int]] = []
    found = bench(
        moe,
        budget_bytes,
        tokens=3,
        pairs=1,
        prompt_tokens=5,
        threads=1,
        limited=limited,
        progress=lambda _step, done, total: steps.append((done, total)),
    )
    assert [run.child.message for run in found.runs] == [""] * 3
    assert found.plan.mode == "experts"
    assert found.equal_logits() is True
    assert found.differing_tokens("plain") == 0
    streamed = found.of_side("streamed")[0].child
    assert len(found.of_side("streamed")[0].direct_bytes_per_second) == 2
    assert found.of_side("plain")[0].direct_bytes_per_second == ()
    assert (streamed.values["mode"], found.of_side("plain")[0].child.values["mode"]) == ("experts", "resident")
    for phase in ("cold", "warm"):
        if found.streamed(phase, "misses"):
            assert 0.9 <= (found.streamed(phase, "reads_over_misses") or 0) <= 1.05
    phases = streamed.values["phases"]
    assert phases["cold"]["hits"] + phases["cold"]["misses"] > 0
    for phase in phases.values():  # nothing is read twice, nothing beside what was missing
        assert phase["read_bytes"] <= 1.05 * (phase["requested_bytes"] - phase["reused_bytes"])
    assert streamed.values["process_peak_bytes"] <= budget_bytes
    assert steps == sorted(steps)
    assert steps[-1] == (24, 24)
    if limited:
        assert found.limit_bytes == budget_bytes + (64 << 20)
        assert all(run.child.kills == 0 for run in found.runs)
        assert streamed.values["major_faults"] == 0
        peak = streamed.group_peak_bytes
        assert peak is None or 0 < peak <= found.limit_bytes


def test_a_model_that_fits_is_plain_llama_cpp_on_both_sides(moe: Path) -> None:
    found = bench(moe, tokens=2, pairs=1, prompt_tokens=3, threads=1, limited=False)
    assert [run.child.message for run in found.runs] == [""] * 3
    assert found.plan.mode == "resident"
    assert {run.child.values["mode"] for run in found.runs} == {"resident"}
    assert found.equal_logits() is True
    assert (found.ratio("warm") or 0) > 0
    assert found.direct_bytes_per_second is None
    assert found.streamed("warm", "read_gb_per_second") == 0


def test_a_model_that_fits_is_loaded_with_the_same_parameters(moe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the ratio of the two sides says what tierpool costs, and nothing else."""
    from tierpool.storage.bench_run import load_side
    from tierpool.storage.llama_library import llama_library
    from tierpool.storage.llama_settings import LlamaSettings

    tasks: list[dict[str, Any]] = []

    def keep(task: dict[str, Any], *_others: object) -> ChildResult:
        tasks.append(task)
        return ChildResult("finished", values={"process_bytes": 50 << 20})

    monkeypatch.setattr("tierpool.storage.bench.run_child", keep)
    plan = bench(moe, "4GiB", tokens=2, pairs=1, prompt_tokens=3, threads=1, limited=False).plan
    loaded = []
    for task in tasks[1:3]:
        with closing(load_side(task)) as engine:
            loaded.append(LlamaSettings.of_plan(engine.plan))
            assert (engine.plan.mode, engine.get_layer_counters()) == ("resident", [])
    assert loaded == [LlamaSettings.of_plan(plan)] * 2

    library = llama_library()
    for mine, default, fixed in (
        (loaded[0].model_parameters(library), library.llama_model_default_params(), MODEL_FIXED),
        (loaded[0].context_parameters(library), library.llama_context_default_params(), CONTEXT_FIXED),
    ):
        names = [name for name, _kind in mine._fields_]
        differing = {name for name in names if not equal_values(getattr(mine, name), getattr(default, name))}
        assert differing <= fixed


# What a plan decides, and what makes no difference without a GPU; no callback is among them.
MODEL_FIXED = {"n_gpu_layers", "load_mode"}
CONTEXT_FIXED = {"n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "flash_attn_type"}
CONTEXT_FIXED |= {"n_seq_max", "offload_kqv", "op_offload", "no_perf"}


def equal_values(one: Any, other: Any) -> bool:
    """Pointers are equal when both are null."""
    is_pointer = not isinstance(one, (int, float, bool, type(None)))
    return (not one and not other) if is_pointer else one == other


def test_a_run_that_cannot_load_says_why(moe: Path, profile: Profile) -> None:
    settings = {"memory": 1000, "context": 256, "threads": 1, "profile": replace(profile, path=str(moe)).to_dict()}
    task = {"side": "streamed", "path": str(moe), "prompt": [1], "tokens": 1, "given": None, "settings": settings}
    child = run_child(task, None)
    assert child.outcome == "failed"
    assert "needs at least" in child.message
