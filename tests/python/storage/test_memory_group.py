"""Control groups with a limit: made, entered, read and removed; in a made-up file system, and in the real one."""

from __future__ import annotations

import errno
import gc
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tierpool.storage import memory_group
from tierpool.storage.memory_group import MemoryGroup, MemoryGroupError

MIB = 1 << 20
FILES = {
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control", "memory.swappiness"),
    2: ("memory.max", "memory.peak", "memory.events", "memory.swap.max"),
}


class MadeUpKernel:
    """Control groups in folders that answer as the kernel's do: files come with a group, and with its controllers."""

    def __init__(self, root: Path, version: int, *parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.version = version
        self.mount = root / "sys/fs/cgroup"
        self.busy_removals = 0
        (root / "proc/self").mkdir(parents=True)
        names = {1: "7:memory:", 2: "0::"}
        kinds = {1: "cgroup cgroup rw,memory", 2: "cgroup2 cgroup2 rw"}
        (root / "proc/self/cgroup").write_text(f"{names[version]}/{'/'.join(parts)}\n")
        (root / "proc/self/mountinfo").write_text(f"31 23 0:28 / /sys/fs/cgroup rw - {kinds[version]}\n")
        self._really = {name: getattr(Path, name) for name in ("mkdir", "write_text", "rmdir")}
        self._really["mkdir"](self.mount, parents=True)
        self._fill(self.mount, "cpu memory")
        for name in self._really:
            monkeypatch.setattr(Path, name, self._answering(name))
        self.own = self.mount
        for part in parts:
            if version == 2:
                (self.own / "cgroup.subtree_control").write_text("+memory")
            self.own /= part
            self.own.mkdir()
        self._really["write_text"](self.own / "cgroup.procs", "1\n")

    def _answering(self, name: str) -> Callable[..., object]:
        def answer(path: Path, *arguments: object, **settings: object) -> object:
            method = getattr(self, f"_{name}") if self.mount in path.parents else self._really[name]
            return method(path, *arguments, **settings)

        return answer

    def _fill(self, folder: Path, controllers: str) -> None:
        files = {"cgroup.procs": ""}
        if self.version == 2:
            files |= {"cgroup.controllers": controllers, "cgroup.subtree_control": ""}
        if self.version == 1 or "memory" in controllers.split():
            files |= dict.fromkeys(FILES[self.version], "")
        for name, text in files.items():
            self._really["write_text"](folder / name, text)

    def _mkdir(self, path: Path) -> None:
        self._really["mkdir"](path)
        self._fill(path, (path.parent / "cgroup.subtree_control").read_text() if self.version == 2 else "")

    def _write_text(self, path: Path, text: str, **_settings: object) -> None:
        if not path.exists():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if path.name == "cgroup.subtree_control":
            if text.removeprefix("+") not in (path.parent / "cgroup.controllers").read_text().split():
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            if path.parent != self.mount and (path.parent / "cgroup.procs").read_text():
                raise OSError(errno.EBUSY, "Device or resource busy", str(path))
            text = f"{path.read_text()} {text.removeprefix('+')}"
        self._really["write_text"](path, text)

    def _rmdir(self, path: Path) -> None:
        if self.busy_removals:
            self.busy_removals -= 1
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        shutil.rmtree(path)


Mount = Callable[..., MadeUpKernel]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    return partial(MadeUpKernel, tmp_path, monkeypatch=monkeypatch)


def groups_in(folder: Path) -> list[Path]:
    return list(folder.glob("tierpool-*"))


def test_version_1(tmp_path: Path, mount: Mount) -> None:
    kernel = mount(1, "build")
    group = MemoryGroup(5 * MIB, tmp_path)
    assert (group.version, group.folder.parent) == (1, kernel.own)
    assert (group.folder / "memory.limit_in_bytes").read_text() == str(5 * MIB)
    assert (group.peak_bytes, group.kills) == (None, 0)
    (group.folder / "memory.max_usage_in_bytes").write_text("4096\n")
    (group.folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert (group.peak_bytes, group.kills) == (4096, 2)
    group.remove()
    assert groups_in(kernel.own) == []


def test_version_2_has_a_group_beside_that_of_the_process(tmp_path: Path, mount: Mount) -> None:
    """A group that holds processes gives no controller to those below it."""
    kernel = mount(2, "user", "shell")
    group = MemoryGroup(5 * MIB, tmp_path)
    assert (group.version, group.folder.parent) == (2, kernel.own.parent)
    assert (group.folder / "memory.max").read_text() == str(5 * MIB)
    assert (group.folder / "memory.swap.max").read_text() == "0"
    (group.folder / "memory.peak").write_text("8192\n")
    (group.folder / "memory.events").write_text("low 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert (group.peak_bytes, group.kills) == (8192, 1)
    group.remove()
    assert groups_in(kernel.own) == groups_in(kernel.own.parent) == []


def test_version_2_hands_memory_down_first(tmp_path: Path, mount: Mount) -> None:
    kernel = mount(2)
    assert (kernel.mount / "cgroup.subtree_control").read_text() == ""
    with MemoryGroup(5 * MIB, tmp_path) as group:
        assert group.folder.parent == kernel.mount
        assert (kernel.mount / "cgroup.subtree_control").read_text().split() == ["memory"]
        assert (group.folder / "memory.max").read_text() == str(5 * MIB)
    with MemoryGroup(5 * MIB, tmp_path):
        assert (kernel.mount / "cgroup.subtree_control").read_text().split() == ["memory"]  # not again


def test_version_2_without_memory_among_its_controllers(tmp_path: Path, mount: Mount) -> None:
    kernel = mount(2)
    (kernel.mount / "cgroup.controllers").write_text("cpu io")
    with pytest.raises(MemoryGroupError, match=r"memory is not among its controllers \(.*cgroup.controllers"):
        MemoryGroup(MIB, tmp_path)
    assert groups_in(kernel.mount) == []


def test_two_groups_have_two_names(tmp_path: Path, mount: Mount) -> None:
    mount(1)
    with MemoryGroup(MIB, tmp_path) as one, MemoryGroup(MIB, tmp_path) as other:
        assert one.folder != other.folder


def test_what_could_not_be_limited_is_not_left_behind(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = mount(1, "build")
    monkeypatch.setitem(FILES, 1, ())
    with pytest.raises(MemoryGroupError, match=r"Permission denied .*memory.limit_in_bytes"):
        MemoryGroup(MIB, tmp_path)
    assert groups_in(kernel.own) == []


def test_no_controller_and_no_permission_are_named(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MemoryGroupError, match="there is no memory controller"):
        MemoryGroup(MIB, tmp_path)
    mount(1)

    def refuse(path: Path, *_arguments: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MemoryGroupError, match=r"cgroup: Permission denied.*Delegate=yes"):
        MemoryGroup(MIB, tmp_path)


@pytest.mark.parametrize("times", [3, 10**9])
def test_a_group_that_is_busy_is_removed_later_or_left_with_a_warning(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """The kernel may still be busy with what a killed process held."""
    monkeypatch.setattr(memory_group, "_REMOVAL_SECONDS", 60.0 if times == 3 else 0.05)
    kernel = mount(1)
    group = MemoryGroup(MIB, tmp_path)
    kernel.busy_removals = times
    group.remove()
    assert (groups_in(kernel.own) == []) == (times == 3)
    assert [record.getMessage() for record in caplog.records] == (
        [] if times == 3 else [f"a control group is left behind: rmdir {group.folder}: Device or resource busy"]
    )
    kernel.busy_removals = 0


def test_an_interruption_leaves_no_group(tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = mount(1)

    def interrupt(_group: MemoryGroup) -> None:
        assert len(groups_in(kernel.own)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryGroup, "_limit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        MemoryGroup(MIB, tmp_path)
    gc.collect()
    assert groups_in(kernel.own) == []


def _allocate(group: MemoryGroup, size_bytes: int) -> int:
    command = group.command([sys.executable, "-c", f"print(len(bytearray({size_bytes})))"])
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


@pytest.mark.usefixtures("_memory_groups")
def test_the_kernel_enforces_it() -> None:
    with MemoryGroup(64 * MIB) as group:
        assert _allocate(group, 8 * MIB) == 0
        assert group.kills == 0
        assert _allocate(group, 512 * MIB) == -signal.SIGKILL
        assert group.kills == 1
        assert group.peak_bytes is None or 8 * MIB < group.peak_bytes <= 64 * MIB
    assert not group.folder.exists()


@pytest.mark.usefixtures("_memory_groups")
def test_what_still_runs_in_it_is_killed() -> None:
    group = MemoryGroup(64 * MIB)
    command = group.command([sys.executable, "-c", "print('in', flush=True); import time; time.sleep(99)"])
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        group.remove()
        assert child.wait(timeout=60) == -signal.SIGKILL
    assert not group.folder.exists()
