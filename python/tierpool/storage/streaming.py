"""What of a model can be streamed: its units, and the pages that stay in memory beside them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from tierpool.storage.errors import ModelError
from tierpool.storage.roles import ARCHITECTURES, split_name
from tierpool.storage.streamed_parts import StreamedParts
from tierpool.storage.units import Unit, edge_pages, expert_units, layer_unit, merged_bytes, touched_pages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierpool._core import MappingCount
    from tierpool.storage.gguf import Model, Tensor
    from tierpool.storage.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Streaming:
    """The streamable side of a model.

    Attributes
    ----------
    tensor_names : frozenset of str
        Tensors that the units are cut from.
    resident_bytes : int
        Pages that the other tensors touch.
    edge_bytes : int
        Further pages, which units share with a neighbour.
    parts : StreamedParts
        The same for the core.
    """

    mode: Literal["experts", "layers"]
    stop_node: str
    tensor_names: frozenset[str]
    units: tuple[Unit, ...]
    resident_bytes: int
    edge_bytes: int
    parts: StreamedParts

    @cached_property
    def slot_bytes(self) -> int:
        """What a slot needs to hold any of the units."""
        return max(unit.size_bytes for unit in self.units)

    @cached_property
    def unit_bytes(self) -> int:
        """All units together."""
        return sum(unit.size_bytes for unit in self.units)

    @cached_property
    def _mapping_count(self) -> MappingCount:
        return self.parts.count_mappings()

    def mappings(self, slots: int) -> int:
        """Mappings of memory needed at most when `slots` units lie over the files."""
        return self._mapping_count.most(slots)

    def most_slots(self, mappings: int) -> int:
        """How many slots `mappings` are enough for; they must be enough for one."""
        return bisect_right(range(len(self.units) + 1), mappings, key=self.mappings) - 1


def find_streaming(model: Model, sizes: Hyperparameters) -> Streaming | str:
    """Find what of `model` can be streamed, or say in a sentence why nothing can.

    Raises
    ------
    ModelError
        When tensors and metadata contradict each other.
    """
    architecture = ARCHITECTURES.get(model.architecture)
    if architecture is None:
        return (
            f"architecture {model.architecture!r} is not among those proven to stream "
            f"({', '.join(ARCHITECTURES)}), so that all of it stays in memory"
        )
    mode: Literal["experts", "layers"] = "experts" if sizes.experts else "layers"
    names = architecture.expert_names if sizes.experts else architecture.layer_names
    by_layer = _streamed_tensors(model, names, sizes.layers)
    if not by_layer:
        return f"it has no {'experts' if sizes.experts else 'dense FFN'} that can be streamed as {model.architecture!r}"
    units = _units(model, by_layer, sizes.experts)
    if not units:
        return "its pieces are smaller than a page of memory"
    streamed = [tensor for tensors in by_layer.values() for tensor in tensors]
    tensor_names = frozenset(tensor.name for tensor in streamed)
    resident = touched_pages(tensor for tensor in model.tensors if tensor.name not in tensor_names)
    edges = [page for tensor in streamed for page in edge_pages(tensor, sizes.experts or 1)]
    resident_bytes = merged_bytes(resident)
    return Streaming(
        mode=mode,
        stop_node=architecture.expert_stop if sizes.experts else architecture.layer_stop,
        tensor_names=tensor_names,
        units=units,
        resident_bytes=resident_bytes,
        edge_bytes=merged_bytes(resident + edges) - resident_bytes,
        parts=StreamedParts.of_model(model, tensor_names, sizes.experts),
    )


def _units(model: Model, by_layer: Mapping[int, list[Tensor]], experts: int) -> tuple[Unit, ...]:
    """Cut the tensors into units, and leave out those without a whole page."""
    if experts:
        _check_experts(model, by_layer, experts)
        units = [unit for layer, tensors in by_layer.items() for unit in expert_units(layer, tensors)]
    else:
        units = [layer_unit(layer, tensors) for layer, tensors in by_layer.items()]
    return tuple(unit for unit in units if unit.parts)


def _streamed_tensors(model: Model, names: tuple[str, ...], layers: int) -> Mapping[int, list[Tensor]]:
    """Streamed tensors by layer, layers in order and tensors in the order of `names`."""
    by_layer: defaultdict[int, list[Tensor]] = defaultdict(list)
    for tensor in model.tensors:
        layer, rest = split_name(tensor.name)
        if layer is not None and layer < layers and rest in names:
            by_layer[layer].append(tensor)
    for tensors in by_layer.values():
        tensors.sort(key=lambda tensor: names.index(split_name(tensor.name)[1]))
    return dict(sorted(by_layer.items()))


def _check_experts(model: Model, by_layer: Mapping[int, list[Tensor]], experts: int) -> None:
    for tensors in by_layer.values():
        for tensor in tensors:
            if len(tensor.shape) != 3 or tensor.shape[-1] != experts:
                raise ModelError(
                    f"{model.path}: tensor {tensor.name!r} has the shape {tensor.shape}, but "
                    f"{model.architecture}.expert_count is {experts}; convert the model again"
                )
