"""Walk the header of a GGUF file within strict bounds, before any library sees the file.

Nothing is believed: every count and length is compared with the bytes that are left before it is used, so that a
hostile header costs neither memory nor time. The file is read, not mapped, because a mapped file that shrinks kills the
process. Layout: magic, version, counts, keys with values, tensor descriptions, padding, data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from tierpool.storage.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEADER_BYTES: Final = 128 << 20
MAX_TENSORS: Final = 1 << 16
MAX_KEYS: Final = 1 << 16
MAX_KEY_BYTES: Final = (1 << 16) - 1
MAX_TEXT_BYTES: Final = 16 << 20
MAX_NAME_BYTES: Final = 63
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1 << 20
MAX_NUMBER: Final = 2**63 - 1
KEPT_ELEMENTS: Final = 4096
TEXT_KIND: Final = 8
STORED_WHOLE: Final = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"})

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_CHUNK_BYTES = 1 << 20
_SMALLEST_KEY_BYTES = 8 + 1 + 4 + 1
_SMALLEST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _UINT32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _UINT64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_ARRAY = 9


@dataclass(frozen=True)
class LongArray:
    """An array whose values are not kept, such as a vocabulary: only how long it is."""

    length: int


@dataclass(frozen=True)
class StoredArray:
    """How an array lies in the file.

    Attributes
    ----------
    kind : int
        The number of its elements' type.
    data : bytes
        The array as it is, of the keys in `STORED_WHOLE`; of others nothing.
    """

    kind: int
    length: int
    data: bytes


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | LongArray


@dataclass(frozen=True)
class TensorEntry:
    """What the header says of one tensor; only its form is checked yet."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    relative_offset_bytes: int


@dataclass(frozen=True)
class Header:
    """A header of good form.

    Attributes
    ----------
    data_offset_bytes : int
        Where the tensors' data begins: the end of the header, rounded up to the alignment.
    arrays : mapping
        Every array of the metadata once more, with what its value does not tell.
    """

    version: int
    alignment: int
    data_offset_bytes: int
    metadata: Mapping[str, Value]
    arrays: Mapping[str, StoredArray]
    tensors: tuple[TensorEntry, ...]


def read_header(path: str, descriptor: int) -> Header:
    """Read and check the header of an open file.

    Parameters
    ----------
    path : str
        The file's name, for messages.
    descriptor : int
        The file, open for reading.

    Raises
    ------
    ModelError
        When the file is no GGUF, ends early, or holds a count, length, name or number beyond its limit.
    OSError
        When the file cannot be read.
    """
    return _HeaderReader(path, descriptor).read()


class _HeaderReader:
    """A position in the header; its bytes are fetched as the position moves on."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._file_bytes = os.fstat(descriptor).st_size
        self._end = min(self._file_bytes, MAX_HEADER_BYTES)
        self._data = bytearray()
        self._position = 0
        self._arrays: dict[str, StoredArray] = {}

    def read(self) -> Header:
        version = self._read_version()
        tensor_count = self._count("tensors", MAX_TENSORS, _SMALLEST_TENSOR_BYTES)
        key_count = self._count("keys", MAX_KEYS, _SMALLEST_KEY_BYTES)
        metadata = self._read_metadata(key_count)
        alignment = self._alignment(metadata)
        tensors = self._read_tensors(tensor_count)
        data_offset_bytes = -(-self._position // alignment) * alignment
        return Header(version, alignment, data_offset_bytes, metadata, self._arrays, tensors)

    def _fail(self, problem: str) -> NoReturn:
        raise ModelError(f"{self._path}: {problem}")

    def _require(self, count: int, what: str) -> None:
        """Make sure that `count` bytes from here on belong to the header and are loaded."""
        needed = self._position + count
        if needed > self._end:
            if self._end < self._file_bytes:
                self._fail(
                    f"{what} passes {MAX_HEADER_BYTES >> 20} MiB, the limit for a header: this is no usable model"
                )
            self._fail(
                f"the file ends early: {what} needs {count} bytes at {self._position}, "
                f"but the file has {self._file_bytes}; copy it again"
            )
        while len(self._data) < needed:
            chunk = os.pread(self._descriptor, max(_CHUNK_BYTES, needed - len(self._data)), len(self._data))
            if not chunk:
                self._fail(f"the file shrank to {len(self._data)} bytes while it was read; copy it again")
            self._data += chunk

    def _number(self, kind: struct.Struct, what: str) -> int | float | bool:
        self._require(kind.size, what)
        (value,) = kind.unpack_from(self._data, self._position)
        self._position += kind.size
        return value  # type: ignore[no-any-return]

    def _integer(self, kind: struct.Struct, what: str) -> int:
        return int(self._number(kind, what))

    def _text(self, limit: int, what: str) -> str:
        length = self._integer(_UINT64, f"the length of {what}")
        if length > limit:
            self._fail(f"{what} is {length} bytes long, the limit is {limit}")
        self._require(length, what)
        raw = bytes(self._data[self._position : self._position + length])
        self._position += length
        # Vocabularies hold bytes that are no UTF-8; names must be exact, values are only shown.
        return raw.decode("utf-8", "replace")

    def _name(self, limit: int, what: str) -> str:
        name = self._text(limit, what)
        if not name or not name.isprintable() or "\N{REPLACEMENT CHARACTER}" in name:
            self._fail(f"{what} is {name[:40]!r}, which is no name; the file is corrupt: copy it again")
        return name

    def _count(self, what: str, limit: int, smallest_bytes: int) -> int:
        count = self._integer(_UINT64, f"the number of {what}")
        if count > limit:
            self._fail(f"it claims {count} {what}, the limit is {limit}")
        if count * smallest_bytes > self._file_bytes - self._position:
            self._fail(f"it claims {count} {what}, more than its {self._file_bytes} bytes can hold; copy it again")
        return count

    def _read_version(self) -> int:
        self._require(len(_MAGIC), "the magic number")
        magic = bytes(self._data[: len(_MAGIC)])
        if magic != _MAGIC:
            self._fail(f"it begins with {magic!r}, not with {_MAGIC!r}: this is no GGUF file")
        self._position = len(_MAGIC)
        version = self._integer(_UINT32, "the version")
        if version not in _VERSIONS:
            big_endian = int.from_bytes(_UINT32.pack(version), "big") in _VERSIONS
            problem = "it is big-endian" if big_endian else f"it is GGUF version {version}"
            self._fail(f"{problem}; versions 2 and 3, little-endian, can be read: convert the model again")
        return version

    def _read_metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for index in range(count):
            key = self._name(MAX_KEY_BYTES, f"key {index}")
            if key in metadata:
                self._fail(f"the key {key!r} appears twice")
            metadata[key] = self._value(key)
        return metadata

    def _value(self, key: str) -> Value:
        what = f"the value of {key!r}"
        kind = self._integer(_UINT32, what)
        if kind == _ARRAY:
            return self._array(key)
        if kind == TEXT_KIND:
            return self._text(MAX_TEXT_BYTES, what)
        if kind not in _NUMBERS:
            self._fail(f"{what} has the unknown type {kind}")
        return self._number(_NUMBERS[kind], what)

    def _array(self, key: str) -> tuple[Scalar, ...] | LongArray:
        what = f"the array {key!r}"
        kind = self._integer(_UINT32, what)
        length = self._integer(_UINT64, f"the length of {what}")
        if kind != TEXT_KIND and kind not in _NUMBERS:
            self._fail(f"{what} has elements of the unknown type {kind}")
        begin = self._position
        value = self._elements(kind, length, what)
        data = bytes(self._data[begin : self._position]) if key in STORED_WHOLE else b""
        self._arrays[key] = StoredArray(kind, length, data)
        return value

    def _elements(self, kind: int, length: int, what: str) -> tuple[Scalar, ...] | LongArray:
        element_bytes = 8 if kind == TEXT_KIND else _NUMBERS[kind].size
        if length * element_bytes > self._file_bytes - self._position:
            self._fail(f"{what} claims {length} elements, more than the file's {self._file_bytes} bytes can hold")
        if kind == TEXT_KIND:
            self._skip_texts(length, what)
            return LongArray(length)
        if length > KEPT_ELEMENTS:
            self._require(length * element_bytes, what)
            self._position += length * element_bytes
            return LongArray(length)
        return tuple(self._number(_NUMBERS[kind], what) for _ in range(length))

    def _skip_texts(self, count: int, what: str) -> None:
        """Step over the texts of an array; vocabularies have hundreds of thousands, so the loop is bare."""
        unpack_from, data, position = _UINT64.unpack_from, self._data, self._position
        for _ in range(count):
            if position + 8 > len(data):
                self._position = position
                self._require(8, what)
            (length,) = unpack_from(data, position)
            if length > MAX_TEXT_BYTES:
                self._fail(f"{what} holds a text of {length} bytes, the limit is {MAX_TEXT_BYTES}")
            position += 8 + length
            if position > self._end:
                self._position = position
                self._require(0, what)
        self._position = position

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if isinstance(alignment, bool) or not isinstance(alignment, int):
            self._fail(f"general.alignment is {alignment!r}, it must be a whole number")
        if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            self._fail(f"general.alignment is {alignment}, it must be a power of two up to {MAX_ALIGNMENT}")
        return alignment

    def _read_tensors(self, count: int) -> tuple[TensorEntry, ...]:
        names: set[str] = set()
        entries = []
        for index in range(count):
            entry = self._read_tensor(index)
            if entry.name in names:
                self._fail(f"the tensor {entry.name!r} appears twice")
            names.add(entry.name)
            entries.append(entry)
        return tuple(entries)

    def _read_tensor(self, index: int) -> TensorEntry:
        name = self._name(MAX_NAME_BYTES, f"the name of tensor {index}")
        what = f"tensor {name!r}"
        dimensions = self._integer(_UINT32, what)
        if not 0 < dimensions <= MAX_DIMENSIONS:
            self._fail(f"{what} has {dimensions} dimensions, it must have 1 to {MAX_DIMENSIONS}")
        shape = tuple(self._integer(_UINT64, what) for _ in range(dimensions))
        weights = 1
        for length in shape:
            weights *= length
        if not 0 < weights <= MAX_NUMBER:
            self._fail(f"{what} has the shape {shape}: no dimension may be 0, and at most 2**63 - 1 weights may result")
        type_id = self._integer(_UINT32, what)
        return TensorEntry(name, shape, type_id, self._integer(_UINT64, what))
