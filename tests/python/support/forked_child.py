"""What a forked child tells its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierpool import TierpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing import SimpleQueue


def answer_refusals(uses: Iterable[Callable[[], object]], answers: SimpleQueue[str]) -> None:
    """Put in how each use is refused, one answer each."""
    for use in uses:
        try:
            use()
            answers.put("it works")
        except TierpoolError as error:
            answers.put(str(error))
