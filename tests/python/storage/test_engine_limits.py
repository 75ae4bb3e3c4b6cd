"""Models that would end llama.cpp's process, or have it read beyond an array, are refused by name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")

from make_model import write_model
from model_shapes import ARCHITECTURES, ModelShape
from tierpool.storage.errors import ModelError
from tierpool.storage.gguf import Model, read_model
from tierpool.storage.gguf_header import Value
from tierpool.storage.hyperparameters import read_hyperparameters

TINY = {"layers": 2, "heads": 2, "feed_forward": 96, "experts": 4, "used_experts": 2, "vocabulary": 260}
INT8, INT32, FLOAT32, TEXT, INT64 = 1, 5, 6, 8, 11
BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    folder = tmp_path_factory.mktemp("models")

    def read(architecture: str) -> Model:
        path = folder / f"{architecture}.gguf"
        if not path.exists():
            write_model(path, ModelShape(architecture, **TINY))  # type: ignore[arg-type]
        return read_model(path)

    return read


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_right_is_taken(model_of: Callable[[str], Model], architecture: str) -> None:
    assert read_hyperparameters(model_of(architecture)).layers == 2


BAD_KEYS: list[tuple[str, dict[str, Value], str]] = [
    ("llama", {"block_count": 0}, "block_count is 0, it must lie between 1 and 512"),
    ("llama", {"expert_used_count": 2}, "expert_used_count is 2, but there are no experts"),
    ("llama", {"expert_group_count": 1}, "expert_group_count is 1, it must be below the number of experts, 0"),
    ("llama", {"nextn_predict_layers": 3}, "nextn_predict_layers is 3, but there are 2 layers"),
    ("llama", {"rope.scaling.type": "x"}, "rope.scaling.type is 'x', it must be one of none, linear"),
    ("llama", {"attention.layer_norm_rms_epsilon": -1.0}, "epsilon is -1.0, it must be 0 or more"),
    ("llama", {"attention.layer_norm_rms_epsilon": float("nan")}, "epsilon is nan, it must be 0 or more"),
    ("llama", {"attention.head_count": 0}, r"head_count is \(0, 0\), it must be the same in all layers"),
    ("llama", {"attention.head_count_kv": (1, 2)}, r"head_count_kv is \(1, 2\), it must be the same"),
    ("llama", {"attention.head_count": 3, "attention.head_count_kv": 2}, "is 2, it must divide the number of heads, 3"),
    ("qwen2", {"attention.head_count": 4}, r"'blk.0.attn_q.weight' has the shape \(128, 128\).* must be 256, for 4"),
    ("qwen3", {"attention.key_length": 0}, "key_length is 0, it must be an even number"),
    ("qwen3", {"attention.value_length": 32}, "value_length is 32, it must be attention.key_length, 64"),
    ("qwen3moe", {"rope.dimension_count": 32}, "rope.dimension_count is 32, it must be attention.key_length, 64"),
    ("gpt-oss", {"attention.key_length_swa": 32}, "key_length_swa is 32, it must be attention.key_length, 64"),
    ("gpt-oss", {"attention.sliding_window_pattern": 1}, "pattern is 1, which gives none of 2 layers a window"),
    ("gpt-oss", {"attention.sliding_window_pattern": (0, 0)}, r"pattern is \(0, 0\), which gives none"),
    ("gpt-oss", {"nextn_predict_layers": 2}, "pattern is 2, which gives none of 0 layers a window"),
    ("qwen3moe", {"expert_used_count": 5}, "expert_used_count is 5, but there are 4 experts"),
    ("qwen3moe", {"expert_used_count": 0}, "expert_used_count is 0, but there are 4 experts"),
    ("qwen3moe", {"expert_group_count": 3}, "expert_group_count is 3, it must divide the number of experts, 4"),
    ("qwen3moe", {"expert_group_count": 2}, "expert_group_used_count is 0, it must lie between 1 and 1"),
]


@pytest.mark.parametrize(("architecture", "keys", "says"), BAD_KEYS)
def test_sizes_that_llama_cpp_asserts(
    model_of: Callable[[str], Model], architecture: str, keys: dict[str, Value], says: str
) -> None:
    model = model_of(architecture)
    changed = {f"{model.architecture}.{key}": value for key, value in keys.items()}
    with pytest.raises(ModelError, match=says):
        read_hyperparameters(replace(model, metadata={**model.metadata, **changed}))


def test_a_table_whose_offsets_llama_cpp_trusts(model_of: Callable[[str], Model]) -> None:
    model = model_of("llama")
    metadata = {**model.metadata, "tokenizer.ggml.precompiled_charsmap": (1, 2)}
    with pytest.raises(ModelError, match="precompiled_charsmap is no part of a model of architecture llama"):
        read_hyperparameters(replace(model, metadata=metadata))


@pytest.mark.parametrize(
    ("name", "type_name", "says"),
    [
        ("blk.0.attn_norm.weight", "F16", "it must be F32"),
        ("blk.1.attn_sinks.weight", "BF16", "it must be F32"),
        ("blk.1.ffn_up_exps.bias", "F16", "it must be F32"),
        ("blk.0.ffn_gate_inp.weight", "I32", "weights cannot have"),
    ],
)
def test_types_that_llama_cpp_cannot_compute_with(
    model_of: Callable[[str], Model], name: str, type_name: str, says: str
) -> None:
    model = model_of("gpt-oss")
    tensors = tuple(replace(one, type_name=type_name) if one.name == name else one for one in model.tensors)
    with pytest.raises(ModelError, match=f"'{name}' has the type {type_name}, .*{says}"):
        read_hyperparameters(replace(model, tensors=tensors))


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def array(kind: int, elements: list[bytes]) -> bytes:
    return struct.pack("<IIQ", 9, kind, len(elements)) + b"".join(elements)


def texts(tokens: list[bytes]) -> bytes:
    return array(TEXT, [text(token) for token in tokens])


def numbers(kind: int, code: str, values: list[int]) -> bytes:
    return array(kind, [struct.pack(f"<{code}", value) for value in values])


def write(path: Path, **values: bytes) -> Path:
    keys = {"general.architecture": struct.pack("<I", TEXT) + text(b"llama")}
    keys |= {f"tokenizer.ggml.{name}": value for name, value in values.items()}
    data = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys))
    data += b"".join(text(key.encode()) + value for key, value in keys.items())
    data += text(b"t") + struct.pack("<IQIQ", 1, 8, 0, 0)
    path.write_bytes(data + bytes(-len(data) % 32) + bytes(32))
    return path


TOKENS = [b"a", b"b", b"c"]
LLAMA, BERT = (struct.pack("<I", TEXT) + text(name) for name in (b"llama", b"bert"))
BAD_TOKENIZERS = {
    "tokens is no array, it must be one of texts": {"tokens": LLAMA},
    "tokens has elements of type 5, they must be texts": {"tokens": numbers(INT32, "i", [1, 2])},
    "merges has elements of type 1, they must be texts": {"merges": numbers(INT8, "b", [1, 2])},
    "scores has elements of type 1, they must be float32": {"scores": numbers(INT8, "b", [1, 2, 3])},
    "token_type has elements of type 11, they must be int32": {"token_type": numbers(INT64, "q", [1, 2, 3])},
    "scores has 2 elements for 3 tokens": {"tokens": texts(TOKENS), "scores": numbers(FLOAT32, "f", [1, 2])},
    "token_type has 2 elements for 3 tokens": {"tokens": texts(TOKENS), "token_type": numbers(INT32, "i", [1, 2])},
    "has the text b'a' twice, again at 2": {"tokens": texts([b"a", b"b", b"a"])},
    r"has the text b'\[EMPTY_1\]' twice": {"tokens": texts([b"[EMPTY_1]", b"", b"a"])},
    "lacks the byte 0x0A, tokenizer 'llama'": {"model": LLAMA, "tokens": texts(BYTES[:10] + BYTES[11:])},
    "token 1 is a byte, which tokenizer 'bert'": {
        "model": BERT,
        "tokens": texts(TOKENS),
        "token_type": numbers(INT32, "i", [1, 6, 1]),
    },
}


@pytest.mark.parametrize("says", BAD_TOKENIZERS)
def test_tokenizers_that_llama_cpp_cannot_take(tmp_path: Path, says: str) -> None:
    with pytest.raises(ModelError, match=f"model.gguf: tokenizer.ggml.*{says}"):
        read_model(write(tmp_path / "model.gguf", **BAD_TOKENIZERS[says]))


def test_tokenizers_that_llama_cpp_takes(tmp_path: Path) -> None:
    tokens = [*BYTES[:10], b"\n", *BYTES[11:], b"", b"word"]  # a byte may stand for itself
    scores = numbers(INT32, "i", [0] * (len(tokens) + 1))
    types = numbers(INT32, "i", [1] * len(tokens))
    beyond = struct.pack("<II", 4, 1 << 30)  # llama.cpp does without such a token
    path = tmp_path / "model.gguf"
    read_model(write(path, model=LLAMA, tokens=texts(tokens), scores=scores, token_type=types, eos_token_id=beyond))
