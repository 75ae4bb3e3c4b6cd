"""A model that is not proven to stream is loaded into memory, says why, and computes what llama.cpp computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from gguf.constants import GGMLQuantizationType
from streamed_runs import difference, generate, load_reference, prompt_of

from make_model import write_model
from model_shapes import ModelShape, TensorShape
from tierpool.storage import load
from tierpool.storage.engine_llama import load_engine
from tierpool.storage.errors import PlanError
from tierpool.storage.gguf import read_model
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile

WHY = "architecture 'gemma3' is not among those proven to stream"


@dataclass(frozen=True)
class Gemma3(ModelShape):
    """What qwen3 has, and norms after attention and feed-forward network."""

    @property
    def gguf_architecture(self) -> str:
        return "gemma3"

    def _attention(self) -> Iterator[TensorShape]:
        yield from super()._attention()
        for name in ("post_attention_norm", "post_ffw_norm"):
            yield TensorShape(f"{name}.weight", (self.embedding,), GGMLQuantizationType.F32, "ones")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("gemma3") / "model.gguf"
    write_model(path, Gemma3("qwen3", layers=4, feed_forward=1440))
    return path


def test_it_is_loaded_and_generates(path: Path, profile: Profile) -> None:
    with load(path, memory="2GiB", context=128, threads=1, profile=profile) as model:
        assert model.plan.mode == "resident"
        assert "".join(model.generate("w1 w2", max_tokens=8, temperature=0))


def test_its_logits_are_those_of_a_plain_run(path: Path, profile: Profile) -> None:
    model = read_model(path)
    with pytest.raises(PlanError, match=WHY) as refused:
        plan_model(model, profile, 1 << 20, context=256, threads=1)
    # Too little for large batches, so that streaming would be considered.
    plan = plan_model(model, profile, refused.value.needed, context=256, threads=1)
    assert plan.mode == "resident"
    assert any(WHY in reason for reason in plan.reasons)
    prompt = prompt_of(40, 512)
    engine, reference = load_engine(plan), load_reference(plan)
    try:
        logits = generate(engine, prompt, 20)
        assert np.isfinite(logits).all()
        assert difference(logits, generate(reference, prompt, 20)) == ""
    finally:
        reference.close()
        engine.close()
