"""The synthetic models: what tests and benchmarks rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")

from gguf.constants import GGMLQuantizationType  # noqa: E402
from gguf.quants import dequantize  # noqa: E402

import make_model  # noqa: E402
from make_model import write_model  # noqa: E402
from model_blocks import CHUNK_SHARE, MAKERS, BlockPool  # noqa: E402
from model_shapes import ARCHITECTURES, QUANTIZATIONS, ModelShape, shape_of_size  # noqa: E402
from tierpool.storage.gguf import read_model  # noqa: E402
from tierpool.storage.hyperparameters import read_hyperparameters  # noqa: E402
from tierpool.storage.streaming import Streaming, find_streaming  # noqa: E402
from tierpool.storage.units import PAGE_BYTES  # noqa: E402

MIB = 1 << 20


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_have_mean_zero_and_the_wanted_deviation(kind: GGMLQuantizationType) -> None:
    blocks = MAKERS[kind](np.random.default_rng(0), 8000, 0.05)
    weights = dequantize(blocks, kind)
    assert np.isfinite(weights).all()
    assert abs(weights.mean()) < 0.002
    assert 0.03 < weights.std() < 0.08


def test_runs_of_a_pool_never_begin_alike() -> None:
    pool = BlockPool(GGMLQuantizationType.Q8_0, 0.1, 1 << 16, np.random.default_rng(0))
    count = (1 << 16) // 34
    runs = [bytes(*pool.runs(34 * 2)) for _ in range(count - count // CHUNK_SHARE)]
    assert {len(run) for run in runs} == {68}
    assert len(set(runs)) == len(runs)
    with pytest.raises(ValueError, match="larger pool"):
        list(pool.runs(34))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("architecture", ["mixtral", "gpt-oss"])
def test_every_expert_is_unlike_the_others(tmp_path: Path, architecture: str, quantization: str) -> None:
    shape = ModelShape(architecture, quantization, layers=2, heads=4, feed_forward=256, vocabulary=300)
    (path,) = write_model(tmp_path / "model.gguf", shape)
    data = path.read_bytes()
    seen = set()
    count = 0
    for tensor in read_model(path).tensors:
        if not tensor.name.endswith("_exps.weight"):
            continue
        stride = tensor.size_bytes // shape.experts
        for begin in range(tensor.offset_bytes, tensor.end_bytes, stride):
            seen.add(data[begin : begin + stride])
            count += 1
    assert len(seen) == count == 2 * 3 * shape.experts


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_default_strides_are_no_whole_pages_and_all_can_be_streamed(tmp_path: Path, architecture: str) -> None:
    shape = shape_of_size(architecture, "Q4_0", 30 * MIB)
    (path,) = write_model(tmp_path / "model.gguf", shape)
    assert abs(path.stat().st_size - 30 * MIB) < 6 * MIB
    model = read_model(path)
    sizes = read_hyperparameters(model)
    streaming = find_streaming(model, sizes)
    assert isinstance(streaming, Streaming)
    assert streaming.mode == ("experts" if shape.has_experts else "layers")
    assert streaming.edge_bytes > 0
    pieces = shape.experts if shape.has_experts else 1
    for tensor in model.tensors:
        if tensor.name in streaming.tensor_names:
            assert tensor.size_bytes // pieces % PAGE_BYTES
    assert (sizes.vocabulary, sizes.layers, sizes.experts) == (512, shape.layers, shape.experts if pieces > 1 else 0)


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    shape = ModelShape("qwen3", layers=2, heads=1, feed_forward=96, vocabulary=300)
    contents = []
    for seed in (1, 1, 2):
        folder = tmp_path / f"{len(contents)}"
        folder.mkdir()
        (path,) = write_model(folder / "model.gguf", shape, seed=seed)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_tied_embeddings(tmp_path: Path) -> None:
    for tied in (False, True):
        shape = ModelShape("llama", layers=1, heads=1, feed_forward=96, vocabulary=300, tied=tied)
        (path,) = write_model(tmp_path / "model.gguf", shape)
        names = [tensor.name for tensor in read_model(path).tensors]
        assert ("output.weight" in names) != tied


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"architecture": "gpt2"}, "known: llama"),
        ({"architecture": "llama", "quantization": "Q3_X"}, "known: Q4_0"),
        ({"architecture": "llama", "quantization": "Q4_K", "heads": 5}, "needs a multiple of 256"),
        ({"architecture": "gpt-oss", "tied": True}, "an output of its own"),
        ({"architecture": "qwen3moe", "used_experts": 99}, "between 1 and 16"),
    ],
)
def test_shapes_that_cannot_be(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelShape(**values)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    command = [sys.executable, make_model.__file__, str(path), "--architecture", "llama", "--size", "3MB", "--tied"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "MB/s" in output
    assert abs(path.stat().st_size - 3 * MIB) < MIB
