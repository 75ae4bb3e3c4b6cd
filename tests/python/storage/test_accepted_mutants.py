"""Damaged models that pass our checks end no process: llama.cpp loads them, or says why not.

``TIERPOOL_TEST_LOADED_MUTANTS=10000`` asks for more of them, of each kind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from make_model import write_model
from model_shapes import ModelShape

SCRIPT = Path(__file__).parent / "support" / "load_mutants.py"
COUNT = int(os.environ.get("TIERPOOL_TEST_LOADED_MUTANTS", "120"))


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("qwen3moe", "bytes"), ("qwen3moe", "values"), ("llama", "values"), ("gpt-oss", "values"), ("qwen2", "values")],
)
def test_llama_cpp_survives_what_we_accept(tmp_path: Path, architecture: str, kind: str) -> None:
    path = tmp_path / "model.gguf"
    shape = ModelShape(architecture, layers=2, heads=2, feed_forward=96, experts=4, used_experts=2, vocabulary=260)
    write_model(path, shape)
    whole, seed, first = path.read_bytes(), 1, 0
    loaded, deaths = 0, []
    while first < COUNT:
        path.write_bytes(whole)
        done = subprocess.run(
            [sys.executable, SCRIPT, path, kind, str(seed), str(first), str(COUNT)],
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = done.stdout.split()
        loaded += lines.count("loaded")
        if done.returncode == 0:
            break
        numbers = [int(line) for line in lines if line.isdecimal()]
        deaths.append(f"{kind} {seed} {numbers[-1:]}: ended with {done.returncode}: {done.stderr[-300:]}")
        if not numbers or len(deaths) == 5:
            break
        first = numbers[-1] + 1
    assert not deaths, "\n".join(deaths)
    assert loaded > COUNT // 10  # not everything is refused by llama.cpp itself
