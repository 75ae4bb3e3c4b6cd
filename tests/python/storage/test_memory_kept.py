"""At every token the process holds no more than the plan's budget, and a group hardly above it is enough."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from streamed_runs import CONTEXT, generate, prompt_of

from make_model import write_model
from model_shapes import shape_of_size
from tierpool.storage.engine_llama import load_plain
from tierpool.storage.memory_group import MemoryGroup

SCRIPT = Path(__file__).parent / "support" / "limited_run.py"
MODEL_BYTES = 256 << 20  # several times what a group has above the budget
TOKENS = 24


@pytest.fixture(scope="module", params=["qwen3moe", "llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("large") / "model.gguf"
    write_model(path, shape_of_size(request.param, "Q4_0", MODEL_BYTES))
    return path


@pytest.fixture
def group(_memory_groups: None) -> Iterator[Path]:
    """A memory group of its own, which has no limit yet."""
    with MemoryGroup(1 << 50) as group:
        yield group.folder


def run(path: Path, share: float, *group: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, SCRIPT, path, str(share), str(TOKENS), *group], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any]) -> None:
    assert found["mode"] != "resident"
    assert found["read_bytes"] > 0
    assert found["held_bytes"] <= found["limit_bytes"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_no_more_than_the_budget_at_any_token(model: Path, share: float) -> None:
    check(run(model, share))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_group_of_64_mib_more_is_enough(model: Path, group: Path, share: float) -> None:
    found = run(model, share, group)
    check(found)
    assert found["limit_bytes"] < found["weight_bytes"] + found["least_bytes"] - (64 << 20), "the limit limits nothing"
    assert found["major_faults"] == 0
    plain = load_plain(model, n_ubatch=found["n_ubatch"], threads=1, context=CONTEXT)
    try:
        expected = generate(plain, prompt_of(2 * found["n_ubatch"] + 3, plain.vocabulary_size), TOKENS)
    finally:
        plain.close()
    assert hashlib.sha256(expected.tobytes()).hexdigest() == found["logits"]
