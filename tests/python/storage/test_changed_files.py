"""A model whose file is cut, written to or removed computes nothing more, in any mode, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from small_models import PROMPT, write_small
from streamed_runs import CONTEXT, least_budget

from tierpool import ReadError
from tierpool.storage.engine_llama import LlamaEngine, load_engine, load_plain
from tierpool.storage.gguf import read_model
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile


@pytest.fixture(params=["experts", "layers", "resident", "plain"])
def engine(request: pytest.FixtureRequest, profile: Profile, tmp_path: Path) -> Iterator[LlamaEngine]:
    path = write_small(tmp_path / "model.gguf", "llama" if request.param == "layers" else "qwen3moe")
    if request.param == "plain":
        engine = load_plain(path, context=256, threads=1)
    else:
        model = read_model(path)
        budget = 8 << 30 if request.param == "resident" else least_budget(model, profile)
        plan = plan_model(model, profile, budget, context=CONTEXT, threads=1)
        assert plan.mode == request.param
        engine = load_engine(plan)
    yield engine
    engine.close()


def test_a_file_that_is_cut_removed_or_written_to(engine: LlamaEngine) -> None:
    path = Path(engine.plan.path)
    before = engine.evaluate(PROMPT[:5])
    whole, status = path.read_bytes(), path.stat()
    os.truncate(path, len(whole) // 2)
    with pytest.raises(ReadError, match="changed"):
        engine.evaluate(PROMPT[5:])
    assert engine.position == 5
    path.write_bytes(whole)
    with pytest.raises(ReadError, match="changed"):
        engine.evaluate(PROMPT[5:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = engine.evaluate(PROMPT[5:])  # it is again what it was
    engine.truncate(0)
    np.testing.assert_array_equal(engine.evaluate(PROMPT[:5]), before)
    np.testing.assert_array_equal(engine.evaluate(PROMPT[5:]), after)
    path.unlink()
    with pytest.raises(ReadError, match="removed"):
        engine.evaluate([3])


def test_a_resident_file_written_to_under_a_batch(tmp_path: Path) -> None:
    path = write_small(tmp_path / "model.gguf", "llama")
    engine = load_plain(path, context=256, threads=1)
    decode = engine._context.decode

    def write_and_decode(*arguments: object, **options: bool) -> int:
        os.utime(path, ns=(1, 1))
        return decode(*arguments, **options)

    engine._context.decode = write_and_decode  # type: ignore[method-assign, assignment]
    with pytest.raises(ReadError, match="changed"):
        engine.evaluate(PROMPT)
    assert engine.position == 0
    engine.close()
