"""The examples that users are pointed to: they do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

EXAMPLES = Path(__file__).parents[3] / "benchmarks" / "python"


def test_a_file_arrives_whole(run: Callable[[str], str], tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 256, 100_000_001, np.uint8)
    path = tmp_path / "weights"
    path.write_bytes(data.tobytes())
    run(
        f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(EXAMPLES)!r})
import numpy as np
from cuda_driver import Driver
from cuda_stream_file import Streamer
from tierpool import MemoryPool
path, size = Path({str(path)!r}), {len(data)}
target = MemoryPool(device="cuda:0", heap_size_mb=128, num_heaps=1, warmup_sizes=[]).allocate(size)
with Streamer(Driver()) as streamer:
    streamer.copy(path, target)
    found = np.empty(size, np.uint8)
    target.copy_to(found)
    assert found.tobytes() == path.read_bytes()
"""
    )


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
