"""The thread on which an engine computes."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from tierpool._core import TierpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

_CANCEL_AGAIN_SECONDS = 0.05
_MEANWHILE_SECONDS = 0.1
_CLOSED = "the engine is closed: load the model again"


class EngineWorker:
    """A thread that computes one call after the other, for as long as it is not closed.

    Unlike an executor's, it works on while Python ends and other threads still generate, and does not keep Python from
    ending. All methods may be called from any thread, and from what interrupts one of them.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._has_ended = False
        self._thread = threading.Thread(target=self._work, name="tierpool-engine", daemon=True)
        self._thread.start()

    def run(
        self, function: Callable[[], Any], cancel: Callable[[], None], meanwhile: Callable[[], None] | None = None
    ) -> Any:
        """Have a function called and return what it returns, or raise what it raises.

        `meanwhile` is called again and again by the caller's thread while it waits. What interrupts the waiting, such
        as Ctrl-C or an exception of `meanwhile`, is raised when the function has ended; `cancel` hastens that. A
        function that has not begun by then is never called. Whoever interrupts twice does not wait for the end.

        Raises
        ------
        TierpoolError
            After `close`.
        """
        call = _Call(function)
        del function
        try:
            self._calls.put(call)
            if not self._has_ended:
                call.wait(meanwhile)
        except BaseException:
            if not call.withdraw():
                cancel()
                call.wait()
                call.drop_error()
            raise
        if call.withdraw():
            raise TierpoolError(_CLOSED)
        call.wait()
        return call.take()

    def close(self, cancel: Callable[[], None]) -> None:
        """End the thread, after the call under way, which `cancel` ends; a second call does nothing."""
        self._calls.put(None)
        # The thread itself comes here when it drops the last reference of an engine: it computes nothing then.
        if threading.current_thread() is self._thread:
            return
        # A call that begins just after a cancel does not hear of it: it is told again.
        while self._thread.is_alive():
            cancel()
            self._thread.join(_CANCEL_AGAIN_SECONDS)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.perform()
            del call  # what it refers to must not live until the next one
        # Either this thread sees a late call, or its caller sees the end.
        self._has_ended = True
        try:
            while True:
                if call := self._calls.get_nowait():
                    call.refuse()
        except Empty:
            pass


class _Call:
    """A function, and what became of it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function: Callable[[], Any] | None = function
        self._result: Any = None
        self._error: BaseException | None = None
        self._has_ended = False
        self._begun = threading.Lock()  # taken once: by whoever performs, refuses or withdraws it
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def perform(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        function, self._function = self._function, None
        assert function is not None
        try:
            self._result = function()
        except BaseException as error:  # the caller raises it
            self._error = error
        del function  # before the caller goes on, who may want to drop the engine
        self._end()

    def withdraw(self) -> bool:
        """Have it never performed. False when it was begun or refused already."""
        if not self._begun.acquire(blocking=False):
            return False
        self._function = None
        return True

    def refuse(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        self._error = TierpoolError(_CLOSED)
        self._end()

    def wait(self, meanwhile: Callable[[], None] | None = None) -> None:
        # A lock, not a condition, which whoever interrupts it could not wait for. An interruption may come with the
        # lock just taken: the flag says that nobody needs it any more. One that comes just before the waiting begins
        # does not end it: hence the time-out.
        while not self._has_ended:
            if self._under_way.acquire(timeout=_MEANWHILE_SECONDS):
                self._under_way.release()
            elif meanwhile is not None:
                meanwhile()

    def _end(self) -> None:
        self._has_ended = True
        self._under_way.release()

    def drop_error(self) -> None:
        """Forget what the function raised: its traceback leads back to this call, a cycle that keeps the engine."""
        self._error = None

    def take(self) -> Any:
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error  # a cycle with its own traceback would keep the engine
