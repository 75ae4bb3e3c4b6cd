"""How much memory this process holds, as the kernel counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

KIB: Final = 1024
_ROOT = Path("/")


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of a process by kind.

    Attributes
    ----------
    anonymous_bytes : int
        Heaps, stacks, buffers.
    shared_bytes : int
        Memory files, slots among them. A page counts once, however often it is mapped: the kernel gives each of its
        mappings an equal share (``Pss_Shmem``), and the shares are added up. ``RssShmem`` would count a slot that
        also stands in the model's window twice.
    file_bytes : int
        Mapped pages of files. They are page cache, which the kernel takes back when it wants to, so that no budget
        covers them.
    """

    anonymous_bytes: int
    shared_bytes: int
    file_bytes: int


def read_process_memory(root: Path = _ROOT) -> ProcessMemory:
    """Read all kinds; takes some milliseconds per GiB. Zeros where the system does not say."""
    status = _fields_kib(root / "proc/self/status")
    shares = _fields_kib(root / "proc/self/smaps_rollup")
    # Before Linux 5.1 the kernel did not tell the kinds apart: too much is better than too little.
    shared_bytes = shares.get("Pss_Shmem", status.get("RssShmem", 0))
    return ProcessMemory(status.get("RssAnon", 0), shared_bytes, status.get("RssFile", 0))


def read_anonymous_bytes(root: Path = _ROOT) -> int:
    """Read only the kind that grows while computing; takes microseconds."""
    return _fields_kib(root / "proc/self/status").get("RssAnon", 0)


def _fields_kib(path: Path) -> dict[str, int]:
    """Lines such as ``RssAnon:  1024 kB``, in bytes."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * KIB for name, _, value in pairs}
