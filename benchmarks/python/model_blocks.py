"""Random quantised weights, made as blocks of each type's own layout: nothing is quantised, so it is fast.

A pool of blocks is drawn once; each piece of a tensor is then a run of the pool that begins where no other piece does.
So all pieces differ, and writing costs a copy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Blocks = NDArray[np.uint8]

CHUNK_SHARE = 16  # a pool is so many times as long as the longest run taken from it
_SPREAD = 7919  # places of successive runs lie this many blocks apart, so that neighbours do not look alike
_SUPER_SCALE = 32  # the 6-bit scale of every sub-block of Q4_K and Q5_K, and its minimum too
_PACKED_SCALES = np.array(
    [160] * 8 + [0] * 4, np.uint8
)  # eight scales and eight minima of 32, as those types pack them


def _bytes(rng: np.random.Generator, count: int, width: int) -> Blocks:
    return rng.integers(0, 256, (count, width), np.uint8)


def _scales(rng: np.random.Generator, count: int, deviation: float) -> NDArray[np.float16]:
    """A scale for each block, around `deviation`."""
    return (deviation * rng.uniform(0.7, 1.3, (count, 1))).astype(np.float16)


def _q4_0(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    # 0 is left out: it would be -8 without a +8, and a mean off zero sends every token to the same experts.
    low, high = rng.integers(1, 16, (2, count, 16), np.uint8)
    return np.hstack([_scales(rng, count, deviation / math.sqrt(56 / 3)).view(np.uint8), low | high << 4])


def _q8_0(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    weights = rng.integers(-127, 128, (count, 32), np.int8)
    return np.hstack([_scales(rng, count, deviation / 73.3).view(np.uint8), weights.view(np.uint8)])


def _mxfp4(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    # Sixteen values, symmetric around 0, of deviation 2.93; the exponent is a byte with an offset of 127.
    exponent = round(math.log2(deviation / 2.93)) + 127
    return np.hstack([rng.integers(exponent - 1, exponent + 1, (count, 1), np.uint8), _bytes(rng, count, 16)])


def _with_minimum(rng: np.random.Generator, count: int, deviation: float, levels: int, width: int) -> Blocks:
    """Q4_K and Q5_K: levels from 0 up, less a minimum that puts their mean at zero."""
    scales = _scales(rng, count, deviation / (_SUPER_SCALE * math.sqrt((levels**2 - 1) / 12)))
    minima = (scales * np.float16((levels - 1) / 2)).astype(np.float16)
    packed = np.broadcast_to(_PACKED_SCALES, (count, 12))
    return np.hstack([scales.view(np.uint8), minima.view(np.uint8), packed, _bytes(rng, count, width)])


def _q4_k(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    return _with_minimum(rng, count, deviation, levels=16, width=128)


def _q5_k(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    return _with_minimum(rng, count, deviation, levels=32, width=160)


def _q6_k(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    # Levels are -32 to 31; sub-blocks of either sign bring the mean to zero.
    signs = rng.choice(np.array([-16, 16], np.int8), (count, 16)).view(np.uint8)
    scales = _scales(rng, count, deviation / (16 * 18.48))
    return np.hstack([_bytes(rng, count, 192), signs, scales.view(np.uint8)])


def _f16(rng: np.random.Generator, count: int, deviation: float) -> Blocks:
    return rng.normal(0, deviation, (count, 1)).astype(np.float16).view(np.uint8)


MAKERS: dict[GGMLQuantizationType, Callable[[np.random.Generator, int, float], Blocks]] = {
    GGMLQuantizationType.F16: _f16,
    GGMLQuantizationType.Q4_0: _q4_0,
    GGMLQuantizationType.Q8_0: _q8_0,
    GGMLQuantizationType.MXFP4: _mxfp4,
    GGMLQuantizationType.Q4_K: _q4_k,
    GGMLQuantizationType.Q5_K: _q5_k,
    GGMLQuantizationType.Q6_K: _q6_k,
}


class BlockPool:
    """Blocks of one type, whose weights have one deviation, and runs of them."""

    def __init__(self, kind: GGMLQuantizationType, deviation: float, pool_bytes: int, rng: np.random.Generator) -> None:
        block_bytes = GGML_QUANT_SIZES[kind][1]
        count = pool_bytes // block_bytes
        blocks = MAKERS[kind](rng, count, deviation)
        self._bytes = np.ascontiguousarray(blocks).reshape(-1).data
        self._block_bytes = block_bytes
        self._longest = count // CHUNK_SHARE
        self._places = count - self._longest
        self._step = next(step for step in range(_SPREAD, 2 * _SPREAD) if math.gcd(step, self._places) == 1)
        self._taken = 0

    def runs(self, size_bytes: int) -> Iterator[memoryview]:
        """Yield runs that make up `size_bytes`, a whole number of blocks; each begins at a place of its own."""
        longest_bytes = self._longest * self._block_bytes
        for done in range(0, size_bytes, longest_bytes):
            if self._taken == self._places:
                raise ValueError("every place of the pool has been used: the model needs a larger pool")
            begin = self._taken * self._step % self._places * self._block_bytes
            self._taken += 1
            yield self._bytes[begin : begin + min(longest_bytes, size_bytes - done)]
