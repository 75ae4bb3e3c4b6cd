"""The benchmarks run, and what they say beside times is as documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "python"


def test_decode_loop(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "decode_loop.py", "--tokens", "3", "--rounds", "1", "--json", result]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(result.read_text())
    assert figures["device_allocations"] == 0
    for waste in figures["waste"].values():
        assert 0 <= waste["eighths"]["all"] <= 0.04
        assert 0 < waste["eighths"]["worst"] <= 0.125
        assert waste["power-of-two"]["all"] > 0.16
        assert waste["exact"] == {"all": 0, "worst": 0}
