"""llama.cpp loads the synthetic models of every architecture, and computes something with them."""

from __future__ import annotations

import logging
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from make_model import write_model  # noqa: E402
from model_shapes import ARCHITECTURES, ModelShape  # noqa: E402
from tierpool.storage.footprint import estimate_footprint  # noqa: E402
from tierpool.storage.gguf import read_model  # noqa: E402
from tierpool.storage.hyperparameters import read_hyperparameters  # noqa: E402
from tierpool.storage.llama_library import llama_library  # noqa: E402

TOKENS = 16
MIB = 1 << 20


def generate(path: Path) -> tuple[list[int], np.ndarray]:
    """Continue a text greedily; also the last logits."""
    llama = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, use_mmap=True, verbose=False)
    try:
        prompt = llama.tokenize(b"w1 w2 w3 and bytes", add_bos=True)
        found = list(islice(llama.generate(prompt, temp=0.0, top_k=1), TOKENS))
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(llama.ctx), (llama.n_vocab(),)).copy()
    finally:
        llama.close()
    return found, logits


@pytest.mark.parametrize(
    ("architecture", "tied"),
    # gpt-oss always has an output of its own.
    [(name, tied) for name in ARCHITECTURES for tied in (False, True) if not (tied and name == "gpt-oss")],
)
def test_architectures(tmp_path: Path, architecture: str, tied: bool) -> None:
    shape = ModelShape(architecture, layers=3, vocabulary=400, tied=tied)
    paths = write_model(tmp_path / "model.gguf", shape, shards=2)
    tokens, logits = generate(paths[0])
    assert len(tokens) == TOKENS
    assert tied or len(set(tokens)) > 2
    assert np.isfinite(logits).all()
    assert logits.std() > 0.1


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3moe", "gpt-oss"])
def test_two_experts_that_change_places_are_noticed(tmp_path: Path, architecture: str) -> None:
    shape = ModelShape(architecture, layers=2, vocabulary=400)
    (path,) = write_model(tmp_path / "model.gguf", shape)
    _, logits = generate(path)
    np.testing.assert_array_equal(generate(path)[1], logits)
    tensor = next(tensor for tensor in read_model(path).tensors if tensor.name == "blk.0.ffn_up_exps.weight")
    stride = tensor.size_bytes // shape.experts
    with path.open("r+b") as file:
        file.seek(tensor.offset_bytes)
        experts = file.read(tensor.size_bytes)
        file.seek(tensor.offset_bytes)
        file.write(experts[stride:] + experts[:stride])
    assert np.abs(generate(path)[1] - logits).max() > 0.01


@pytest.mark.parametrize("quantization", ["Q8_0", "MXFP4", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M", "F16"])
def test_quantizations(tmp_path: Path, quantization: str) -> None:
    shape = ModelShape("qwen3moe", quantization, layers=2, heads=4, feed_forward=256, vocabulary=400)
    (path,) = write_model(tmp_path / "model.gguf", shape)
    tokens, logits = generate(path)
    assert len(tokens) == TOKENS
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("context", [512, 8192])
@pytest.mark.parametrize("vocabulary", [300, 8000])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_planner_bounds_what_llama_cpp_reserves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: str, vocabulary: int, context: int
) -> None:
    shape = ModelShape(architecture, layers=2, heads=8, feed_forward=512, vocabulary=vocabulary)
    (path,) = write_model(tmp_path / "model.gguf", shape)
    llama_library()  # sends the log to ours, for the whole process
    footprint = estimate_footprint(read_hyperparameters(read_model(path)), context)
    for n_ubatch in (16, 512):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="tierpool"):
            llama_cpp.Llama(str(path), n_ctx=context, n_batch=n_ubatch, n_ubatch=n_ubatch, flash_attn=True).close()
        log = caplog.text
        compute = sum(map(float, re.findall(r"compute buffer size = +([\d.]+) MiB", log))) * MIB
        cached = sum(map(float, re.findall(r"KV buffer size = +([\d.]+) MiB", log))) * MIB
        assert compute > 0
        bound = footprint.compute_bytes(n_ubatch)
        assert compute <= bound <= 2 * compute + 12 * MIB
        assert 0 < cached <= footprint.kv_bytes
