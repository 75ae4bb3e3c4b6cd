"""The profile of a small file."""

from __future__ import annotations

import errno
import json
import mmap
import os
from pathlib import Path

import pytest

from tierpool.storage.errors import ModelError
from tierpool.storage.profile import Profile, measure_profile, measure_read_bandwidth

only_direct = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.bin"
    path.write_bytes(os.urandom(5 << 20))
    return path


def test_a_profile_survives_json(file: Path) -> None:
    measured = measure_profile(file, seconds=0.05)
    assert measured.path == str(file)
    assert min(measured.read_bytes_per_second, measured.read_bytes_per_second_single) > 0
    assert measured.memory_bytes_per_second > 0
    assert Profile.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured


@only_direct
def test_no_descriptor_stays_open(file: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    measure_profile(file, seconds=0.01)
    assert measure_read_bandwidth(file, 0.01) > 0
    assert len(list(descriptors.iterdir())) == before


def takes_direct_reads(file: Path) -> bool:
    """Whether the file system does; some open files so and refuse to read them."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        return os.preadv(descriptor, [mmap.mmap(-1, 1 << 20)], 0) > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


@only_direct
def test_reads_bypass_the_page_cache_where_they_can(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = []
    really_open = os.open
    monkeypatch.setattr(os, "open", lambda path, flag, *rest: (flags.append(flag), really_open(path, flag, *rest))[1])
    measured = measure_profile(file, seconds=0.01)
    assert any(flag & os.O_DIRECT for flag in flags)
    assert measured.direct_reads == takes_direct_reads(file)


@only_direct
@pytest.mark.parametrize("refusing", ["open", "preadv"])
def test_a_disk_that_refuses_direct_reads(file: Path, monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    really_open, really_read, direct = os.open, os.preadv, set()
    dropped = []

    def open_(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT and refusing == "open":
            raise OSError(errno.EINVAL, "no direct reads")
        descriptor = really_open(path, flags & ~os.O_DIRECT, *rest)
        (direct.add if flags & os.O_DIRECT else direct.discard)(descriptor)
        return descriptor

    def preadv(descriptor: int, *rest: object) -> int:
        if descriptor in direct:
            raise OSError(errno.EINVAL, "no direct reads")
        return really_read(descriptor, *rest)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: dropped.append(arguments))
    measured = measure_profile(file, seconds=0.01)
    assert not measured.direct_reads
    assert measured.read_bytes_per_second > 0
    assert dropped


def test_a_read_error_is_raised(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(OSError, match="the disk is broken"):
        measure_profile(file, seconds=0.01)


def test_a_file_without_a_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match="1 bytes, too few"):
        measure_profile(path)


@pytest.mark.parametrize("values", [{}, {"limits": 3}, {"limits": {}, "path": "x"}])
def test_what_is_no_profile_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="tierpool profile FILE --json"):
        Profile.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cores", 0),
        ("cores", "two"),
        ("memory_limit_bytes", "all"),
        ("process_bytes", None),
        ("memory_bytes_per_second", float("nan")),
    ],
)
def test_numbers_that_cannot_have_been_measured(profile: Profile, name: str, value: object) -> None:
    values = profile.to_dict()
    (values if name in values else values["limits"])[name] = value
    with pytest.raises(ModelError, match=f"this is no profile: {name} is"):
        Profile.from_dict(values)
