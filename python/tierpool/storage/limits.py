"""What the system lets this process have: memory, processors, mappings.

Every function takes the root of the file system, so that tests can bring their own.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tierpool.storage.llama_library import IMPORT_BYTES, is_imported
from tierpool.storage.process_memory import read_process_memory

KIB: Final = 1024
DEFAULT_MAX_MAPPINGS: Final = 65_530
"""``vm.max_map_count`` where the system does not say."""

# Version 1 writes "no limit" as the largest number that is a multiple of the page size.
_NO_LIMIT = 1 << 60
_ROOT = Path("/")


@dataclass(frozen=True)
class Limits:
    """Limits in force when they were read.

    Attributes
    ----------
    memory_limit_bytes : int or None
        Of the memory limits of this process's control groups, the one that leaves it least beside what others hold;
        None when there is none.
    memory_limit_source : str
        Where it comes from, such as ``cgroup v2 /build``; empty when there is none.
    memory_used_by_others_bytes : int
        Memory within that limit that other processes hold and that cannot be reclaimed.
    memory_available_bytes : int
        What the system could give without swapping.
    process_bytes : int
        Anonymous and shared memory of this process, each page once.
    cores : int
        Processors that this process may use, rounded up from a control group's share.
    max_mappings : int
        ``vm.max_map_count``.
    used_mappings : int
        How many of them this process has.
    import_bytes : int
        What importing the library that computes will add to `process_bytes`; 0 when it is there.
    """

    memory_limit_bytes: int | None
    memory_limit_source: str
    memory_used_by_others_bytes: int
    memory_available_bytes: int
    process_bytes: int
    cores: int
    max_mappings: int
    used_mappings: int = 0
    import_bytes: int = 0

    def budget(self) -> tuple[int, str]:
        """Bytes that this process may hold in all, what it holds already included, and why that many."""
        free = self.memory_available_bytes + self.process_bytes
        if self.memory_limit_bytes is None:
            return free, "available memory"
        granted = max(0, self.memory_limit_bytes - self.memory_used_by_others_bytes)
        return (granted, self.memory_limit_source) if granted <= free else (free, "available memory")

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True)
class ControlGroup:
    """One control group of this process: what it is called, where its files are, and where its hierarchy begins."""

    name: str
    folder: Path
    mount: Path
    version: int


def read_limits(root: Path = _ROOT) -> Limits:
    """Read every limit; what the system does not offer counts as no limit."""
    memory = read_process_memory(root)
    process_bytes = memory.anonymous_bytes + memory.shared_bytes
    limit, source, used_by_others = _memory_limit(root, process_bytes)
    mappings = _number(root / "proc/sys/vm/max_map_count")
    return Limits(
        memory_limit_bytes=limit,
        memory_limit_source=source,
        memory_used_by_others_bytes=used_by_others,
        memory_available_bytes=_field_kib(root / "proc/meminfo", "MemAvailable") or _physical_bytes(root),
        process_bytes=process_bytes,
        cores=_cores(root),
        max_mappings=mappings or DEFAULT_MAX_MAPPINGS,
        used_mappings=_text(root / "proc/self/maps").count("\n"),
        import_bytes=0 if is_imported() else IMPORT_BYTES,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The file's only number; None when there is no such file or it says ``max``."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _field_kib(path: Path, name: str) -> int:
    """A line such as ``MemAvailable:  1024 kB``, in bytes; 0 when there is none."""
    lines = (line.partition(":") for line in _text(path).splitlines())
    return next((int(value.split()[0]) * KIB for found, _, value in lines if found == name), 0)


def _physical_bytes(root: Path) -> int:
    """All memory of the machine, for systems that do not say how much of it is available."""
    if root != _ROOT or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _flat_fields(path: Path) -> dict[str, int]:
    """Lines such as ``anon 4096``."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def find_group(root: Path, controller: str) -> ControlGroup | None:
    """The group that `controller` limits this process by: version 1 if it is mounted there, else version 2."""
    entries = [line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines()]
    names = {kind: entry[2] for entry in entries if len(entry) == 3 for kind in entry[1].split(",")}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mounted, kind = before.split(), after.split()
        if len(mounted) < 5 or len(kind) < 3:
            continue
        version = 1 if kind[0] == "cgroup" and controller in kind[2].split(",") else 2 if kind[0] == "cgroup2" else 0
        name = names.get(controller if version == 1 else "")
        if not version or name is None or (version == 2 and controller in names):
            continue
        # A container sees its own group as the root of the mount.
        path = PurePosixPath(name)
        inside = path.relative_to(mounted[3]) if path.is_relative_to(mounted[3]) else "."
        mount = root / mounted[4].lstrip("/")
        return ControlGroup(name, mount / inside, mount, version)
    return None


def ancestors(group: ControlGroup) -> list[Path]:
    """The group's folder and those above it, up to the mount."""
    folders = [group.folder]
    while folders[-1] != group.mount and group.mount in folders[-1].parents:
        folders.append(folders[-1].parent)
    return folders


@dataclass(frozen=True)
class _GroupMemory:
    limit_bytes: int
    used_by_others_bytes: int

    @property
    def granted_bytes(self) -> int:
        return self.limit_bytes - self.used_by_others_bytes


def _memory_limit(root: Path, process_bytes: int) -> tuple[int | None, str, int]:
    """The limit that grants this process least, its source, and the bytes under it that others hold."""
    group = find_group(root, "memory")
    if group is None:
        return None, "", 0
    found = [_group_memory(folder, group.version, process_bytes) for folder in ancestors(group)]
    limited = [memory for memory in found if memory is not None]
    if not limited:
        return None, "", 0
    tightest = min(limited, key=lambda memory: memory.granted_bytes)
    return tightest.limit_bytes, f"cgroup v{group.version} {group.name}", tightest.used_by_others_bytes


def _group_memory(folder: Path, version: int, process_bytes: int) -> _GroupMemory | None:
    """What a group and the groups below it may hold, and do; None when it has no limit."""
    # Beyond memory.high the kernel reclaims and slows down what it does not refuse.
    files = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
    limit = min((value for file in files if (value := _number(folder / file)) is not None), default=_NO_LIMIT)
    if limit >= _NO_LIMIT:
        return None
    fields = _flat_fields(folder / "memory.stat")
    names = ("anon", "shmem") if version == 2 else ("total_rss", "total_shmem")
    return _GroupMemory(limit, max(0, sum(fields.get(name, 0) for name in names) - process_bytes))


def _cores(root: Path) -> int:
    # Not everywhere can a process be bound to processors.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    group = find_group(root, "cpu")
    if group is None:
        return bound
    shares = [share for folder in ancestors(group) if (share := _processor_share(folder)) is not None]
    return max(1, min([bound, *shares]))


def _processor_share(folder: Path) -> int | None:
    """Processors that a group may use at once, rounded up."""
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _text(folder / "cpu.cfs_quota_us").strip()
        period = _text(folder / "cpu.cfs_period_us").strip()
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return -(-int(quota) // int(period))
