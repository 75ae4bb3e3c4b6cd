"""A model as the core wants it: files that hold tensors, streamed tensors by layer, and all others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierpool._core import MappingCount
from tierpool.storage.roles import split_name

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from tierpool.storage.gguf import Model, ModelFile, Tensor

    Stretch = tuple[int, int, int]


@dataclass(frozen=True)
class StreamedParts:
    """Stretches are (file, first byte, bytes); `experts` is 0 for dense layers."""

    files: list[ModelFile]
    layers: list[tuple[int, list[tuple[str, Stretch]]]]
    resident: list[Stretch]
    experts: int

    @classmethod
    def of_model(cls, model: Model, streamed: AbstractSet[str], experts: int) -> StreamedParts:
        """Divide a model's tensors into those named in `streamed` and the others."""
        used = _used_files(model)
        layers: defaultdict[int, list[tuple[str, Stretch]]] = defaultdict(list)
        resident = []
        for tensor in model.tensors:
            stretch = _stretch(tensor, used)
            layer = split_name(tensor.name)[0]
            if tensor.name in streamed and layer is not None:
                layers[layer].append((tensor.name, stretch))
            else:
                resident.append(stretch)
        return cls(files_with_tensors(model), sorted(layers.items()), resident, experts)

    def count_mappings(self) -> MappingCount:
        """Have the core count as it will when it lays the model over its files."""
        return MappingCount(
            file_bytes=[file.size_bytes for file in self.files],
            layers=self.layers,
            resident=self.resident,
            experts=self.experts,
        )


def files_with_tensors(model: Model) -> list[ModelFile]:
    """A model's files without those that hold only metadata."""
    return [model.files[index] for index in _used_files(model)]


def _used_files(model: Model) -> list[int]:
    return sorted({tensor.file_index for tensor in model.tensors})


def _stretch(tensor: Tensor, files: list[int]) -> Stretch:
    return files.index(tensor.file_index), tensor.offset_bytes, tensor.size_bytes
