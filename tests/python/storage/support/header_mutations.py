"""Damage to the header of a GGUF file: to any of its bytes, or to the values that it holds."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NUMBERS = (0, 1, 31, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)

_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_COUNTS = (0, 1, 2, 3, 4, 7, 31, 32, 33, 63, 64, 96, 128, 256, 259, 260, 512, 513, 1025, 1 << 20, 2**31, 2**32 - 1)
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e-30)
_TYPES = (*range(4), *range(6, 31), 34, 35, 39)
_WORDS = (b"", b"llama", b"gpt2", b"bert", b"t5", b"rwkv", b"none", b"yarn", b"gemma3", b"mamba", b"\xff\xfe", b"<0x")
_MORE_KEYS = (
    *(f"expert_{name}" for name in ("count", "used_count", "group_count", "group_used_count")),
    *("nextn_predict_layers", "rope.scaling.type", "rope.dimension_count_swa", "attention.key_length_swa"),
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.causal", "pooling_type"),
)


def mutations(header: bytes, seed: int) -> Iterator[bytes]:
    """Flip bits, put in dangerous numbers, cut, copy, and drop pieces; one to four times each."""
    choose = random.Random(seed)
    while True:
        data = bytearray(header)
        for _ in range(choose.randint(1, 4)):
            place = choose.randrange(len(data))
            length = choose.choice((1, 4, 8, 40))
            kind = choose.randrange(5)
            if kind == 0:
                data[place] ^= 1 << choose.randrange(8)
            elif kind == 1:
                width = choose.choice((4, 8))
                data[place : place + width] = choose.choice(NUMBERS).to_bytes(9, "little")[:width]
            elif kind == 2:
                data[place:place] = data[place : place + length]
            elif kind == 3:
                del data[place : place + length]
            else:
                source = choose.randrange(len(data))
                data[place : place + length] = data[source : source + length]
            if not data:
                data = bytearray(b"G")
        yield bytes(data)


def value_mutations(header: bytes, seed: int) -> Iterator[bytes]:
    """Change a value, its type or length, or a tensor's name, shape or type; the form stays right, and so is read."""
    choose = random.Random(seed)
    while True:
        parts = _Parts.of_header(header)
        for _ in range(choose.choice((1, 1, 2))):
            if choose.random() < 0.7:
                _change_key(choose, parts)
            else:
                _change_tensor(choose, choose.choice(parts.tensors))
        yield parts.pack()


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@dataclass
class _Key:
    name: bytes
    kind: int
    element: int
    values: list[bytes]

    def pack(self) -> bytes:
        length = struct.pack("<IQ", self.element, len(self.values)) if self.kind == _ARRAY else b""
        is_text = _TEXT in {self.kind, self.element}
        values = (_text(value) if is_text else value for value in self.values)
        return _text(self.name) + struct.pack("<I", self.kind) + length + b"".join(values)


@dataclass
class _Tensor:
    name: bytes
    shape: list[int]
    kind: int
    offset: int

    def pack(self) -> bytes:
        count = len(self.shape)
        return _text(self.name) + struct.pack(f"<I{count}QIQ", count, *self.shape, self.kind, self.offset)


@dataclass
class _Parts:
    """A header taken apart."""

    architecture: bytes
    keys: list[_Key]
    tensors: list[_Tensor]

    @classmethod
    def of_header(cls, header: bytes) -> _Parts:
        place = 4

        def take(code: str) -> int:
            nonlocal place
            place += struct.calcsize("<" + code)
            (value,) = struct.unpack_from("<" + code, header, place - struct.calcsize("<" + code))
            return int(value)

        def raw(kind: int) -> bytes:
            nonlocal place
            size = take("Q") if kind == _TEXT else struct.calcsize("<" + _CODES[kind])
            place += size
            return header[place - size : place]

        def key() -> _Key:
            name, kind = raw(_TEXT), take("I")
            element = take("I") if kind == _ARRAY else kind
            return _Key(name, kind, element, [raw(element) for _ in range(take("Q") if kind == _ARRAY else 1)])

        def tensor() -> _Tensor:
            name = raw(_TEXT)
            return _Tensor(name, [take("Q") for _ in range(take("I"))], take("I"), take("Q"))

        _, tensor_count, key_count = take("I"), take("Q"), take("Q")
        keys = [key() for _ in range(key_count)]
        (architecture,) = next(key.values for key in keys if key.name == b"general.architecture")
        return cls(architecture, keys, [tensor() for _ in range(tensor_count)])

    def pack(self) -> bytes:
        counts = struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))
        parts = [part.pack() for part in (*self.keys, *self.tensors)]
        packed = b"GGUF" + counts + b"".join(parts)
        return packed + bytes(-len(packed) % 32)


def _number(choose: random.Random, kind: int) -> bytes:
    """Make a number of a type."""
    code = "<" + _CODES[kind]
    if code[1] in "fd":
        return struct.pack(code, choose.choice(_FLOATS))
    return choose.choice(_COUNTS).to_bytes(8, "little")[: struct.calcsize(code)]


def _change_key(choose: random.Random, parts: _Parts) -> None:
    key = choose.choice(parts.keys)
    action = choose.randrange(6)
    if action == 0:
        parts.keys.remove(key)
    elif action == 1:
        name = parts.architecture + b"." + choose.choice(_MORE_KEYS).encode()
        if all(other.name != name for other in parts.keys):
            parts.keys.append(_Key(name, 4, 4, [_number(choose, 4)]))
    elif action == 2 and _TEXT not in {key.kind, key.element}:
        key.element = choose.choice(tuple(_CODES))
        key.kind = key.kind if key.kind == _ARRAY else key.element
        key.values = [_number(choose, key.element) for _ in key.values]
    elif action == 3 and key.kind == _ARRAY:
        length = len(key.values)
        key.values = key.values[: choose.choice((0, 1, length // 2, length - 1))]
    elif action == 4 and key.kind in _CODES:
        key.kind, key.values = _ARRAY, [_number(choose, key.kind) for _ in range(choose.choice((0, 1, 2, 3, 513)))]
    elif key.values:
        value = choose.choice((*_WORDS, choose.choice(key.values)))
        place = choose.randrange(len(key.values))
        key.values[place] = value if key.element == _TEXT else _number(choose, key.element)


def _change_tensor(choose: random.Random, tensor: _Tensor) -> None:
    action = choose.randrange(4)
    if action == 0:
        tensor.kind = choose.choice(_TYPES)
    elif action == 1:
        tensor.shape.reverse()
    elif action == 2:
        tensor.shape[choose.randrange(len(tensor.shape))] = choose.choice((1, 2, 32, 64, 128, 260))
    else:
        tensor.name = tensor.name.replace(
            *choose.choice(((b"weight", b"bias"), (b"blk.0", b"blk.9"), (b"attn", b"ffn")))
        )
