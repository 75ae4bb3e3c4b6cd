"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TIERPOOL = [sys.executable, "-m", "tierpool"]
MAKE_MODEL = Path(__file__).parents[3] / "benchmarks" / "python" / "make_model.py"


def plain(**environment: str) -> dict[str, str]:
    """The environment, made such that output looks the same everywhere."""
    return {**os.environ, "COLUMNS": "80", "PYTHONUTF8": "1", **environment}


def run(*arguments: object, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*TIERPOOL, *map(str, arguments)]
    environment = plain(**environment)
    return subprocess.run(
        command, env=environment, input=text, capture_output=True, text=True, check=False, timeout=300
    )


def run_json(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def check_refusal(result: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert (result.returncode, result.stdout) == (code, "")
    assert says in result.stderr
    assert result.stderr.startswith("tierpool: ")
    assert result.stderr.count("\n") == 1


def write_tiny_model(folder: Path) -> Path:
    """Larger than the least memory that it runs with: compute buffers for full batches are small beside it."""
    path = folder / "tiny.gguf"
    command = [sys.executable, MAKE_MODEL, path, "--size", "60MB", "--experts", "32"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=120)
    return path
