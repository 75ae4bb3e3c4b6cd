"""What a plan names as too little memory, and what loading then takes, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from make_model import write_model
from model_shapes import ModelShape

_NAME_LEAST = """
import sys
from tierpool.storage import PlanError, {function}
try:
    {function}(sys.argv[1], memory=1 << 20, context=256, threads=1)
except PlanError as error:
    print(error.needed)
"""
_LOAD = """
import sys
from tierpool.storage import load
with load(sys.argv[1], memory=int(sys.argv[2]), context=256, threads=1) as model:
    list(model.generate([5, 6], max_tokens=3))
    print(model.plan.mode)
"""
_IMPORT = """
from tierpool.storage.limits import read_limits
from tierpool.storage.llama_library import llama_library
before = read_limits()
llama_library()
after = read_limits()
print(before.process_bytes, before.import_bytes, after.process_bytes, after.import_bytes)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    write_model(path, ModelShape("qwen3moe", layers=8, experts=64))
    return path


def run_python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("function", ["make_plan", "load"])
def test_the_memory_that_is_named_as_the_least_suffices(model: Path, function: str) -> None:
    least_bytes = int(run_python(_NAME_LEAST.format(function=function), model))
    assert run_python(_LOAD, model, least_bytes) == "experts"


def test_the_memory_that_the_command_plan_names_suffices_for_the_command_run(model: Path) -> None:
    program = [sys.executable, "-m", "tierpool"]
    settings = ["--context", "256", "--threads", "1"]
    refused = subprocess.run(
        [*program, "plan", model, "--memory", "1MiB", *settings], capture_output=True, text=True, check=False
    )
    least_bytes = refused.stderr.split("needs at least ")[1].split()[0]
    generated = subprocess.run(
        [*program, "run", model, "--prompt", "a", "--max-tokens", "3", "--memory", f"{least_bytes}B", *settings],
        capture_output=True,
        text=True,
        check=False,
    )
    assert generated.returncode == 0, generated.stderr


def test_importing_the_library_adds_no_more_than_is_planned_for() -> None:
    before, planned, after, left = map(int, run_python(_IMPORT).split())
    assert planned / 4 < after - before <= planned
    assert left == 0
