"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

PEER_PACKAGES = ("libmimalloc2.0", "libjemalloc2", "libtcmalloc-minimal4", "libtbbmalloc2", "libbenchmark1debian")
PYTHON_PACKAGES = ("tierpool", "numpy", "torch", "cupy")


def describe(build: Path) -> dict[str, str]:
    """Describe machine, compiler and libraries; what cannot be read is left out."""
    described = {
        "processor": _first_match("/proc/cpuinfo", r"model name\s*: (.*)") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB",
        "kernel": platform.release(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "huge pages": _first_match("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]"),
        "compiler": _compiler(build),
        "glibc": platform.libc_ver()[1],
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    described |= {package: _debian_version(package) for package in PEER_PACKAGES}
    described |= {package: _python_version(package) for package in PYTHON_PACKAGES}
    return {key: value for key, value in described.items() if value}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _first_match(path: str, pattern: str) -> str:
    found = re.search(pattern, _read(path))
    return found.group(1) if found else ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _compiler(build: Path) -> str:
    compiler = _first_match(str(build / "CMakeCache.txt"), r"CMAKE_CXX_COMPILER:\w+=(.*)")
    return _output(compiler, "--version").partition("\n")[0] if compiler else ""


def _debian_version(package: str) -> str:
    return _output("dpkg-query", "--show", "--showformat", "${Version}", package)


def _python_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
