"""From the bytes of tokens to text: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextAssembly:
    """Puts bytes together to text; for one thread at a time.

    A character may span several tokens, and so may a stop string: what could be the beginning of either is held back
    until it is decided. Bytes that are no UTF-8 become U+FFFD.

    Parameters
    ----------
    stops : sequence of str
        Texts that end it; the text ends before the first of them.

    Raises
    ------
    ValueError
        When a stop string is empty.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if not all(stops):
            raise ValueError("a stop string is empty, which would stop every text at once; leave it out")
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def add(self, data: bytes, *, last: bool = False) -> str:
        """Return the text that is certain now, perhaps none; with `last` everything that was held back.

        Once `stopped`, nothing more comes.
        """
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(data, final=last)
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        length = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - length :]
        return text[: len(text) - length]


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of `text` is that `stop` begins with, without being it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
