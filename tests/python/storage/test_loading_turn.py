"""One load at a time, in a forked child too."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tierpool import CancelledError
from tierpool._core import LoadingWatch
from tierpool.storage.loading_turn import LoadingTurn


def test_a_load_that_waits_for_another_can_be_cancelled() -> None:
    turn, watch, steps = LoadingTurn(), LoadingWatch(), list[str]()

    def wait() -> None:
        try:
            with turn.taken(watch):
                steps.append("taken twice")
        except CancelledError:
            steps.append("cancelled")

    other = threading.Thread(target=wait)
    with turn.taken(LoadingWatch()):
        other.start()
        watch.cancel()
        other.join(30)
        assert steps == ["cancelled"]
    with turn.taken(watch):  # free again
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own() -> None:
    turn = LoadingTurn()
    with turn.taken(LoadingWatch()):
        child = os.fork()
        if not child:
            signal.alarm(30)  # ends a child that waits for its parent's threads
            try:
                with turn.taken(LoadingWatch()):
                    os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    with turn.taken(LoadingWatch()):
        pass
