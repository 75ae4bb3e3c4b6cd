"""The examples that users are pointed to: they do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

EXAMPLES = Path(__file__).parents[3] / "benchmarks" / "python"


def test_a_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(100_000_001))
    command = [sys.executable, str(EXAMPLES / "cuda_stream_file.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0.10 GB in " in done.stdout


@pytest.mark.parametrize("allocator", ["tierpool", "torch"])
def test_llama_decodes(allocator: str) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    command = [sys.executable, str(EXAMPLES / "cuda_llama_decode.py"), "--tokens", "4", "--prompt", "16"]
    done = subprocess.run(
        [*command, "--allocator", allocator], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{allocator}: " in done.stdout
    assert "tokens a second" in done.stdout
