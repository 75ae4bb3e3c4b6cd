"""The tensor table of a model: every tensor of every shard, with its place in its file, checked.

The header is walked by `gguf_header` within strict bounds; the package ``gguf`` says what a tensor type is called and
how large its blocks are. Its own reader is not used: it makes several NumPy objects of every element of an array, which
for a vocabulary of 152,000 entries took 6 seconds and 450 MB, in the very process whose memory is being planned.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tierpool.storage.errors import ModelError
from tierpool.storage.gguf_header import MAX_NUMBER, Header, LongArray, TensorEntry, Value, read_header
from tierpool.storage.tokenizer_checks import check_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SHARDS: Final = 4096

_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True)
class TensorType:
    """How weights are packed: a block of `block_weights` weights takes `block_bytes`."""

    name: str
    block_weights: int
    block_bytes: int


@dataclass(frozen=True)
class Tensor:
    """One tensor and its place.

    Attributes
    ----------
    shape : tuple of int
        In the file's order: the first number is the row length, the last the number of experts.
    file_index : int
        Which of the model's files holds it.
    offset_bytes, size_bytes : int
        Where its data begins in that file, and how long it is.
    """

    name: str
    type_name: str
    shape: tuple[int, ...]
    file_index: int
    offset_bytes: int
    size_bytes: int

    @property
    def end_bytes(self) -> int:
        """Where its data ends in the file."""
        return self.offset_bytes + self.size_bytes


@dataclass(frozen=True)
class ModelFile:
    """One file of a model; size, time and inode tell whether it is still the same file later."""

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Model:
    """The header of a model: all that planning needs, and no weights."""

    architecture: str
    metadata: Mapping[str, Value]
    files: tuple[ModelFile, ...]
    tensors: tuple[Tensor, ...]

    @property
    def path(self) -> str:
        """The first file."""
        return self.files[0].path

    @property
    def weight_bytes(self) -> int:
        """All tensors together."""
        return sum(tensor.size_bytes for tensor in self.tensors)


def read_model(path: str | os.PathLike[str]) -> Model:
    """Read the tensor table of a GGUF model; with shards, any of them may be named.

    Parameters
    ----------
    path : path-like
        A GGUF file. ``NAME-00001-of-00003.gguf`` stands for all three shards.

    Raises
    ------
    ModelError
        When a file is refused or a shard is missing; the message names it.
    OSError
        When the file cannot be read.
    ImportError
        When the package ``gguf`` is not installed.
    """
    paths = _shard_paths(os.fspath(path))
    files, headers = [], []
    for index, shard in enumerate(paths):
        file, header = _open_header(shard)
        _check_shard(shard, header, index, len(paths))
        files.append(file)
        headers.append(header)
    check_tokenizer(paths[0], headers[0])
    metadata = headers[0].metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ModelError(f"{paths[0]}: general.architecture is missing, so that nothing says what model this is")
    return Model(architecture, metadata, tuple(files), _all_tensors(files, headers))


@lru_cache(maxsize=1)
def tensor_types() -> Mapping[int, TensorType]:
    """Every tensor type that the package ``gguf`` knows, by its number in the file."""
    try:
        from gguf.constants import GGML_QUANT_SIZES  # noqa: PLC0415  (an extra, and half a second to import)
    except ImportError as error:
        raise ImportError(
            "reading GGUF files needs the package gguf: pip install 'tierpool[llama]' ('tierpool[gguf]' to plan only)"
        ) from error
    return {int(kind): TensorType(kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def _shard_paths(path: str) -> list[str]:
    """All files of a model, in order; the path alone when its name is not a shard's."""
    named = _SHARD_NAME.fullmatch(path)
    if named is None:
        return [path]
    count = int(named["count"])
    if not 1 <= int(named["number"]) <= count <= MAX_SHARDS:
        raise ModelError(f"{path}: no shard has this number; shards count from 1, and to {MAX_SHARDS} at most")
    shards = [f"{named['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    for shard in shards:
        if not os.path.exists(shard):  # noqa: PTH110  (a name is put together here, not a path taken apart)
            raise ModelError(f"{shard}: this shard of {count} is missing; put it beside {os.path.basename(path)}")  # noqa: PTH119
    return shards


def _open_header(path: str) -> tuple[ModelFile, Header]:
    # Without O_NONBLOCK the open of a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: this is no regular file; name the GGUF file itself")
        header = read_header(path, descriptor)
    finally:
        os.close(descriptor)
    return ModelFile(path, status.st_size, status.st_mtime_ns, status.st_ino), header


def _integer(path: str, header: Header, key: str, default: int) -> int:
    value = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        shown = "an array" if isinstance(value, LongArray) else repr(value)
        raise ModelError(f"{path}: {key} is {shown}, it must be a whole number")
    return value


def _check_shard(path: str, header: Header, index: int, count: int) -> None:
    claimed_count = _integer(path, header, "split.count", default=1)
    claimed_index = _integer(path, header, "split.no", default=0)
    if claimed_count > 1 and count == 1:
        raise ModelError(
            f"{path}: it is one of {claimed_count} shards, but is not called NAME-00001-of-{claimed_count:05}.gguf; "
            "give all shards their names back"
        )
    if claimed_count != count or claimed_index != index:
        raise ModelError(
            f"{path}: it says that it is shard {claimed_index + 1} of {claimed_count}, but stands in the place of "
            f"shard {index + 1} of {count}; copy the right one"
        )


def _all_tensors(files: list[ModelFile], headers: list[Header]) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    for index, (file, header) in enumerate(zip(files, headers, strict=True)):
        found = [_tensor(file, header, entry, index) for entry in header.tensors]
        _refuse_overlaps(file, found)
        for tensor in found:
            if tensor.name in tensors:
                raise ModelError(
                    f"{file.path}: the tensor {tensor.name!r} is in another shard too; copy the shards again"
                )
            tensors[tensor.name] = tensor
    if not tensors:
        raise ModelError(f"{files[0].path}: it holds no tensors, only a vocabulary or metadata: this is no model")
    promised = _integer(files[0].path, headers[0], "split.tensors.count", default=len(tensors))
    if promised != len(tensors):
        raise ModelError(f"{files[0].path}: {promised} tensors are promised, the shards hold {len(tensors)}")
    return tuple(tensors.values())


def _tensor(file: ModelFile, header: Header, entry: TensorEntry, file_index: int) -> Tensor:
    kind = tensor_types().get(entry.type_id)
    what = f"{file.path}: tensor {entry.name!r}"
    if kind is None:
        raise ModelError(
            f"{what} has the type {entry.type_id}, which gguf {version('gguf')} does not know; update gguf"
        )
    if entry.shape[0] % kind.block_weights:
        raise ModelError(
            f"{what} has rows of {entry.shape[0]} weights, no whole {kind.name} blocks of {kind.block_weights}"
        )
    weights = 1
    for length in entry.shape:
        weights *= length
    size_bytes = weights // kind.block_weights * kind.block_bytes
    offset_bytes = header.data_offset_bytes + entry.relative_offset_bytes
    if entry.relative_offset_bytes % header.alignment:
        raise ModelError(f"{what} begins at {entry.relative_offset_bytes}, no multiple of {header.alignment}")
    end_bytes = offset_bytes + size_bytes
    if end_bytes > file.size_bytes:
        raise ModelError(
            f"{what} ends at byte {end_bytes if end_bytes <= MAX_NUMBER else 'beyond 2**63'}, "
            f"but the file has {file.size_bytes}; copy it again"
        )
    return Tensor(entry.name, kind.name, entry.shape, file_index, offset_bytes, size_bytes)


def _refuse_overlaps(file: ModelFile, tensors: list[Tensor]) -> None:
    in_order = sorted(tensors, key=lambda tensor: tensor.offset_bytes)
    for before, after in pairwise(in_order):
        if before.end_bytes > after.offset_bytes:
            raise ModelError(
                f"{file.path}: tensor {after.name!r} begins at {after.offset_bytes}, inside {before.name!r}, "
                f"which ends at {before.end_bytes}; the file is corrupt: copy it again"
            )
