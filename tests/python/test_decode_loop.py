"""The decode loop runs, and what it says beside times is as documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "python"
TRACES = ("gpt2-train-varlen", "llama-1b-decode", "qwen3-moe-decode")


def test_decode_loop(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "decode_loop.py", "--repetitions", "1", "--json", result]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    figures = {row["name"]: row["value"] for row in json.loads(result.read_text())}
    assert figures["python/decode-loop-device-allocations/arena"] == 0
    assert figures["python/token-buffers-device-allocations/arena"] == 0
    for trace in TRACES:
        assert 0 <= figures[f"python/waste-{trace}/eighths"] <= 0.04
        assert 0 < figures[f"python/worst-waste-{trace}/eighths"] <= 0.125
        assert figures[f"python/waste-{trace}/power-of-two"] > 0.16
        assert figures[f"python/waste-{trace}/exact"] == figures[f"python/worst-waste-{trace}/exact"] == 0
