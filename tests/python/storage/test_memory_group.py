"""Control groups with a limit: made, entered, read and removed; in a made-up file system, and in the real one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tierpool.storage.memory_group import MemoryGroup, MemoryGroupError

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def mount(root: Path, version: int, *parts: str) -> Path:
    """Write what the kernel says of a group at `parts`, and make its folder."""
    names = {1: "7:memory:", 2: "0::"}
    kinds = {1: "cgroup cgroup rw,memory", 2: "cgroup2 cgroup2 rw"}
    (root / "proc/self/cgroup").write_text(f"{names[version]}/{'/'.join(parts)}\n")
    (root / "proc/self/mountinfo").write_text(f"31 23 0:28 / /sys/fs/cgroup rw - {kinds[version]}\n")
    folder = root.joinpath("sys/fs/cgroup", *parts)
    folder.mkdir(parents=True)
    return folder


def test_version_1(root: Path) -> None:
    own = mount(root, 1, "build")
    group = MemoryGroup(5 * MIB, root)
    assert (group.version, group.folder.parent) == (1, own)
    assert (group.folder / "memory.limit_in_bytes").read_text() == str(5 * MIB)
    assert (group.peak_bytes, group.kills) == (None, 0)
    (group.folder / "memory.max_usage_in_bytes").write_text("4096\n")
    (group.folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert (group.peak_bytes, group.kills) == (4096, 2)


def test_version_2(root: Path) -> None:
    own = mount(root, 2, "user", "shell")
    group = MemoryGroup(5 * MIB, root)
    assert (group.version, group.folder.parent) == (2, own)
    assert (group.folder / "memory.max").read_text() == str(5 * MIB)
    (group.folder / "memory.peak").write_text("8192\n")
    (group.folder / "memory.events").write_text("low 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert (group.peak_bytes, group.kills) == (8192, 1)


def test_two_groups_have_two_names(root: Path) -> None:
    mount(root, 2)
    assert MemoryGroup(MIB, root).folder != MemoryGroup(MIB, root).folder


def test_the_next_group_up_is_tried(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 gives no controller to a group that holds processes; beside it there is one."""
    own = mount(root, 2, "user", "shell")
    write = Path.write_text

    def refuse(path: Path, text: str, *arguments: object) -> int:
        if own in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return write(path, text, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", refuse)
    assert MemoryGroup(MIB, root).folder.parent == own.parent
    assert list(own.iterdir()) == []  # what could not be limited is not left behind


def test_no_controller_and_no_permission_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryGroupError, match="there is no memory controller"):
        MemoryGroup(MIB, root)
    mount(root, 1)

    def refuse(path: Path, *_arguments: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MemoryGroupError, match=r"cgroup: Permission denied\).*Delegate=yes"):
        MemoryGroup(MIB, root)


@pytest.fixture
def real_group() -> Callable[[int], MemoryGroup]:
    try:
        MemoryGroup(64 * MIB).remove()
    except MemoryGroupError as error:
        pytest.skip(f"NOT TESTED: {error}")
    return MemoryGroup


def _allocate(group: MemoryGroup, size_bytes: int) -> int:
    command = group.command([sys.executable, "-c", f"print(len(bytearray({size_bytes})))"])
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


def test_the_kernel_enforces_it(real_group: Callable[[int], MemoryGroup]) -> None:
    with real_group(64 * MIB) as group:
        assert _allocate(group, 8 * MIB) == 0
        assert group.kills == 0
        assert _allocate(group, 512 * MIB) == -signal.SIGKILL
        assert group.kills == 1
        assert group.peak_bytes is None or 8 * MIB < group.peak_bytes <= 64 * MIB
    assert not group.folder.exists()
