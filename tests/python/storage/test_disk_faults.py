"""Reads of weights that fail in the middle of llama.cpp's graph: the call says so, and the next one is bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from streamed_runs import shape_of

from make_model import write_model

SUPPORT = Path(__file__).parent / "support"
TOKENS = 24
SAYS = {"fails": "Input/output error", "ends": "the file ends there", "is cut": "changed since"}


@pytest.fixture(scope="module")
def faulty_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload, by which reads fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("FAILING READS ARE NOT TESTED: needs Linux and a C compiler")
    library: Path = tmp_path_factory.mktemp("disk") / "faulty_disk.so"
    options = ["-O1", "-fPIC", "-shared", "-pthread"]
    subprocess.run([compiler, *options, SUPPORT / "faulty_disk.c", "-ldl", "-o", library], check=True)
    return library


@pytest.fixture(scope="module", params=["qwen3moe", "llama"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, faulty_disk: Path) -> Any:
    """What a process with that library saw, for a mixture of experts and a dense model."""
    path: Path = tmp_path_factory.mktemp("model") / "model.gguf"
    write_model(path, shape_of(request.param))
    command = [sys.executable, SUPPORT / "faulty_run.py", path, "0.2", str(TOKENS)]
    environment = {**os.environ, "LD_PRELOAD": str(faulty_disk)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    result = json.loads(done.stdout)
    assert result["mode"] == {"qwen3moe": "experts", "llama": "layers"}[request.param]
    return result


@pytest.mark.parametrize("kind", SAYS)
def test_the_call_raises_and_the_next_one_computes_the_same(found: Any, kind: str) -> None:
    assert found["reads"] > 4 * TOKENS, "hardly anything is read after the prompt"
    runs = [run for run in found["runs"] if run["kind"] == kind]
    for run in runs:
        assert run["faults"] == 1, run
        assert run["failed_calls"], f"a read failed and no call did: {run}"
        assert all(SAYS[kind] in message for message in run["messages"]), run
        assert run["lost"] == [], f"the position was not kept: {run}"
        assert run["difference"] == "", run
    failed_calls = [call for run in runs for call in run["failed_calls"]]
    assert min(failed_calls) == 0
    assert max(failed_calls) > 1, "no token after the prompt met a failure"
