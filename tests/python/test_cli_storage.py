"""``profile``, ``inspect`` and ``plan``, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")

from command_line import check_refusal, run, run_json, write_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "profile.json"
    values = run_json("profile", model)
    assert values["path"] == str(model)
    assert values["read_bytes_per_second"] > 0
    assert values["limits"]["process_bytes"] > 0
    path.write_text(json.dumps({**values, "limits": {**values["limits"], "process_bytes": 0}}))
    return path


def test_inspect(model: Path) -> None:
    values = run_json("inspect", model)
    assert (values["architecture"], values["streaming"], values["experts"]) == ("qwen3moe", "experts", 32)
    assert values["files"] == [{"path": str(model), "size_bytes": model.stat().st_size}]
    assert values["units"] == 32 * values["layers"]
    assert sum(tensor["size_bytes"] for tensor in values["tensors"]) == values["weight_bytes"]
    streamed = [tensor for tensor in values["tensors"] if tensor["streamed"]]
    assert {tensor["role"] for tensor in streamed} == {"expert"}


def test_plan_streams_what_does_not_fit(model: Path, measured: Path) -> None:
    options = ["plan", model, "--profile", measured, "--context", 64]
    refused = run(*options, "--memory", "1MB")
    check_refusal(refused, 1, "(--memory): ")
    needed = int(refused.stderr.partition("at least ")[2].partition(" bytes")[0])
    values = run_json(*options, "--memory", f"{needed}B", "--threads", 3)
    assert (values["mode"], values["threads"], values["context"]) == ("experts", 3, 64)
    assert values["budget"]["limit_bytes"] == needed
    assert run_json(*options, "--memory", "2GiB")["mode"] == "resident"


def test_plan_measures_and_takes_what_the_system_allows(model: Path) -> None:
    values = run_json("plan", model)
    assert values["budget"]["source"] != "--memory"
    assert values["estimate"]["tokens_per_second"] > 0


def test_tables_fit_80_columns_without_escape_codes(model: Path, measured: Path) -> None:
    least = run("plan", model, "--profile", measured, "--context", 64, "--memory", "1MB").stderr
    needed = least.partition("at least ")[2].partition(" bytes")[0]
    for arguments in (
        ["inspect", model],
        ["profile", model],
        ["plan", model, "--profile", measured, "--context", 64, "--memory", f"{needed}B"],
    ):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80
    assert "Mode experts" in result.stdout
    assert "edge pages" in result.stdout


def test_bad_input(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no model")
    for command in ("inspect", "plan"):
        check_refusal(run(command, text), 2, "no GGUF file")
        check_refusal(run(command, tmp_path / "missing.gguf"), 2, "No such file")
    check_refusal(run("profile", tmp_path / "missing.gguf"), 2, "No such file")
    check_refusal(run("plan", model, "--memory", "much"), 2, "--memory is 'much', which is no size")
    check_refusal(run("plan", model, "--profile", text), 2, "not valid JSON")
    text.write_text("{}")
    check_refusal(run("plan", model, "--profile", text), 2, "this is no profile")


def test_without_the_package_gguf(model: Path, tmp_path: Path) -> None:
    (tmp_path / "gguf.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tierpool", "inspect", str(model)]
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    check_refusal(result, 1, "pip install 'tierpool[llama]'")
