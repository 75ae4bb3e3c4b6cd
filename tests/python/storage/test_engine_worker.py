"""The thread that computes: what it returns, how it is interrupted and closed, and that it never keeps Python."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from tierpool import TierpoolError
from tierpool.storage.engine_worker import EngineWorker, _Call


def nothing() -> None:
    pass


class Engine:
    """Closes its worker when it is dropped."""

    def __init__(self) -> None:
        self.worker = EngineWorker()
        weakref.finalize(self, self.worker.close, nothing)

    def compute(self) -> None:
        pass


class Computation:
    """Ends when it is cancelled."""

    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Event(), threading.Event()
        self.has_ended = False

    def __call__(self) -> None:
        self.begun.set()
        assert self.cancelled.wait(30)
        self.has_ended = True


def fail() -> None:
    raise ValueError("nothing to compute")


def is_alive(worker: EngineWorker) -> bool:
    worker._thread.join(30)
    return worker._thread.is_alive()


def test_what_a_call_returns_and_raises() -> None:
    worker = EngineWorker()
    assert worker.run(threading.current_thread, nothing) is worker._thread
    with pytest.raises(ValueError, match="nothing to compute"):
        worker.run(fail, nothing)
    assert worker.run(lambda: 5, nothing) == 5
    worker.close(nothing)
    worker.close(nothing)
    assert not worker._thread.is_alive()


def test_after_its_end_it_refuses() -> None:
    worker = EngineWorker()
    worker.close(nothing)
    with pytest.raises(TierpoolError, match="closed: load the model again"):
        worker.run(lambda: 5, nothing)


def test_closing_cancels_until_the_call_hears_of_it() -> None:
    worker, begun, cancels = EngineWorker(), threading.Event(), threading.Semaphore(0)
    results: list[int] = []

    def compute() -> int:
        begun.set()
        for _ in range(3):  # the first ones are not heard
            assert cancels.acquire(timeout=30)
        return 7

    caller = threading.Thread(target=lambda: results.append(worker.run(compute, nothing)))
    caller.start()
    assert begun.wait(30)
    worker.close(cancels.release)
    caller.join(30)
    assert results == [7]


def test_callers_that_come_while_it_is_closed_are_answered() -> None:
    for _ in range(50):
        worker, answers = EngineWorker(), list[object]()

        def call(worker: EngineWorker = worker, answers: list[object] = answers) -> None:
            try:
                answers.append(worker.run(lambda: 5, nothing))
            except TierpoolError:
                answers.append("refused")

        callers = [threading.Thread(target=call, daemon=True) for _ in range(4)]
        for caller in callers:
            caller.start()
        worker.close(nothing)
        for caller in callers:
            caller.join(30)
        assert len(answers) == 4


def test_an_interrupted_caller_waits_for_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, computation, wait = EngineWorker(), Computation(), _Call.wait

    def interrupted(_call: _Call, _meanwhile: object) -> None:
        monkeypatch.setattr(_Call, "wait", wait)
        assert computation.begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Call, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.run(computation, computation.cancelled.set)
    assert computation.has_ended
    worker.close(nothing)


class Interrupted(SimpleQueue[object]):
    """Raises what Ctrl-C raises once, around the moment in which a call is handed over."""

    def __init__(self, instant: str, begun: threading.Event) -> None:
        self.instant, self.begun = instant, begun

    def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:
        instant, self.instant = self.instant, ""
        if instant != "before":
            super().put(item, block, timeout)
        if instant == "begun":
            assert self.begun.wait(30)
        if instant:
            raise KeyboardInterrupt


@pytest.mark.parametrize("instant", ["before", "begun"])
def test_a_caller_interrupted_while_it_hands_a_call_over_leaves_none_under_way(instant: str) -> None:
    worker, computation = EngineWorker(), Computation()
    worker.run(nothing, nothing)
    calls = worker._calls
    worker._calls = Interrupted(instant, computation.begun)  # type: ignore[assignment]
    calls.put(_Call(nothing))  # the thread goes over to the other queue
    with pytest.raises(KeyboardInterrupt):
        worker.run(computation, computation.cancelled.set)
    assert computation.begun.is_set() == computation.has_ended == (instant == "begun")
    assert worker.run(lambda: 5, nothing) == 5
    worker.close(nothing)


def test_a_caller_interrupted_before_its_turn_does_not_wait_for_it() -> None:
    worker, first, second = EngineWorker(), Computation(), Computation()
    other = threading.Thread(target=worker.run, args=[first, nothing])
    other.start()
    assert first.begun.wait(30)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.run(second, nothing, interrupt)
    assert other.is_alive()
    first.cancelled.set()
    other.join()
    worker.run(nothing, nothing)
    assert not second.begun.is_set()
    worker.close(nothing)


def test_a_caller_interrupted_while_the_thread_ends_does_not_wait_for_ever() -> None:
    worker = EngineWorker()
    worker.close(nothing)
    worker._calls = Interrupted("after", threading.Event())  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        worker.run(nothing, nothing)
    with pytest.raises(TierpoolError, match="closed"):
        worker.run(nothing, nothing)


def test_an_interrupted_call_that_fails_keeps_nothing() -> None:
    class Held:
        pass

    worker, computation, held = EngineWorker(), Computation(), [Held()]
    dropped = weakref.ref(held[0])

    def compute(_held: Held) -> None:
        computation()
        raise ValueError("cancelled")

    def interrupt() -> None:
        if computation.begun.is_set():
            raise KeyboardInterrupt

    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.run(partial(compute, held.pop()), computation.cancelled.set, interrupt)
        worker.run(nothing, nothing)
        assert dropped() is None
    finally:
        gc.enable()
    worker.close(nothing)


def test_the_caller_is_told_while_it_waits_and_may_end_the_call() -> None:
    worker, cancelled, told = EngineWorker(), threading.Event(), list[threading.Thread]()

    def tell() -> None:
        told.append(threading.current_thread())
        if len(told) == 3:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        worker.run(lambda: cancelled.wait(30), cancelled.set, tell)
    assert cancelled.is_set()
    assert told == [threading.current_thread()] * 3
    assert worker.run(lambda: 5, nothing, tell) == 5
    worker.close(nothing)


def test_a_call_keeps_nothing_after_it() -> None:
    engine = Engine()
    worker, dropped = engine.worker, weakref.ref(engine)
    worker.run(engine.compute, nothing)
    del engine
    gc.collect()
    assert dropped() is None
    assert not is_alive(worker)


def test_the_thread_itself_may_drop_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: failures.append(arguments))
    monkeypatch.setattr(sys, "unraisablehook", failures.append)
    engines = [Engine()]
    worker = engines[0].worker
    worker.run(engines.clear, nothing)
    assert not is_alive(worker)
    assert failures == []


def test_an_engine_computes_after_the_main_thread_has_ended(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
    from make_model import write_model
    from model_shapes import ModelShape

    path = tmp_path / "model.gguf"
    write_model(path, ModelShape("llama", layers=1, vocabulary=400))
    code = f"""
import threading
from tierpool.storage.engine_llama import load_plain
engine = load_plain({str(path)!r}, context=64, threads=1)
def use():
    threading.main_thread().join()
    print(len(engine.evaluate([5, 6])))
threading.Thread(target=use).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "400\n"), done.stderr


@pytest.mark.parametrize("daemon", [False, True])
def test_python_ends_while_a_thread_still_calls(daemon: bool) -> None:
    code = f"""
import threading, weakref
from tierpool.storage.engine_worker import EngineWorker
class Engine: pass
engine, worker, begun = Engine(), EngineWorker(), threading.Event()
cancelled = threading.Event()
weakref.finalize(engine, worker.close, cancelled.set)
def use():
    if {daemon}:
        return worker.run(lambda: (begun.set(), cancelled.wait()), cancelled.set)
    begun.set()
    threading.main_thread().join()
    print(worker.run(lambda: "computed", cancelled.set), flush=True)
threading.Thread(target=use, daemon={daemon}).start()
begun.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if daemon else "computed\n")
