"""What llama.cpp takes for granted of a vocabulary: what breaks it would end the process or be read beyond its end."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NoReturn

from tierpool.storage.errors import ModelError
from tierpool.storage.gguf_header import TEXT_KIND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierpool.storage.gguf_header import Header, StoredArray

_TOKENS, _TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_INT32, _FLOAT32 = 5, 6
_KIND_NAMES = {TEXT_KIND: "texts", _INT32: "int32", _FLOAT32: "float32"}
# Read as an array of these, whatever the file says, by some version of llama.cpp.
_KINDS: Final = {
    _TOKENS: (TEXT_KIND,),
    "tokenizer.ggml.merges": (TEXT_KIND,),
    "tokenizer.ggml.scores": (_FLOAT32, _INT32),
    _TOKEN_TYPES: (_INT32,),
}
_BYTE_TYPE = struct.pack("<i", 6)
# It has no bytes, and ends the process when a token claims to be one.
_WORDS_ONLY = "bert"
# It writes what no token matches as bytes, and ends the process when one of them is missing.
_BYTES_NEEDED = "llama"


def check_tokenizer(path: str, header: Header) -> None:
    """Check the arrays of a tokenizer, as far as the file has one.

    Special tokens outside the vocabulary are left alone: llama.cpp warns and does without them.

    Raises
    ------
    ModelError
        When llama.cpp could not take them; the message names key, value and limit.
    """
    for key, kinds in _KINDS.items():
        if key in header.metadata:
            _check_kind(path, key, header.arrays.get(key), kinds)
    tokens = header.arrays.get(_TOKENS)
    if tokens is None:
        return
    for key in ("tokenizer.ggml.scores", _TOKEN_TYPES):
        array = header.arrays.get(key)
        if array is not None and array.length < tokens.length:
            _fail(path, key, f"has {array.length} elements for {tokens.length} tokens")
    _check_texts(path, header.metadata.get("tokenizer.ggml.model"), tokens, header.arrays.get(_TOKEN_TYPES))


def _fail(path: str, key: str, problem: str) -> NoReturn:
    raise ModelError(f"{path}: {key} {problem}; convert the model again")


def _check_kind(path: str, key: str, array: StoredArray | None, kinds: tuple[int, ...]) -> None:
    wanted = " or ".join(_KIND_NAMES[kind] for kind in kinds)
    if array is None:
        _fail(path, key, f"is no array, it must be one of {wanted}")
    if array.kind not in kinds:
        _fail(path, key, f"has elements of type {array.kind}, they must be {wanted}")


def _check_texts(path: str, model: object, tokens: StoredArray, types: StoredArray | None) -> None:
    distinct = set(_texts(tokens))
    if len(distinct) < tokens.length:
        _refuse_second(path, tokens)
    if model == _WORDS_ONLY and types is not None:
        for index in range(tokens.length):
            if types.data[4 * index : 4 * index + 4] == _BYTE_TYPE:
                _fail(path, _TOKEN_TYPES, f"says that token {index} is a byte, which tokenizer {model!r} does not have")
    if model == _BYTES_NEEDED:
        for byte in range(256):
            # All but 0 may also stand for themselves.
            if b"<0x%02X>" % byte not in distinct and (not byte or bytes([byte]) not in distinct):
                _fail(path, _TOKENS, f"lacks the byte 0x{byte:02X}, tokenizer {model!r} needs all 256")


def _refuse_second(path: str, tokens: StoredArray) -> NoReturn:
    seen: set[bytes] = set()
    for index, text in enumerate(_texts(tokens)):
        if text in seen:
            _fail(path, _TOKENS, f"has the text {text[:40]!r} twice, again at {index}; every token needs its own")
        seen.add(text)
    raise AssertionError("all texts differ")


def _texts(array: StoredArray) -> Iterator[bytes]:
    """Yield the texts of tokens, whose lengths have been checked."""
    unpack_from, data, position = struct.Struct("<Q").unpack_from, array.data, 0
    for index in range(array.length):
        begin = position + 8
        position = begin + unpack_from(data, position)[0]
        # llama.cpp's name for a token without text.
        yield data[begin:position] or b"[EMPTY_%d]" % index
