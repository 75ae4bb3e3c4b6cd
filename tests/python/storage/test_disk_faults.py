"""A disk that fails in the middle of llama.cpp's graph, and one that hangs while a model is loaded."""

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
from tierpool.storage.llama_weights import READER_THREADS

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
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A mixture of experts or a dense model, and the mode that streams it."""
    path: Path = tmp_path_factory.mktemp("model") / "model.gguf"
    write_model(path, shape_of(request.param))
    return path, {"qwen3moe": "experts", "llama": "layers"}[request.param]


def run(script: str, faulty_disk: Path, *arguments: object) -> Any:
    """What a process on that disk prints."""
    command = [sys.executable, SUPPORT / script, *map(str, arguments)]
    environment = {**os.environ, "LD_PRELOAD": str(faulty_disk)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(model: tuple[Path, str], faulty_disk: Path) -> Any:
    """What generating on a disk that fails again and again did."""
    path, mode = model
    result = run("faulty_run.py", faulty_disk, path, 0.2, TOKENS)
    assert result["mode"] == mode
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


def test_control_c_and_progress_end_a_load_from_a_disk_that_hangs(model: tuple[Path, str], faulty_disk: Path) -> None:
    path, mode = model
    found = run("interrupted_load.py", faulty_disk, path, 0.2)
    assert found["mode"] == mode
    whole = found["progress"]
    assert whole[-1][0] == whole[-1][1] > 0
    assert whole == sorted(whole)
    for attempt in found["attempts"]:
        assert attempt["raised"] == attempt["expected"], attempt
        # Those that were under way, one a thread.
        assert attempt["reads"] <= attempt["reads_before"] + READER_THREADS, attempt
        assert attempt["reads"] < found["reads"], attempt
        assert attempt["kept"] == [], f"not given back: {attempt}"
    told = [attempt["told"][-1] for attempt in found["attempts"] if attempt["told"]]
    assert {total for _, total in told} == {whole[-1][1]}
    assert 0 <= told[0][0] < told[-1][0] < told[-1][1]
    assert found["difference"] == ""
