"""Limits, read from a made-up file system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tierpool.storage.limits import DEFAULT_MAX_MAPPINGS, Limits, read_limits

MIB = 1 << 20
V1_MOUNT = "30 20 0:26 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n"
V1_CPU_MOUNT = "31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
V2_MOUNT = "32 20 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "proc/self/status", "Name: python\nRssAnon:\t  20480 kB\nRssFile:\t 9999 kB\nRssShmem:\t  1024 kB\n")
    put(tmp_path, "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 4096000 kB\n")
    put(tmp_path, "proc/sys/vm/max_map_count", "262144\n")
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_groups(root: Path) -> None:
    limits = read_limits(root)
    assert (limits.memory_limit_bytes, limits.memory_limit_source) == (None, "")
    assert limits.process_bytes == 21 * MIB
    assert limits.max_mappings == 262144
    assert limits.budget() == (4000 * MIB + 21 * MIB, "available memory")


def test_on_a_system_that_says_nothing(tmp_path: Path) -> None:
    limits = read_limits(tmp_path)
    assert limits.max_mappings == DEFAULT_MAX_MAPPINGS
    assert (limits.memory_limit_bytes, limits.memory_available_bytes, limits.process_bytes) == (None, 0, 0)
    assert limits.cores >= 1


def test_version_2(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/build/job\n")
    put(root, "proc/self/mountinfo", V2_MOUNT)
    put(root, "sys/fs/cgroup/build/memory.max", f"{2000 * MIB}\n")
    put(root, "sys/fs/cgroup/build/memory.stat", f"anon {500 * MIB}\nfile 9\nshmem {21 * MIB}\n")
    put(root, "sys/fs/cgroup/build/job/memory.max", "max\n")
    put(root, "sys/fs/cgroup/build/job/cpu.max", "100000 100000\n")
    limits = read_limits(root)
    assert limits.memory_limit_bytes == 2000 * MIB
    assert limits.memory_limit_source == "cgroup v2 /build/job"
    assert limits.memory_used_by_others_bytes == 500 * MIB
    assert limits.budget() == (1500 * MIB, "cgroup v2 /build/job")
    assert limits.cores == 1


def test_siblings_in_a_larger_group_may_leave_less_than_the_own_limit(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/build/job\n")
    put(root, "proc/self/mountinfo", V2_MOUNT)
    put(root, "sys/fs/cgroup/build/job/memory.max", f"{4096 * MIB}\n")
    put(root, "sys/fs/cgroup/build/job/memory.stat", f"anon {20 * MIB}\nshmem {1 * MIB}\n")
    put(root, "sys/fs/cgroup/build/memory.max", f"{5120 * MIB}\n")
    put(root, "sys/fs/cgroup/build/memory.stat", f"anon {4620 * MIB}\nshmem {9 * MIB}\n")
    limits = read_limits(root)
    assert limits.memory_limit_bytes == 5120 * MIB
    assert limits.memory_used_by_others_bytes == 4608 * MIB  # 4.5 GiB
    assert limits.budget() == (512 * MIB, "cgroup v2 /build/job")
    put(root, "sys/fs/cgroup/build/memory.stat", f"anon {120 * MIB}\n")
    assert read_limits(root).budget()[0] == 4000 * MIB + 21 * MIB  # available memory
    put(root, "sys/fs/cgroup/build/job/memory.high", f"{1024 * MIB}\n")  # beyond it, the kernel slows us down
    assert read_limits(root).budget() == (1024 * MIB, "cgroup v2 /build/job")
    put(root, "sys/fs/cgroup/build/memory.high", f"{600 * MIB}\n")
    assert read_limits(root).budget()[0] == 600 * MIB - (120 - 21) * MIB


def test_siblings_in_a_larger_group_of_version_1(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/jobs/seven\n")
    put(root, "proc/self/mountinfo", V1_MOUNT)
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(root, "sys/fs/cgroup/memory/memory.stat", f"total_rss {90_000 * MIB}\n")
    put(root, "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", f"{5120 * MIB}\n")
    put(root, "sys/fs/cgroup/memory/jobs/memory.stat", f"total_rss {4620 * MIB}\ntotal_shmem {9 * MIB}\n")
    put(root, "sys/fs/cgroup/memory/jobs/seven/memory.limit_in_bytes", f"{4096 * MIB}\n")
    put(root, "sys/fs/cgroup/memory/jobs/seven/memory.stat", f"total_rss {21 * MIB}\n")
    limits = read_limits(root)
    assert (limits.memory_limit_bytes, limits.memory_used_by_others_bytes) == (5120 * MIB, 4608 * MIB)
    assert limits.budget() == (512 * MIB, "cgroup v1 /jobs/seven")


def test_a_slot_that_is_mapped_twice_counts_once(root: Path) -> None:
    put(root, "proc/self/smaps_rollup", "0-1 ---p 0 00:00 0 [rollup]\nPss_Anon: 20480 kB\nPss_Shmem: 512 kB\n")
    assert read_limits(root).process_bytes == 20 * MIB + MIB // 2


def test_version_2_seen_from_inside_a_container(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/docker/abc\n")
    put(root, "proc/self/mountinfo", V2_MOUNT.replace("0:28 / ", "0:28 /docker/abc "))
    put(root, "sys/fs/cgroup/memory.max", f"{1000 * MIB}\n")
    assert read_limits(root).memory_limit_bytes == 1000 * MIB


def test_version_1(root: Path) -> None:
    put(root, "proc/self/cgroup", "5:cpu,cpuacct:/jobs\n4:memory:/jobs/seven\n0::/\n")
    put(root, "proc/self/mountinfo", "junk\n" + V2_MOUNT + V1_MOUNT + V1_CPU_MOUNT)
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(root, "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", f"{3000 * MIB}\n")
    put(root, "sys/fs/cgroup/memory/jobs/seven/memory.limit_in_bytes", f"{2000 * MIB}\n")
    put(root, "sys/fs/cgroup/memory/jobs/seven/memory.stat", f"total_rss {21 * MIB}\ntotal_shmem 0\nrss 1\n")
    put(root, "sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "50000\n")
    put(root, "sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n")
    limits = read_limits(root)
    assert limits.memory_limit_bytes == 2000 * MIB
    assert limits.memory_limit_source == "cgroup v1 /jobs/seven"
    assert limits.memory_used_by_others_bytes == 0
    assert limits.cores == 1


def test_version_1_without_a_limit(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/\n")
    put(root, "proc/self/mountinfo", V1_MOUNT)
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert read_limits(root).memory_limit_bytes is None


def test_the_smaller_of_limit_and_available_memory_is_the_budget() -> None:
    values = {"memory_used_by_others_bytes": 30, "process_bytes": 5, "cores": 1, "max_mappings": 9}
    tight = Limits(memory_limit_bytes=100, memory_limit_source="group", memory_available_bytes=1000, **values)
    loose = Limits(memory_limit_bytes=100, memory_limit_source="group", memory_available_bytes=10, **values)
    full = Limits(memory_limit_bytes=20, memory_limit_source="group", memory_available_bytes=10, **values)
    assert tight.budget() == (70, "group")
    assert loose.budget() == (15, "available memory")
    assert full.budget() == (0, "group")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what this process holds")
def test_this_system() -> None:
    limits = read_limits()
    assert limits.process_bytes > 1 << 20
    assert limits.memory_available_bytes > 1 << 20
    assert limits.budget()[0] > 1 << 20
