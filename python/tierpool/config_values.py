"""Check configuration values and bring them into one form: whole bytes, plain numbers, plain lists."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from numbers import Rational, Real
from typing import TYPE_CHECKING, TypedDict

from tierpool._core import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
MAX_BYTES = 2**63 - 1

_UNITS = {"B": 1, "KB": 1 << 10, "MB": MIB, "GB": 1 << 30, "TB": 1 << 40}
_SIZE_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|[KMGT]i?B)\s*", re.IGNORECASE)


class Compaction(TypedDict):
    """The section `compaction` of the configuration."""

    enabled: bool
    threshold: float
    interval_ms: float


DEFAULT_COMPACTION: Compaction = {"enabled": False, "threshold": 0.5, "interval_ms": 60_000}


def unknown_name(name: object, known: Iterable[str], what: str = "configuration key") -> str:
    """Say that `name` is not among `known`, and which of them was probably meant."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names)}"


def bytes_of_text(key: str, text: str) -> int:
    """Bytes of a size with its unit, such as "256MiB" or "1.5GB". MB and MiB are both 2**20 bytes."""
    match = _SIZE_TEXT.fullmatch(text)
    if match is None:
        raise ConfigError(f"{key} is {text!r}, which is no size; write it with a unit, such as '256MiB' or '1.5GB'")
    number, unit = match.groups()
    return int(Fraction(number) * _UNITS[unit.upper().replace("I", "")])


def megabytes(key: str, value: object) -> int:
    """Bytes of a positive size given as a number of MB (2**20 bytes) or as text with a unit."""
    if isinstance(value, str):
        size = bytes_of_text(key, value)
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{key} must be a number of MB or a text such as '256MiB', got {type(value).__name__}")
    elif not math.isfinite(value):
        raise ConfigError(f"{key} must be a finite number of MB, got {value}")
    else:
        size = math.floor(Fraction(value if isinstance(value, Rational) else float(value)) * MIB)
    if size <= 0:
        raise ConfigError(f"{key} must be above 0, got {value}; a plain number is MB, so that 256 means 256 MiB")
    if size > MAX_BYTES:
        raise ConfigError(f"{key} must be below 2**63 bytes, got {value}; choose a size the device can hold")
    return size


def in_megabytes(size: int) -> int | float:
    """Bytes as MB: a whole number where it is one."""
    return size // MIB if size % MIB == 0 else size / MIB


def _heap_size(key: str, value: object) -> int | float:
    return in_megabytes(megabytes(key, value))


def size_list(key: str, value: object) -> list[int | float]:
    """Sizes in MB, as plain numbers."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{key} must be a list of sizes in MB, got {type(value).__name__}")
    return [_heap_size(f"{key}[{position}]", size) for position, size in enumerate(value)]


def flag(key: str, value: object) -> bool:
    """Whether, as a bool and nothing like it."""
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be true or false, got {type(value).__name__} {value!r}")
    return value


def choice(key: str, value: object) -> str:
    """One of several names, not yet looked up."""
    if not isinstance(value, str):
        raise TypeError(f"{key} must be a name, got {type(value).__name__} {value!r}")
    return value


def whole_number(key: str, value: object) -> int:
    """An integer of any type."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{key} must be a whole number, got {type(value).__name__} {value!r}")
    return operator.index(value)


def _num_heaps(key: str, value: object) -> int:
    count = whole_number(key, value)
    if count < 1:
        raise ConfigError(f"{key} must be at least 1, got {count}; set enabled to false for a pool without heaps")
    return count


def _max_heaps(key: str, value: object) -> int | None:
    return None if value is None else _num_heaps(key, value)


def _byte_count(key: str, value: object, remedy: str) -> int:
    size = bytes_of_text(key, value) if isinstance(value, str) else whole_number(key, value)
    if not 0 <= size <= MAX_BYTES:
        raise ConfigError(f"{key} must be at least 0 and below 2**63 bytes, got {value}; {remedy}")
    return size


def byte_limit(key: str, value: object) -> int | None:
    """Bytes, or text with a unit; None means no limit."""
    if value is None:
        return None
    size = bytes_of_text(key, value) if isinstance(value, str) else whole_number(key, value)
    if not 0 < size <= MAX_BYTES:
        raise ConfigError(f"{key} must be above 0 and below 2**63 bytes, got {value}; None means no limit")
    return size


def _exact_above(key: str, value: object) -> int:
    return _byte_count(key, value, "0 rounds no size")


def _magazine_bytes(key: str, value: object) -> int | None:
    return None if value is None else _byte_count(key, value, "None is a share of the heaps, 0 parks nothing")


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{key} must be a number, got {type(value).__name__} {value!r}")
    return float(value)


def _share(key: str, value: object) -> float:
    share = _number(key, value)
    if not 0 < share <= 1:
        raise ConfigError(f"{key} must be above 0 and at most 1, got {value}; 0.9 means 90 %")
    return share


def _dynamic_growth(key: str, value: object) -> bool:
    if flag(key, value):
        raise ConfigError(f"{key} is not available yet: set it to false and raise num_heaps to what the peak needs")
    return False


def _compaction(key: str, value: object) -> Compaction:
    if not isinstance(value, Mapping):
        raise TypeError(f"{key} must be a section with enabled, threshold and interval_ms, got {type(value).__name__}")
    for name in value:
        if name not in DEFAULT_COMPACTION:
            raise ConfigError(unknown_name(name, DEFAULT_COMPACTION, f"key in {key}"))
    section = {**DEFAULT_COMPACTION, **value}
    if flag(f"{key}.enabled", section["enabled"]):
        raise ConfigError(
            f"{key} is not available yet: set {key}.enabled to false; MemoryPool.trim() gives free memory back"
        )
    interval_ms = _number(f"{key}.interval_ms", section["interval_ms"])
    if not (interval_ms > 0 and math.isfinite(interval_ms)):
        raise ConfigError(f"{key}.interval_ms must be a finite number above 0, got {interval_ms}")
    return {
        "enabled": False,
        "threshold": _share(f"{key}.threshold", section["threshold"]),
        "interval_ms": interval_ms,
    }


CHECKS: dict[str, Callable[[str, object], object]] = {
    "enabled": flag,
    "heap_size_mb": _heap_size,
    "num_heaps": _num_heaps,
    "warmup_sizes": size_list,
    "track_statistics": flag,
    "log_exhaustion": flag,
    "strategy": choice,
    "placement": choice,
    "on_exhaustion": choice,
    "max_bytes": byte_limit,
    "magazines": flag,
    "exact_above": _exact_above,
    "magazine_thread_bytes": _magazine_bytes,
    "magazine_total_bytes": _magazine_bytes,
    "track_origins": flag,
    "device": choice,
    "dynamic_growth": _dynamic_growth,
    "max_heaps": _max_heaps,
    "growth_trigger": _share,
    "compaction": _compaction,
}
