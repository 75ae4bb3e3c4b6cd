"""What tests on a GPU share. They also run over a driver without one, in which nothing but copies runs."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tierpool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakePool = Callable[..., tierpool.MemoryPool]

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "python"


BALLAST_WORDS = 128 << 20
MEMSETS = 1000  # a tenth of a second at 5 TB/s
NOT_READY = "600"


def is_fake() -> bool:
    """Whether the driver is the tests' own, without a GPU behind it."""
    return hasattr(ctypes.CDLL("libcuda.so.1"), "fake_cuda_restart")


def real_driver() -> Any:
    """The benchmarks' driver by ctypes, for the first GPU."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from cuda_driver import Driver
    finally:
        sys.path.remove(str(BENCHMARKS))
    return Driver()


class BusyStreams:
    """Gives streams work that outlasts what a test looks at meanwhile."""

    def __init__(self) -> None:
        self.driver: Any = None
        if is_fake():
            self._fake = ctypes.CDLL("libcuda.so.1")
        else:
            self.driver = real_driver()
            self._ballast = self.driver.allocate(4 * BALLAST_WORDS)

    def occupy(self, stream: int) -> None:
        """Let what is enqueued there from now on, and events behind it, wait."""
        if self.driver is None:
            self._fake.fake_cuda_hold_work(True)
            return
        for _ in range(MEMSETS):
            self.driver.fill(self._ballast, 0, BALLAST_WORDS, stream)

    def is_over(self, stream: int) -> bool:
        """Whether the stream has done all its work: a test that finds it so has shown nothing."""
        if self.driver is None:
            return False
        try:
            self.driver.call("cuStreamQuery", ctypes.c_void_p(stream))
        except RuntimeError as error:
            if NOT_READY in str(error):
                return False
            raise
        return True

    def end(self) -> None:
        """Let everything go on."""
        if self.driver is None:
            self._fake.fake_cuda_hold_work(False)
        else:
            self.driver.synchronize()
            self.driver.free(self._ballast)


@pytest.fixture
def _a_real_gpu() -> None:
    if is_fake():
        pytest.skip("NO GPU BEHIND THIS DRIVER: kernels and other libraries are not tested")


@pytest.fixture
def run() -> Callable[[str], str]:
    """Run Python code in a process of its own; gives what it prints."""

    def run_script(script: str) -> str:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_script


@pytest.fixture
def fake(device_pool: tierpool.MemoryPool) -> Iterator[ctypes.CDLL]:
    """The driver without a GPU, to be steered; its work is held for nobody afterwards."""
    if not is_fake():
        pytest.skip("A GPU BEHIND THIS DRIVER: nothing can hold its work")
    library = ctypes.CDLL("libcuda.so.1")
    for name in ("fake_cuda_calls", "fake_cuda_create_stream", "fake_cuda_misuse_count", "fake_cuda_event_count"):
        getattr(library, name).restype = ctypes.c_uint64
    del device_pool  # it starts the driver
    misuse = library.fake_cuda_misuse_count()
    yield library
    library.fake_cuda_hold_work(False)
    library.fake_cuda_hold_waits(False)
    assert library.fake_cuda_misuse_count() == misuse


@pytest.fixture
def busy(device_pool: tierpool.MemoryPool) -> Iterator[BusyStreams]:
    """Keeps streams busy, on a GPU and over the driver without one."""
    del device_pool  # it starts the driver
    streams = BusyStreams()
    yield streams
    streams.end()


@pytest.fixture
def make_device_pool() -> MakePool:
    """Build a pool of one cold heap of 64 MB on the first GPU unless told otherwise."""

    def make(**settings: object) -> tierpool.MemoryPool:
        small = {"device": "cuda:0", "heap_size_mb": 64, "num_heaps": 1, "warmup_sizes": []}
        return tierpool.MemoryPool({**small, **settings})

    return make


@pytest.fixture
def device_pool(make_device_pool: MakePool) -> tierpool.MemoryPool:
    """64 MB on the first GPU."""
    return make_device_pool()


@pytest.fixture
def pinned_pool(make_device_pool: MakePool) -> tierpool.MemoryPool:
    """64 MB of pinned host memory."""
    return make_device_pool(device="pinned")


@pytest.fixture
def stream(device_pool: tierpool.MemoryPool) -> Iterator[int]:
    """A stream of the first GPU, besides its default one."""
    library = ctypes.CDLL("libcuda.so.1")
    del device_pool  # it starts the driver
    if is_fake():
        library.fake_cuda_create_stream.restype = ctypes.c_uint64
        yield library.fake_cuda_create_stream(0)
        return
    driver = real_driver()
    made = driver.create_stream()
    yield made
    driver.synchronize()
    driver.destroy_stream(made)
