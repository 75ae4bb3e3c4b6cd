"""Measure what streaming depends on: direct reads of the model's own file, memory bandwidth, limits.

Reads bypass the page cache (``O_DIRECT``), so that it makes no difference whether the file was just written or read.
Where the file system refuses that, the pages are dropped before each read and the profile says so.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import random
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tierpool.storage.errors import ModelError
from tierpool.storage.limits import Limits, read_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

READ_BYTES: Final = 1 << 20
MAX_IN_FLIGHT: Final = 4
DEFAULT_SECONDS: Final = 2.0

_MEMORY_SHARE = 0.2  # of the time; the two read measurements share the rest
_ARRAY_BYTES = 128 << 20  # all threads together; more than caches hold
_DIRECT_ALIGNMENT = 4096
_REMEDY = "write one with: tierpool profile FILE --json"
_NUMBERS = {  # fields that must be a number, and the least it may be
    "read_bytes_per_second": 0,
    "read_bytes_per_second_single": 0,
    "memory_bytes_per_second": 0,
    "memory_limit_bytes": 0,
    "memory_used_by_others_bytes": 0,
    "memory_available_bytes": 0,
    "process_bytes": 0,
    "cores": 1,
    "max_mappings": 0,
    "used_mappings": 0,
    "import_bytes": 0,
}
_NOT_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Profile:
    """What this machine does with one model's file.

    Attributes
    ----------
    path : str
        The file that was read.
    direct_reads : bool
        Whether reads bypassed the page cache. Where they could not, the bandwidths may be too high.
    read_bytes_per_second, read_bytes_per_second_single : float
        Random reads of 1 MiB, four and one at a time.
    memory_bytes_per_second : float
        All processors reading memory together.
    limits : Limits
        The limits when it was measured.
    """

    path: str
    direct_reads: bool
    read_bytes_per_second: float
    read_bytes_per_second_single: float
    memory_bytes_per_second: float
    limits: Limits

    def to_dict(self) -> dict[str, Any]:
        """All fields, limits as a dict of their own."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Build a profile from what `to_dict` gave.

        Raises
        ------
        ModelError
            When fields are missing, unknown, or hold what was never measured.
        """
        try:
            profile = cls(**{**values, "limits": Limits(**values["limits"])})
        except (KeyError, TypeError) as error:
            raise ModelError(f"this is no profile ({error}); {_REMEDY}") from error
        for name, value in (*asdict(profile).items(), *asdict(profile.limits).items()):
            unlimited = name == "memory_limit_bytes" and value is None
            if name in _NUMBERS and not unlimited and not _is_number(value, _NUMBERS[name]):
                raise ModelError(f"this is no profile: {name} is {value!r}; {_REMEDY}")
        return profile


def _is_number(value: object, least: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < math.inf


def measure_profile(path: str | os.PathLike[str], seconds: float = DEFAULT_SECONDS) -> Profile:
    """Measure for about `seconds`; needs some 130 MiB of memory meanwhile.

    Parameters
    ----------
    path : path-like
        A file of at least one page, best the model's largest.
    seconds : float
        How long to measure, all together.

    Raises
    ------
    ModelError
        When the file is too small to be measured.
    OSError
        When it cannot be read.
    """
    name = os.fspath(path)
    limits = read_limits()
    reads_seconds = seconds * (1 - _MEMORY_SHARE) / 2
    with _Source(name) as source:
        single = _read_bandwidth(source, 1, reads_seconds)
        several = _read_bandwidth(source, MAX_IN_FLIGHT, reads_seconds)
    memory = _memory_bandwidth(limits.cores, seconds * _MEMORY_SHARE)
    return Profile(name, source.direct, several, single, memory, limits)


def measure_read_bandwidth(path: str | os.PathLike[str], seconds: float) -> float:
    """Measure bytes per second of random direct reads of 1 MiB, four in flight; refuses what `measure_profile` does."""
    with _Source(os.fspath(path)) as source:
        return _read_bandwidth(source, MAX_IN_FLIGHT, seconds)


class _Source:
    """A file open for reads that do not come from the page cache."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.direct = hasattr(os, "O_DIRECT")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size_bytes = os.fstat(self._descriptor).st_size
        self.read_bytes = min(READ_BYTES, size_bytes // _DIRECT_ALIGNMENT * _DIRECT_ALIGNMENT)
        if self.read_bytes == 0:
            os.close(self._descriptor)
            raise ModelError(f"{path}: it has {size_bytes} bytes, too few to measure reads with; name the model's file")
        self.positions = size_bytes // self.read_bytes
        if self.direct:
            self._open_direct()

    def _open_direct(self) -> None:
        # Some file systems accept the flag and refuse the read: only a read decides.
        buffered, buffer = self._descriptor, mmap.mmap(-1, self.read_bytes)
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if error.errno not in _NOT_DIRECT:
                os.close(buffered)
                raise
            self.direct = False
            return
        try:
            os.preadv(self._descriptor, [buffer], 0)
            os.close(buffered)
        except OSError as error:
            os.close(self._descriptor)
            self._descriptor, self.direct = buffered, False
            if error.errno not in _NOT_DIRECT:
                os.close(buffered)
                raise

    def read(self, buffer: mmap.mmap, position: int) -> int:
        """Fill `buffer` from place `position` of `positions`, and return the bytes that came."""
        offset = position * self.read_bytes
        if not self.direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, self.read_bytes, os.POSIX_FADV_DONTNEED)
        return os.preadv(self._descriptor, [buffer], offset)

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _read_bandwidth(source: _Source, in_flight: int, seconds: float) -> float:
    def work(index: int, deadline: float) -> int:
        order = random.Random(index)
        total = 0
        with mmap.mmap(-1, source.read_bytes) as buffer:
            while True:
                total += source.read(buffer, order.randrange(source.positions))
                if time.perf_counter() >= deadline:
                    return total

    return _bytes_per_second(work, in_flight, seconds)


def _memory_bandwidth(cores: int, seconds: float) -> float:
    arrays = [np.ones(_ARRAY_BYTES // cores // 8 + 1, np.uint64) for _ in range(cores)]

    def work(index: int, deadline: float) -> int:
        total = 0
        while True:
            np.bitwise_or.reduce(arrays[index])
            total += arrays[index].nbytes
            if time.perf_counter() >= deadline:
                return total

    return _bytes_per_second(work, cores, seconds)


def _bytes_per_second(work: Callable[[int, float], int], threads: int, seconds: float) -> float:
    """Run `work` on several threads until the deadline; the first failure is raised once all have ended."""
    totals: list[int] = []
    failures: list[BaseException] = []
    begin = time.perf_counter()

    def run(index: int) -> None:
        try:
            totals.append(work(index, begin + seconds))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return sum(totals) / (time.perf_counter() - begin)
