"""Whose turn it is to load a model."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tierpool._core import CancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierpool._core import LoadingWatch

_LOOK_AGAIN_SECONDS = 0.05


class LoadingTurn:
    """One thread's at a time. A forked child begins with a free one: whoever had it did not come along."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    @contextmanager
    def taken(self, watch: LoadingWatch) -> Iterator[None]:
        """Wait for the turn and keep it for a ``with``; `CancelledError` when the loading is cancelled meanwhile."""
        lock = self._lock  # one and the same, also when the thread forks in between
        while not lock.acquire(timeout=_LOOK_AGAIN_SECONDS):
            require_wanted_load(watch)
        try:
            yield
        finally:
            lock.release()

    def _renew(self) -> None:
        self._lock = threading.Lock()


def require_wanted_load(watch: LoadingWatch) -> None:
    """Raise `CancelledError` when a loading was cancelled."""
    if watch.is_cancelled:
        raise CancelledError("the loading was cancelled")
