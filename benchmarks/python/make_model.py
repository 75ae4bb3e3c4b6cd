"""Write a synthetic GGUF model: random weights, but every key, tensor and token that an engine asks for.

Weights have mean zero, so that routing spreads over the experts; every expert's bytes differ; strides of experts are no
multiples of a page where the type allows it. For tests and benchmarks of models larger than memory.

Run: ``python benchmarks/python/make_model.py OUT.gguf --architecture qwen3moe --size 5GB [--quantization Q4_0]
[--layers N] [--experts N] [--tied] [--shards N] [--seed N]``
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFWriter
from gguf.constants import GGMLQuantizationType

from model_blocks import BlockPool
from model_shapes import ARCHITECTURES, QUANTIZATIONS, ModelShape, TensorShape, shape_of_size
from tierpool.config_values import bytes_of_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ALIGNMENT = 32
_SMALL_MODEL_BYTES = 200 << 20
_POOL_BYTES = 16 << 20
_SMALL_POOL_BYTES = 2 << 20
# Tokens must stay apart through all layers. Where they are routed, what layers add to them must stay small besides, or
# all of them go to the same experts; without experts, a text would go round in circles then.
_EMBEDDING_DEVIATIONS = {"embedding": 1.0, "routed embedding": 4.0}
_SPECIAL = ("<unk>", "<s>", "</s>")
_UNKNOWN, _CONTROL, _BYTE, _NORMAL = 2, 3, 6, 1
_CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


class _Weights:
    """The bytes of every tensor, one after the other."""

    def __init__(self, pool_bytes: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pool_bytes = pool_bytes
        self._pools: dict[tuple[GGMLQuantizationType, float], BlockPool] = {}

    def of(self, tensor: TensorShape) -> Iterator[memoryview]:
        if tensor.fill not in {"weights", *_EMBEDDING_DEVIATIONS}:
            yield self._floats(tensor).reshape(-1).view(np.uint8).data
            return
        # A row's product with a vector of deviation 1 has deviation 1 too.
        key = (tensor.kind, _EMBEDDING_DEVIATIONS.get(tensor.fill, 1 / math.sqrt(tensor.shape[0])))
        if key not in self._pools:
            self._pools[key] = BlockPool(*key, self._pool_bytes, self._rng)
        for _ in range(tensor.pieces):
            yield from self._pools[key].runs(tensor.size_bytes // tensor.pieces)

    def _floats(self, tensor: TensorShape) -> NDArray[np.float32]:
        shape = tensor.shape[::-1]
        if tensor.fill == "ones":
            return self._rng.uniform(0.95, 1.05, shape).astype(np.float32)
        if tensor.fill == "small":
            return self._rng.normal(0, 0.02, shape).astype(np.float32)
        # Some experts are more popular than others, as in real models.
        popularity = self._rng.lognormal(0, 0.5, (shape[0], 1))
        return (self._rng.normal(0, 1 / math.sqrt(shape[1]), shape) * popularity).astype(np.float32)


def _vocabulary(size: int) -> tuple[list[bytes], list[float], list[int]]:
    """Tokens, scores and types: special ones, every byte, then words; any text can be written with them."""
    if size < len(_SPECIAL) + 256:
        raise ValueError(f"vocabulary is {size}, it must be at least {len(_SPECIAL) + 256}")
    words = [f"\N{LOWER ONE EIGHTH BLOCK}w{index}" for index in range(size - len(_SPECIAL) - 256)]
    tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(words)]
    return [token.encode() for token in tokens], [-float(index) for index in range(size)], types


def _add_metadata(writer: GGUFWriter, shape: ModelShape, name: str) -> None:
    writer.add_name(name)
    for key, value in shape.metadata().items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{shape.gguf_architecture}.{key}", value)  # type: ignore[arg-type]
    tokens, scores, types = _vocabulary(shape.vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _write_header(writer: GGUFWriter, tensors: list[TensorShape]) -> None:
    for tensor in tensors:
        byte_shape = [*tensor.shape[:0:-1], tensor.size_bytes // math.prod(tensor.shape[1:])]
        writer.add_tensor_info(tensor.name, byte_shape, np.dtype(np.uint8), tensor.size_bytes, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _append_data(path: Path, tensors: list[TensorShape], weights: _Weights) -> None:
    with path.open("ab") as file:
        for tensor in tensors:
            file.write(bytes(-file.tell() % ALIGNMENT))
            for run in weights.of(tensor):
                file.write(run)
        file.write(bytes(-file.tell() % ALIGNMENT))


def shard_paths(path: Path, shards: int) -> list[Path]:
    """Name the files of a model."""
    if shards == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number:05}-of-{shards:05}.gguf") for number in range(1, shards + 1)]


def write_model(path: Path, shape: ModelShape, *, seed: int = 0, shards: int = 1) -> list[Path]:
    """Write a model.

    Parameters
    ----------
    path : Path
        The file; with several shards, the name that theirs are made of.
    shape : ModelShape
        What to write.
    seed : int
        Equal seeds give equal files.
    shards : int
        Files to spread the tensors over.

    Returns
    -------
    list of Path
        The files.
    """
    tensors = list(shape.tensors())
    paths = shard_paths(path, shards)
    weights = _Weights(_SMALL_POOL_BYTES if shape.size_bytes < _SMALL_MODEL_BYTES else _POOL_BYTES, seed)
    each = -(-len(tensors) // shards)
    for index, file in enumerate(paths):
        writer = GGUFWriter(file, shape.gguf_architecture)
        if index == 0:
            _add_metadata(writer, shape, path.stem)
        if shards > 1:
            writer.add_uint16("split.no", index)
            writer.add_uint16("split.count", shards)
            writer.add_int32("split.tensors.count", len(tensors))
        own = tensors[index * each : (index + 1) * each]
        _write_header(writer, own)
        _append_data(file, own, weights)
    return paths


def main() -> None:
    """Write what the arguments say, and tell how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="qwen3moe")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default="Q4_0")
    parser.add_argument("--size", default="30MB", help="about how large, such as 30MB or 5GB")
    for name in ("layers", "heads", "feed-forward", "experts", "used-experts", "vocabulary"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--tied", action="store_true", help="the output is the embedding")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = ("layers", "heads", "feed_forward", "experts", "used_experts", "vocabulary")
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    size_bytes = bytes_of_text("--size", options.size)
    shape = shape_of_size(options.architecture, options.quantization, size_bytes, tied=options.tied, **chosen)
    begin = time.perf_counter()
    paths = write_model(options.path, shape, seed=options.seed, shards=options.shards)
    seconds = time.perf_counter() - begin
    written = sum(path.stat().st_size for path in paths)
    print(f"{shape}")
    print(
        f"{written / 1e6:,.0f} MB in {seconds:.1f} s, {written / 1e6 / seconds:,.0f} MB/s: {', '.join(map(str, paths))}"
    )


if __name__ == "__main__":
    main()
