"""Units, the pieces of a model that are fetched together, in whole pages of its files.

A slot holds whole pages, so that reads are aligned and nothing is copied. A page that a unit shares with its neighbour
is an edge page: it is copied once when the model is loaded, and stays.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tierpool.storage.gguf import Tensor

PAGE_BYTES: Final = mmap.PAGESIZE


@dataclass(frozen=True)
class Part:
    """Whole pages of one file, of one tensor."""

    tensor_name: str
    file_index: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Unit:
    """What is fetched together: one expert of a layer, or a layer's dense FFN (then `index` is 0)."""

    layer: int
    index: int
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """What a slot needs to hold it."""
        return sum(part.size_bytes for part in self.parts)


def whole_pages(tensor: Tensor, first_byte: int, end_byte: int) -> Part:
    """Pages that lie entirely in ``[first_byte, end_byte)`` of a file; perhaps none."""
    first = -(-first_byte // PAGE_BYTES) * PAGE_BYTES
    end = end_byte // PAGE_BYTES * PAGE_BYTES
    return Part(tensor.name, tensor.file_index, first, max(0, end - first))


def expert_units(layer: int, tensors: Sequence[Tensor]) -> list[Unit]:
    """Cut the stacked experts of one layer into a unit for each expert; the last dimension counts experts."""
    count = tensors[0].shape[-1]
    units = []
    for index in range(count):
        parts = []
        for tensor in tensors:
            stride_bytes = tensor.size_bytes // count
            first_byte = tensor.offset_bytes + index * stride_bytes
            parts.append(whole_pages(tensor, first_byte, first_byte + stride_bytes))
        units.append(Unit(layer, index, tuple(part for part in parts if part.size_bytes)))
    return units


def layer_unit(layer: int, tensors: Sequence[Tensor]) -> Unit:
    """Join the dense FFN of one layer into a unit."""
    parts = (whole_pages(tensor, tensor.offset_bytes, tensor.end_bytes) for tensor in tensors)
    return Unit(layer, 0, tuple(part for part in parts if part.size_bytes))


def touched_pages(tensors: Iterable[Tensor]) -> list[tuple[int, int, int]]:
    """Every page that a tensor touches, as (file, first page, end page)."""
    return [
        (tensor.file_index, tensor.offset_bytes // PAGE_BYTES, -(-tensor.end_bytes // PAGE_BYTES)) for tensor in tensors
    ]


def edge_pages(tensor: Tensor, count: int) -> list[tuple[int, int, int]]:
    """Pages of a tensor of `count` equal pieces that no piece owns alone, as (file, first page, end page)."""
    stride_bytes = tensor.size_bytes // count
    boundaries = (tensor.offset_bytes + index * stride_bytes for index in range(count + 1))
    pages = sorted({boundary // PAGE_BYTES for boundary in boundaries if boundary % PAGE_BYTES})
    return [(tensor.file_index, page, page + 1) for page in pages]


def merged_bytes(pages: Iterable[tuple[int, int, int]]) -> int:
    """Count each page once, in bytes."""
    total = 0
    last_file, last_end = -1, -1
    for file_index, first, end in sorted(pages):
        if file_index != last_file or first > last_end:
            last_file, last_end = file_index, first
        if end > last_end:
            total += end - last_end
            last_end = end
    return total * PAGE_BYTES
