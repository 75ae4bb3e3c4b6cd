"""Text from tokens: however the bytes are cut, the same text comes, and nothing of a stop string."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierpool.storage.text_assembly import TextAssembly

TEXTS = st.text(alphabet="ab\nü€😀", max_size=30)
STOPS = st.lists(st.text(alphabet="abü", min_size=1, max_size=4), max_size=3)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


@given(TEXTS, STOPS, st.lists(st.integers(0, 60), max_size=20))
def test_any_cut_gives_the_text_before_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    assembly = TextAssembly(stops)
    given_out = ""
    for data in cut(text.encode(), cuts):
        given_out += assembly.add(data)
        # The earliest end decides, not the earliest beginning: what comes later cannot call back what was given out.
        assert text.startswith(given_out)
        assert not any(stop in given_out for stop in stops)
    given_out += assembly.add(b"", last=True)
    assert text.startswith(given_out)
    assert not any(stop in given_out for stop in stops)
    assert assembly.stopped == any(stop in text for stop in stops)
    if assembly.stopped:
        assert any(text[len(given_out) :].startswith(stop) for stop in stops)
    else:
        assert given_out == text


def test_characters_are_whole() -> None:
    assembly = TextAssembly()
    assert [assembly.add(bytes([byte])) for byte in "€".encode()] == ["", "", "€"]


def test_a_possible_beginning_is_held_back_until_it_is_decided() -> None:
    assembly = TextAssembly(["stop"])
    assert [assembly.add(data) for data in (b"one st", b"o", b"ne st", b"op more")] == ["one ", "", "stone ", ""]
    assert assembly.stopped
    assert assembly.add(b"more", last=True) == ""


def test_the_end_gives_out_what_was_held_back() -> None:
    assembly = TextAssembly(["stop"])
    assert assembly.add(b"a sto") == "a "
    assert assembly.add(b"\xe2\x82", last=True) == "sto\ufffd"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert TextAssembly().add(b"a\xffb") == "a\ufffdb"


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        TextAssembly(["a", ""])
