"""What the process holds: every kind once, however often it is mapped."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from tierpool.storage.process_memory import ProcessMemory, read_anonymous_bytes, read_process_memory

MIB = 1 << 20
KIB = 1 << 10


def write(root: Path, name: str, text: str) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self" / name).write_text(text)


def test_fields(tmp_path: Path) -> None:
    write(tmp_path, "status", "Name:\tx\nRssAnon:\t 10 kB\nRssFile:\t 20 kB\nRssShmem:\t 60 kB\nThreads:\t1\n")
    write(tmp_path, "smaps_rollup", "00-ff ---p 0 [rollup]\nRss: 90 kB\nPss_Shmem: 30 kB\n")
    assert read_process_memory(tmp_path) == ProcessMemory(10 * KIB, 30 * KIB, 20 * KIB)
    assert read_anonymous_bytes(tmp_path) == 10 * KIB


def test_a_kernel_that_does_not_tell_shares_apart(tmp_path: Path) -> None:
    write(tmp_path, "status", "RssAnon: 10 kB\nRssShmem: 60 kB\n")
    assert read_process_memory(tmp_path) == ProcessMemory(10 * KIB, 60 * KIB, 0)


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert read_process_memory(tmp_path) == ProcessMemory(0, 0, 0)
    assert read_anonymous_bytes(tmp_path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")
def test_a_memory_file_that_is_mapped_twice_counts_once() -> None:
    descriptor = os.memfd_create("twice")
    os.ftruncate(descriptor, 32 * MIB)
    before = read_process_memory().shared_bytes
    with mmap.mmap(descriptor, 32 * MIB) as first, mmap.mmap(descriptor, 32 * MIB) as second:
        first[:] = bytes(32 * MIB)
        assert second[::4096] == bytes(len(range(0, 32 * MIB, 4096)))  # every page is in both
        assert read_process_memory().shared_bytes - before == pytest.approx(32 * MIB, abs=MIB)
    os.close(descriptor)
