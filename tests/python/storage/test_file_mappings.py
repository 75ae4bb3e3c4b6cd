"""Mappings of files are found in the system's list, with one that a test brings."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from tierpool import TierpoolError
from tierpool.storage.file_mappings import FileMapping, MappingWatch, load_mapped

PAGE = mmap.PAGESIZE

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process's mappings")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a model.gguf"
    path.write_bytes(b"x" * 4 * PAGE)
    return path


def write_table(root: Path, path: Path, *pieces: tuple[int, int, int], path_only: bool = False) -> None:
    """Pieces are address, end and offset."""
    status = path.stat()
    device = "00:00" if path_only else f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    inode = status.st_ino + path_only
    lines = ["7000-8000 rw-p 00000000 00:00 0 ", "ff00-ff10 r--s 00000000 01:01 1   /other"]
    lines += [f"{start:x}-{end:x} r--s {offset:08x} {device} {inode}      {path}" for start, end, offset in pieces]
    table = root / "proc/self/maps"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(lines), encoding="utf-8")


@only_linux
def test_a_real_mapping(model: Path) -> None:
    with model.open("rb") as file, mmap.mmap(file.fileno(), PAGE, prot=mmap.PROT_READ):
        watch = MappingWatch()
        with mmap.mmap(file.fileno(), 2 * PAGE, prot=mmap.PROT_READ, offset=PAGE):
            found = watch.new_mapping(str(model))
    assert (found.offset_bytes, found.size_bytes) == (PAGE, 2 * PAGE)
    assert found.address % PAGE == 0


@pytest.mark.parametrize("path_only", [False, True])
def test_pieces_side_by_side_are_one(tmp_path: Path, model: Path, path_only: bool) -> None:
    write_table(tmp_path, model)
    watch = MappingWatch(tmp_path)
    write_table(tmp_path, model, (0x30000, 0x32000, 0x1000), (0x20000, 0x30000, 0x0), path_only=path_only)
    with pytest.raises(TierpoolError, match="mapped it 2 times"):
        watch.new_mapping(str(model))
    write_table(tmp_path, model, (0x30000, 0x32000, 0x10000), (0x20000, 0x30000, 0x0), path_only=path_only)
    assert watch.new_mapping(str(model)) == FileMapping(0x20000, 0, 0x12000)


def test_only_new_ones_count(tmp_path: Path, model: Path) -> None:
    write_table(tmp_path, model, (0x20000, 0x30000, 0))
    watch = MappingWatch(tmp_path)
    with pytest.raises(TierpoolError, match="mapped it 0 times"):
        watch.new_mapping(str(model))
    write_table(tmp_path, model, (0x20000, 0x30000, 0), (0x50000, 0x60000, 0))
    assert watch.new_mapping(str(model)).address == 0x50000


def test_pieces_of_an_earlier_mapping_are_not_new_however_it_is_cut(tmp_path: Path, model: Path) -> None:
    write_table(tmp_path, model, (0x22000, 0x30000, 0x12000))
    watch = MappingWatch(tmp_path)
    cut = [(0x20000, 0x21000, 0x10000), (0x25000, 0x28000, 0x15000), (0x28000, 0x30000, 0x18000)]
    write_table(tmp_path, model, *cut)
    with pytest.raises(TierpoolError, match="mapped it 0 times"):
        watch.new_mapping(str(model))
    write_table(tmp_path, model, *cut, (0x30000, 0x50000, 0))  # and one just behind it
    assert watch.new_mapping(str(model)) == FileMapping(0x30000, 0, 0x20000)


def test_a_mapping_where_another_file_was_before_is_new(tmp_path: Path, model: Path) -> None:
    other = model.with_name("other")
    other.write_bytes(b"y" * PAGE)
    write_table(tmp_path, other, (0x20000, 0x60000, 0))
    watch = MappingWatch(tmp_path)
    write_table(tmp_path, model, (0x20000, 0x40000, 0))
    assert watch.new_mapping(str(model)) == FileMapping(0x20000, 0, 0x20000)


@only_linux
@pytest.mark.parametrize("replaced", [False, True])
def test_a_mapping_of_what_was_there_before_is_none(model: Path, replaced: bool) -> None:
    watch = MappingWatch()
    with model.open("rb") as file, mmap.mmap(file.fileno(), PAGE, prot=mmap.PROT_READ):
        assert watch.new_mapping(str(model)).size_bytes == PAGE
        other = model.with_name("other")
        other.write_bytes(b"y" * PAGE)
        if replaced:
            other.rename(model)
        else:
            model.unlink()
            other.rename(f"{model} (deleted)")
            model = Path(f"{model} (deleted)")  # listed as the removed file is
        with pytest.raises(TierpoolError, match="mapped it 0 times"):
            watch.new_mapping(str(model))


class Loads:
    """Loads one after the other, each with its mapping; a number of others go just before each."""

    def __init__(self, root: Path, path: Path, others: list[int], closings: list[int]) -> None:
        self._root = root
        self._path = path
        self._mapped = others
        self._closings = closings
        self.open = 0
        self.loads = 0
        self._write()

    def __call__(self) -> Loads:
        for _ in range(self._closings[self.loads]):
            self._mapped.pop(0)
        self.loads += 1
        self.open += 1
        # Where the system has room: as near to the beginning as it can be.
        self._address = next(address for address in range(0x20000, 0x90000, 0x10000) if address not in self._mapped)
        self._mapped.append(self._address)
        self._write()
        return self

    def close(self) -> None:
        self.open -= 1
        self._mapped.remove(self._address)
        self._write()

    def _write(self) -> None:
        write_table(self._root, self._path, *((address, address + 0x10000, 0) for address in self._mapped))


@pytest.mark.parametrize(("closings", "address"), [([0], 0x40000), ([1, 0], 0x30000), ([1, 1, 0], 0x20000)])
def test_a_mapping_in_the_place_of_one_that_went_meanwhile_is_made_again(
    tmp_path: Path, model: Path, closings: list[int], address: int
) -> None:
    load = Loads(tmp_path, model, [0x30000, 0x20000], closings)
    loaded, mappings = load_mapped(load, [str(model)], tmp_path)
    assert loaded is load
    assert mappings == {str(model): FileMapping(address, 0, 0x10000)}
    assert (load.loads, load.open) == (len(closings), 1)


def test_what_is_not_mapped_is_closed_and_not_loaded_again(tmp_path: Path, model: Path) -> None:
    other = model.with_name("other")
    other.write_bytes(b"y" * PAGE)
    load = Loads(tmp_path, other, [0x20000], [1])
    with pytest.raises(TierpoolError, match="mapped it 0 times"):
        load_mapped(load, [str(model)], tmp_path)
    assert (load.loads, load.open) == (1, 0)


def test_a_system_without_a_list(tmp_path: Path) -> None:
    with pytest.raises(TierpoolError, match="Linux"):
        MappingWatch(tmp_path)
