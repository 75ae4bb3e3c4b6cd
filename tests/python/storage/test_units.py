"""Units and edge pages, against a page-by-page model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tierpool.storage.gguf import Tensor
from tierpool.storage.units import PAGE_BYTES, edge_pages, expert_units, merged_bytes, touched_pages


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    """Stacks of experts that follow each other in a file, with gaps."""
    count = draw(st.integers(1, 5))
    found, position = [], draw(st.integers(0, 3 * PAGE_BYTES))
    for index in range(draw(st.integers(1, 3))):
        stride = draw(
            st.one_of(st.integers(1, 3 * PAGE_BYTES), st.integers(1, 3).map(lambda pages: pages * PAGE_BYTES))
        )
        found.append(Tensor(f"t{index}", "F32", (1, stride, count), 0, position, count * stride))
        position += count * stride + draw(st.sampled_from([0, 0, 32, PAGE_BYTES]))
    return found


@given(tensors())
def test_every_page_is_a_units_or_an_edge(stacks: list[Tensor]) -> None:
    count = stacks[0].shape[-1]
    units = expert_units(0, stacks)
    owned = [
        page
        for unit in units
        for part in unit.parts
        for page in range(part.offset_bytes // PAGE_BYTES, (part.offset_bytes + part.size_bytes) // PAGE_BYTES)
    ]
    edges = {page for stack in stacks for _, page, _ in edge_pages(stack, count)}
    assert len(units) == count
    assert len(owned) == len(set(owned))
    for stack in stacks:
        stride = stack.size_bytes // count
        for _, first, end in touched_pages([stack]):
            for page in range(first, end):
                begin = page * PAGE_BYTES
                inside = [
                    index
                    for index in range(count)
                    if stack.offset_bytes + index * stride <= begin
                    and begin + PAGE_BYTES <= stack.offset_bytes + (index + 1) * stride
                ]
                assert (page in owned) == bool(inside)
                assert (page in edges) == (not inside)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(0, 10)), max_size=12))
def test_merged_pages_are_the_set_of_pages(spans: list[tuple[int, int, int]]) -> None:
    pages = {(file, page) for file, first, length in spans for page in range(first, first + length + 1)}
    merged = merged_bytes([(file, first, first + length + 1) for file, first, length in spans])
    assert merged == len(pages) * PAGE_BYTES
