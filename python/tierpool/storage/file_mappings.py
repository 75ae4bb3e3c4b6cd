"""Where files are mapped in this process, as the system lists it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from tierpool._core import TierpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class _Closable(Protocol):
    def close(self) -> None: ...


_Loaded = TypeVar("_Loaded", bound=_Closable)

_LINE = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) \S+ (?P<offset>[0-9a-f]+) "
    r"(?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+) (?P<inode>\d+)\s*(?P<path>.*)"
)

_REMOVED = " (deleted)"


@dataclass(frozen=True)
class FileMapping:
    """A stretch of a file and the address of its first byte."""

    address: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class _Entry:
    """A line of the list."""

    mapping: FileMapping
    device: tuple[int, int]
    inode: int
    path: str

    @property
    def place(self) -> tuple[int, tuple[int, int], int]:
        """Where the file would begin: the same for every piece of one mapping, however it is cut, and of no other."""
        return self.mapping.address - self.mapping.offset_bytes, self.device, self.inode


def load_mapped(
    load: Callable[[], _Loaded], paths: Sequence[str], root: Path = Path("/")
) -> tuple[_Loaded, dict[str, FileMapping]]:
    """Load what maps each of these files once, and find where, by path.

    A mapping where another one of its file went meanwhile cannot be told from that one: it is loaded again, at most
    as often as others can go.

    Raises
    ------
    TierpoolError
        When a file has no new mapping, or more than one.
    """
    while True:
        watch = MappingWatch(root)
        loaded = load()
        try:
            return loaded, {path: watch.new_mapping(path) for path in paths}
        except BaseException as error:
            loaded.close()
            if not isinstance(error, TierpoolError) or not any(map(watch.has_lost, paths)):
                raise


class MappingWatch:
    """Finds the mappings of a file that are made after this was.

    An engine that computes meanwhile covers and uncovers pieces of its mapping: none of them is new.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._table = root / "proc/self/maps"
        self._before = tuple(self._entries())

    def new_mapping(self, path: str) -> FileMapping:
        """Return the one new mapping of a file; pieces that lie side by side are one.

        Raises
        ------
        TierpoolError
            When there is none, or more than one.
        """
        before = _places(path, self._before)
        found = [entry.mapping for entry in _entries_of(path, self._entries()) if entry.place not in before]
        joined = _join(found)
        if len(joined) != 1:
            raise TierpoolError(
                f"{path}: llama.cpp has mapped it {len(joined)} times, it must be once, as a whole; "
                "run the model in memory"
            )
        return joined[0]

    def has_lost(self, path: str) -> bool:
        """Whether a mapping of a file that was there before is gone."""
        return not _places(path, self._before) <= _places(path, self._entries())

    def _entries(self) -> Iterator[_Entry]:
        try:
            lines = self._table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError as error:
            raise TierpoolError(f"streaming needs {self._table}, which Linux has ({error})") from error
        for line in lines:
            if found := _LINE.match(line):
                start, end, offset, major, minor = (
                    int(found[name], 16) for name in ("start", "end", "offset", "major", "minor")
                )
                mapping = FileMapping(start, offset, end - start)
                yield _Entry(mapping, (major, minor), int(found["inode"]), found["path"])


def _entries_of(path: str, entries: Iterable[_Entry]) -> Iterator[_Entry]:
    status = Path(path).stat()
    real_path = os.path.realpath(path)
    device = os.major(status.st_dev), os.minor(status.st_dev)
    for entry in entries:
        # Some file systems list another device and number than they tell. What was removed or replaced since is
        # listed as such, and a file may be named like that.
        is_named = entry.path == real_path and not real_path.endswith(_REMOVED)
        if is_named or (entry.device, entry.inode) == (device, status.st_ino):
            yield entry


def _places(path: str, entries: Iterable[_Entry]) -> set[tuple[int, tuple[int, int], int]]:
    return {entry.place for entry in _entries_of(path, entries)}


def _join(mappings: Iterable[FileMapping]) -> list[FileMapping]:
    joined: list[FileMapping] = []
    for mapping in sorted(mappings, key=lambda mapping: mapping.address):
        last = joined[-1] if joined else None
        if (
            last
            and last.address + last.size_bytes == mapping.address
            and last.offset_bytes + last.size_bytes == mapping.offset_bytes
        ):
            joined[-1] = FileMapping(last.address, last.offset_bytes, last.size_bytes + mapping.size_bytes)
        else:
            joined.append(mapping)
    return joined
