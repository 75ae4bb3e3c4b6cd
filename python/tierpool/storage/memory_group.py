"""A control group of our own with a memory limit, for processes that are to be measured under it."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import signal
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tierpool._core import TierpoolError
from tierpool.storage.limits import ancestors, find_group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

LOGGER = logging.getLogger("tierpool")

_ROOT = Path("/")
# By version: the limit, what else forbids to swap, the most that was used, and where kills are counted.
_LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
_NO_SWAP = {1: ("memory.swappiness", "memory.memsw.limit_in_bytes"), 2: ("memory.swap.max",)}
_PEAK = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
_KILLS = {1: "memory.oom_control", 2: "memory.events"}
_REMOVAL_SECONDS = 5.0  # the kernel may take a while to free what a killed process held
_PAUSE_SECONDS = 0.02


class MemoryGroupError(TierpoolError):
    """No control group can be made; the message says why, and how to get one."""


class MemoryGroup:
    """A group below this process's own, or beside it where version 2 asks for that; it goes away with `remove`.

    Page cache of its processes counts too, so that mapped files are held to the limit. For one thread.

    Parameters
    ----------
    limit_bytes : int
        What its processes may hold together, without swap.
    root : path
        The root of the file system; tests bring their own.

    Raises
    ------
    MemoryGroupError
        Where there is no memory controller, or this process may not use it.
    """

    def __init__(self, limit_bytes: int, root: Path = _ROOT) -> None:
        group = find_group(root, "memory")
        if group is None:
            raise _refusal("there is no memory controller of control groups here")
        self.version = group.version
        self.limit_bytes = limit_bytes
        problems = []
        # Never further up, where groups are somebody else's. In version 2 a group with processes has none below it.
        for parent in ancestors(group)[: group.version]:
            self.folder = parent / f"tierpool-{os.getpid()}-{secrets.token_hex(4)}"
            # From before it exists, so that no interruption leaves it behind.
            self._removal = weakref.finalize(self, _remove, self.folder)
            try:
                self._hand_down(parent)
                self.folder.mkdir()
                self._limit()
            except OSError as error:
                problems.append(f"{parent}: {error.strerror} ({error.filename})")
                self.remove()
                continue
            return
        raise _refusal("; ".join(problems))

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return a command line that enters the group first and then becomes `arguments`, so that all of it counts."""
        return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *arguments]

    @property
    def peak_bytes(self) -> int | None:
        """The most that was held at once, page cache too; None where the kernel does not say."""
        text = self._text(_PEAK[self.version])
        return int(text) if text.isdecimal() else None

    @property
    def kills(self) -> int:
        """How many of its processes the kernel killed for lack of memory."""
        lines = (line.split() for line in self._text(_KILLS[self.version]).splitlines())
        return next((int(line[1]) for line in lines if line[:1] == ["oom_kill"]), 0)

    def remove(self) -> None:
        """Give it back, and kill what still runs in it; where the kernel refuses, warn and leave it behind."""
        _remove(self.folder)
        self._removal.detach()

    def __enter__(self) -> MemoryGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _hand_down(self, parent: Path) -> None:
        """Let groups below `parent` limit memory, which version 2 does where the group above says so.

        That stays: taken back, it would end the limits of all groups there.
        """
        controls = parent / "cgroup.subtree_control"
        if self.version == 1 or "memory" in controls.read_text(encoding="utf-8").split():
            return
        controllers = parent / "cgroup.controllers"
        if "memory" not in controllers.read_text(encoding="utf-8").split():
            raise OSError(errno.ENOTSUP, "memory is not among its controllers", str(controllers))
        controls.write_text("+memory", encoding="utf-8")

    def _limit(self) -> None:
        (self.folder / _LIMIT[self.version]).write_text(str(self.limit_bytes))
        for name in _NO_SWAP[self.version]:
            file = self.folder / name
            if file.exists():  # a kernel may have been built without
                file.write_text(str(self.limit_bytes) if name.endswith("limit_in_bytes") else "0")

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8").strip()
        except OSError:
            return ""


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < deadline:
                _kill_all(folder)
                time.sleep(_PAUSE_SECONDS)
                continue
            LOGGER.warning("a control group is left behind: rmdir %s: %s", folder, error.strerror)
        return


def _kill_all(folder: Path) -> None:
    """Kill a group's processes; those that have ended stay in it until the kernel is done with them."""
    with suppress(OSError):
        for process in map(int, (folder / "cgroup.procs").read_text(encoding="utf-8").split()):
            if process > 0:  # 0: of another namespace
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def _refusal(why: str) -> MemoryGroupError:
    hint = "" if sys.platform == "linux" else "; only Linux has them"
    return MemoryGroupError(
        f"no control group can hold a process to a memory limit ({why}{hint}): run as root, or under "
        "systemd-run --user --scope -p Delegate=yes"
    )
