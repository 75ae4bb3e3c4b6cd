"""Pinned tensors and the ring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tierpool.storage.layer_schedule import BEST_RING_DEPTH, schedule_layers, spread
from tierpool.storage.units import Part, Unit

SIZES = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=3), min_size=1, max_size=9)


def units_of(sizes: list[list[int]]) -> list[Unit]:
    return [
        Unit(layer, 0, tuple(Part(f"{layer}.{index}", 0, 0, size) for index, size in enumerate(parts)))
        for layer, parts in enumerate(sizes)
    ]


@given(SIZES, st.integers(0, 400))
def test_a_schedule_fits_and_covers(sizes: list[list[int]], above: int) -> None:
    units = units_of(sizes)
    largest = max(unit.size_bytes for unit in units)
    schedule = schedule_layers(units, largest + above)
    assert schedule.size_bytes <= largest + above
    assert 1 <= schedule.ring_depth <= BEST_RING_DEPTH
    streamed = [[part for part in unit.parts if part.tensor_name not in schedule.pinned_names] for unit in units]
    assert all(sum(part.size_bytes for part in parts) <= schedule.slot_bytes for parts in streamed)
    assert schedule.streamed_bytes + schedule.pinned_bytes == sum(unit.size_bytes for unit in units)
    assert schedule.streamed_layers == sum(1 for parts in streamed if parts)


@given(SIZES, st.integers(0, 400), st.integers(0, 100))
def test_more_memory_never_reads_more(sizes: list[list[int]], above: int, more: int) -> None:
    units = units_of(sizes)
    memory = max(unit.size_bytes for unit in units) + above
    assert schedule_layers(units, memory + more).read_bytes <= schedule_layers(units, memory).read_bytes


def test_little_memory_stays_unused() -> None:
    units = units_of([[30, 30, 30]] * 32)
    for memory in range(300, 2500, 7):
        assert memory - schedule_layers(units, memory).size_bytes < 30


def test_the_first_layers_of_a_spread_lie_far_apart() -> None:
    layers = [unit.layer for unit in spread(units_of([[1]] * 12))]
    assert sorted(layers) == list(range(12))
    assert layers[:4] == [0, 8, 4, 2]
    assert [unit.layer for unit in spread(units_of([[1]]))] == [0]
