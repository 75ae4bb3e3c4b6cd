"""Tensor tables of files that are whole, and of files that are not."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

gguf = pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")

from make_model import write_model  # noqa: E402
from model_shapes import ARCHITECTURES, ModelShape  # noqa: E402
from tierpool.storage.errors import ModelError  # noqa: E402
from tierpool.storage.gguf import read_model  # noqa: E402
from tierpool.storage.gguf_header import LongArray  # noqa: E402

TINY = ModelShape("qwen3moe", layers=2, heads=1, feed_forward=96, experts=4, used_experts=2, vocabulary=260)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, *shape: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(keys: list[bytes], tensors: list[bytes], version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)


ARCHITECTURE = key("general.architecture", 8, text("llama"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(content: bytes, data: int = 4096) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content + bytes(-len(content) % 32) + bytes(data))
        return path

    return write_file


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_table_is_what_the_package_reads(tmp_path: Path, architecture: str, shards: int) -> None:
    shape = ModelShape(architecture, layers=3, heads=1, feed_forward=96, experts=4, used_experts=2, vocabulary=260)
    paths = write_model(tmp_path / "model.gguf", shape, shards=shards)
    model = read_model(paths[-1])
    assert model.architecture == shape.gguf_architecture
    assert [file.path for file in model.files] == [str(path) for path in paths]
    theirs = [(index, tensor) for index, path in enumerate(paths) for tensor in gguf.GGUFReader(path).tensors]
    assert [
        (tensor.file_index, tensor.name, tensor.type_name, tensor.shape, tensor.offset_bytes, tensor.size_bytes)
        for tensor in model.tensors
    ] == [
        (index, tensor.name, tensor.tensor_type.name, tuple(tensor.shape), tensor.data_offset, tensor.n_bytes)
        for index, tensor in theirs
    ]
    assert model.weight_bytes == shape.size_bytes
    assert model.metadata["tokenizer.ggml.tokens"] == LongArray(260)
    assert model.metadata[f"{model.architecture}.block_count"] == 3


def test_values_of_every_kind(write: Callable[..., Path]) -> None:
    scalars = [("B", 200), ("b", -1), ("H", 60000), ("h", -2), ("I", 1 << 31), ("i", -3), ("f", 0.5), ("?", True)]
    keys = [key(f"k{kind}", kind, struct.pack("<" + code, value)) for kind, (code, value) in enumerate(scalars)]
    keys += [key("k10", 10, struct.pack("<Q", 1 << 63)), key("k11", 11, struct.pack("<q", -1))]
    keys += [key("k12", 12, struct.pack("<d", 0.1)), key("text", 8, text("h\N{LATIN SMALL LETTER E WITH ACUTE}"))]
    keys += [key("list", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3)), key("none", 9, struct.pack("<IQ", 5, 0))]
    keys += [key("texts", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc"))]
    keys += [key("long", 9, struct.pack("<IQ", 0, 5000) + bytes(5000)), ARCHITECTURE]
    metadata = read_model(write(header(keys, [tensor("t", 8)]))).metadata
    assert [metadata[f"k{kind}"] for kind in range(8)] == [value for _, value in scalars]
    assert (metadata["k10"], metadata["k11"], metadata["k12"]) == (1 << 63, -1, 0.1)
    assert metadata["text"] == "h\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert (metadata["list"], metadata["none"]) == ((1, 2, 3), ())
    assert (metadata["texts"], metadata["long"]) == (LongArray(2), LongArray(5000))


MANY = 1 << 60
BAD = {
    "is no GGUF file": b"GGML" + bytes(100),
    "version 1;": header([ARCHITECTURE], [tensor("t", 8)], version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100),
    "claims 65537 tensors": b"GGUF" + struct.pack("<IQQ", 3, 65537, 0) + bytes(100),
    f"claims {MANY} keys": b"GGUF" + struct.pack("<IQQ", 3, 1, MANY) + bytes(100),
    "claims 60000 keys, more than": b"GGUF" + struct.pack("<IQQ", 3, 1, 60000) + bytes(100),
    "appears twice": header([ARCHITECTURE, ARCHITECTURE], [tensor("t", 8)]),
    "tensor 't' appears twice": header([ARCHITECTURE], [tensor("t", 8), tensor("t", 8, offset=32)]),
    "which is no name": header([key("", 4, bytes(4))], [tensor("t", 8)]),
    r"which is no name; the file": header([key("a\0b", 4, bytes(4))], [tensor("t", 8)]),
    f"is {MANY} bytes long": header([struct.pack("<Q", MANY) + bytes(20)], [tensor("t", 8)]),
    "has the unknown type 13": header([key("k", 13, bytes(8))], [tensor("t", 8)]),
    "elements of the unknown type 9": header([key("k", 9, struct.pack("<IQ", 9, 1))], [tensor("t", 8)]),
    f"claims {MANY} elements": header([key("k", 9, struct.pack("<IQ", 0, MANY))], [tensor("t", 8)]),
    "holds a text of": header([key("k", 9, struct.pack("<IQQ", 8, 1, MANY))], [tensor("t", 8)]),
    "general.alignment is 48": header([key("general.alignment", 4, struct.pack("<I", 48))], [tensor("t", 8)]),
    "general.alignment is 0": header([key("general.alignment", 4, bytes(4))], [tensor("t", 8)]),
    "general.alignment is True": header([key("general.alignment", 7, b"\1")], [tensor("t", 8)]),
    "general.architecture is missing": header([], [tensor("t", 8)]),
    "holds no tensors": header([ARCHITECTURE], []),
    "has 0 dimensions": header([ARCHITECTURE], [tensor("t")]),
    "has 5 dimensions": header([ARCHITECTURE], [tensor("t", 1, 1, 1, 1, 1)]),
    "no dimension may be 0": header([ARCHITECTURE], [tensor("t", 8, 0)]),
    "at most 2": header([ARCHITECTURE], [tensor("t", 1 << 40, 1 << 40)]),
    "has the type 99": header([ARCHITECTURE], [tensor("t", 32, kind=99)]),
    "no whole Q4_0 blocks of 32": header([ARCHITECTURE], [tensor("t", 33, kind=2)]),
    "no multiple of 32": header([ARCHITECTURE], [tensor("t", 8, offset=16)]),
    r"ends at byte \d+, but the file": header([ARCHITECTURE], [tensor("t", 1 << 10, offset=3200)]),
    r"ends at byte beyond 2": header([ARCHITECTURE], [tensor("t", 8, offset=(1 << 64) - 32)]),
    "inside 'a'": header([ARCHITECTURE], [tensor("a", 64), tensor("b", 8, offset=224)]),
    "it is one of 2 shards": header([ARCHITECTURE, key("split.count", 2, b"\2\0")], [tensor("t", 8)]),
    "split.count is 'x'": header([ARCHITECTURE, key("split.count", 8, text("x"))], [tensor("t", 8)]),
    "2 tensors are promised": header([ARCHITECTURE, key("split.tensors.count", 5, b"\2\0\0\0")], [tensor("t", 8)]),
    "the limit is 63": header([ARCHITECTURE], [tensor("t" * 64, 8)]),
}


@pytest.mark.parametrize("says", BAD)
def test_bad_files_are_refused(write: Callable[..., Path], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        read_model(write(BAD[says]))
    assert "model.gguf: " in str(caught.value)


def test_every_truncation_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    content = header([ARCHITECTURE, key("k", 9, struct.pack("<IQ", 8, 1) + text("abc"))], [tensor("t", 8)])
    whole = write(content, data=32).read_bytes()
    assert read_model(tmp_path / "model.gguf").tensors[0].end_bytes == len(whole)
    for length in range(len(whole)):
        (tmp_path / "model.gguf").write_bytes(whole[:length])
        says = "but the file has" if length < len(content) else "ends at byte"
        with pytest.raises(ModelError, match=f"{says}|can hold"):
            read_model(tmp_path / "model.gguf")


def test_a_header_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    length = 1 << 28
    path.write_bytes(header([key("k", 9, struct.pack("<IQ", 0, length))], [tensor("t", 8)]))
    os.truncate(path, 1 << 30)  # a hole: the file is large, the disk is not
    with pytest.raises(ModelError, match="passes 128 MiB, the limit for a header"):
        read_model(path)


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second, third = write_model(tmp_path / "model.gguf", TINY, shards=3)
    assert len(read_model(second).files) == 3
    second.rename(tmp_path / "kept")
    with pytest.raises(ModelError, match=r"model-00002-of-00003\.gguf: this shard of 3 is missing"):
        read_model(first)
    second.write_bytes(third.read_bytes())
    with pytest.raises(ModelError, match="it is shard 3 of 3, but stands in the place of shard 2 of 3"):
        read_model(first)
    with pytest.raises(ModelError, match="no shard has this number"):
        read_model(tmp_path / "model-00004-of-00003.gguf")
    alone = tmp_path / "model.gguf"
    alone.write_bytes(first.read_bytes())
    with pytest.raises(ModelError, match="it is one of 3 shards, but is not called"):
        read_model(alone)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "missing.gguf")
    with pytest.raises(ModelError, match="no regular file"):
        read_model(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelError, match="no regular file"):
        read_model(tmp_path / "pipe.gguf")
