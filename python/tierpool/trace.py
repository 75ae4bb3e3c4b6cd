"""Allocation traces: reading them, replaying them against a pool, finding the smallest heap that serves them.

A trace is a gzip CSV file (plain text is accepted too)::

    # {"name": "llama-1b-decode", "torch_reserved_over_peak": 2.648}
    op,id,bytes
    a,0,1024
    f,0,1024

The first line is a JSON object that describes the recording; any keys will do. Each further line allocates (``a``) or
frees (``f``) the buffer ``id`` of ``bytes`` bytes. Ids come in any order, may be used again after their free, and need
not be freed.
"""

from __future__ import annotations

import gzip
import importlib.resources
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tierpool import _core

__all__ = ["Trace", "fit", "packaged_trace", "read_trace", "replay"]

_ENDING = ".csv.gz"
_COLUMNS = b"op,id,bytes"
_FIRST_EVENT_LINE = 3
_MAX_NUMBER = 2**63 - 1
_MAX_DIGITS = len(str(_MAX_NUMBER))
_NEWLINE, _COMMA, _ZERO = b"\n"[0], b","[0], b"0"[0]
_GZIP_MAGIC = b"\x1f\x8b"
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Trace:
    """A trace read from a file.

    Attributes
    ----------
    header : dict
        The JSON object of the first line.
    core : _core.Trace
        The events, checked for consistency.
    """

    header: dict[str, Any]
    core: _core.Trace


def packaged_trace(name: str = "llama-1b-decode") -> Path:
    """Return the path of a trace that comes with the package.

    Parameters
    ----------
    name : str
        The trace's name, without its endings.

    Raises
    ------
    FileNotFoundError
        If the package has no such trace.
    """
    folder = importlib.resources.files("tierpool.traces")
    known = sorted(found.name.removesuffix(_ENDING) for found in folder.iterdir() if found.name.endswith(_ENDING))
    if name not in known:
        raise FileNotFoundError(f"no packaged trace is called {name!r}; known: {', '.join(known) or 'none'}")
    return Path(str(folder.joinpath(name + _ENDING)))


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace file.

    Parameters
    ----------
    path : path-like
        A gzip CSV file, or the same as plain text.

    Raises
    ------
    TraceError
        If the file is corrupt, ends early, is no trace, or contradicts itself; the message names file and line.
    OSError
        If the file cannot be read.
    """
    name = os.fspath(path)
    text = _read_text(name)
    header, body = _split_header(name, text)
    columns = _parse_events(body)
    if columns is None:
        _raise_for_bad_line(name, body)
    ops, ids, sizes = columns
    promised = header.get("events")
    if not text.endswith(b"\n") and isinstance(promised, int) and len(ops) < promised:
        last_line = _FIRST_EVENT_LINE + len(ops) - 1
        _fail(name, last_line, f"the file ends early: it has {len(ops)} of {promised} events; copy it again")
    try:
        core = _core.Trace(ops, ids, sizes, first_line=_FIRST_EVENT_LINE)
    except _core.TraceError as error:
        raise _core.TraceError(f"{name}: {error}") from None
    return Trace(header, core)


def replay(
    trace: Trace | str | os.PathLike[str], pool: _core.MemoryPool, *, write: bool = False
) -> dict[str, int | float]:
    """Run a trace against a pool, in C++ and on one thread.

    Parameters
    ----------
    trace : Trace or path-like
        The trace or its file.
    pool : MemoryPool
        The pool, with ``track_statistics`` on. What the trace leaves live is released at the end.
    write : bool
        Write every buffer in full as soon as it is allocated; the pool's device must be in reach of the processor.

    Returns
    -------
    dict
        ``events``, ``allocations``, ``peak_live_bytes`` (of requested bytes), ``capacity_bytes`` (of the pool),
        ``hit_rate`` (share of the allocations that heaps served), ``fallback_allocations`` and ``ns_per_event``.
    """
    core = _core_trace(trace)
    before = pool.get_statistics()
    nanoseconds = _core.replay(core, pool, write)
    after = pool.get_statistics()
    allocations = after.total_allocations - before.total_allocations
    fallbacks = after.fallback_allocations - before.fallback_allocations
    return {
        "events": core.event_count,
        "allocations": core.allocation_count,
        "peak_live_bytes": core.peak_live_bytes,
        "capacity_bytes": round(after.total_capacity_mb * 2**20),
        "hit_rate": (allocations - fallbacks) / allocations if allocations else 0.0,
        "fallback_allocations": fallbacks,
        "ns_per_event": nanoseconds / core.event_count if core.event_count else 0.0,
    }


def fit(
    trace: Trace | str | os.PathLike[str], placements: tuple[str, ...] | None = None
) -> list[dict[str, str | int | float]]:
    """Find the smallest single heap that serves a whole trace, for each placement.

    The block allocator alone is asked, so that no memory is needed. Capacities are whole 256-byte units, found by
    bisection to 0.1 %; each one returned has served the trace in full.

    Parameters
    ----------
    trace : Trace or path-like
        The trace or its file.
    placements : tuple of str, optional
        The placements to try; all by default.

    Returns
    -------
    list of dict
        ``placement``, ``capacity_bytes`` and ``capacity_over_peak``: the capacity over the peak of requested bytes,
        0.0 when nothing is requested.
    """
    core = _core_trace(trace)
    rows: list[dict[str, str | int | float]] = []
    for placement in _core.placement_names() if placements is None else placements:
        capacity_bytes = _core.fit(core, placement)
        over_peak = capacity_bytes / core.peak_live_bytes if core.peak_live_bytes else 0.0
        rows.append({"placement": placement, "capacity_bytes": capacity_bytes, "capacity_over_peak": over_peak})
    return rows


def _core_trace(trace: Trace | str | os.PathLike[str]) -> _core.Trace:
    return trace.core if isinstance(trace, Trace) else read_trace(trace).core


def _fail(name: str, line: int, problem: str) -> NoReturn:
    raise _core.TraceError(f"{name}: line {line}: {problem}")


def _shown(text: bytes) -> str:
    """Foreign text for a message: short, and in one line."""
    return repr(text[:_SHOWN_CHARACTERS].decode("utf-8", "replace")) + ("..." if len(text) > _SHOWN_CHARACTERS else "")


def _read_text(name: str) -> bytes:
    data = Path(name).read_bytes()
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except EOFError:
            _fail(name, _readable_lines(name) + 1, "the gzip file ends early; copy it again")
        except (OSError, zlib.error) as error:
            _fail(name, _readable_lines(name) + 1, f"the gzip file is corrupt ({error}); copy it again")
    elif name.endswith(".gz"):
        _fail(name, 1, "not a gzip file; compress it with gzip, or drop the ending .gz if it is plain text")
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data


def _readable_lines(name: str) -> int:
    """How many lines come out of a damaged gzip file."""
    lines = 0
    try:
        with gzip.open(name) as file:
            for _ in file:
                lines += 1
    except (EOFError, OSError, zlib.error):
        pass
    return lines


def _split_header(name: str, text: bytes) -> tuple[dict[str, Any], bytes]:
    first, _, rest = text.partition(b"\n")
    second, _, body = rest.partition(b"\n")
    expected = "a trace begins with a line '# {...}', a JSON object that may be empty"
    if not first.startswith(b"#"):
        _fail(name, 1, f"found {_shown(first)}; {expected}")
    try:
        header = json.loads(first[1:].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _fail(name, 1, f"the header is not valid JSON ({error}); {expected}")
    if not isinstance(header, dict):
        _fail(name, 1, f"the header is a JSON {type(header).__name__}; {expected}")
    if second.strip() != _COLUMNS:
        _fail(name, 2, f"found {_shown(second)}; the second line must be '{_COLUMNS.decode()}'")
    return header, body


def _parse_events(body: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint64]] | None:
    """The three columns, or None when any line is not ``a|f,id,bytes`` with numbers below 2**63."""
    if body and not body.endswith(b"\n"):
        body += b"\n"
    text = np.frombuffer(body, dtype=np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    commas = np.flatnonzero(text == _COMMA)
    if len(commas) != 2 * len(ends):
        return None
    starts = np.concatenate(([0], ends + 1))[:-1]
    first_commas, second_commas = commas[0::2], commas[1::2]
    if np.any(first_commas != starts + 1) or np.any(second_commas > ends):
        return None
    ops = text[starts]
    ids = _parse_numbers(text, first_commas + 1, second_commas)
    sizes = _parse_numbers(text, second_commas + 1, ends)
    if ids is None or sizes is None or not np.all((ops == b"a"[0]) | (ops == b"f"[0])):
        return None
    return ops, ids, sizes


def _parse_numbers(
    text: NDArray[np.uint8], begins: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.uint64] | None:
    """The decimal numbers at ``text[begins:ends]``; None when one has other characters or is too large."""
    lengths = ends - begins
    values = np.zeros(len(lengths), dtype=np.uint64)
    if len(lengths) == 0:
        return values
    if lengths.min() < 1 or lengths.max() > _MAX_DIGITS:
        return None
    for position in range(int(lengths.max())):
        rows = np.flatnonzero(lengths > position)
        # Characters below '0' wrap around and are caught with those above '9'.
        digits = text[begins[rows] + position] - np.uint8(_ZERO)
        if digits.max() > 9:
            return None
        values[rows] = values[rows] * np.uint64(10) + digits
    return values if values.max() <= _MAX_NUMBER else None


def _raise_for_bad_line(name: str, body: bytes) -> NoReturn:
    for line, text in enumerate(body.removesuffix(b"\n").split(b"\n"), start=_FIRST_EVENT_LINE):
        fields = text.split(b",")
        if len(fields) != 3:
            _fail(name, line, f"found {_shown(text)}, not the three fields op,id,bytes; complete or remove the line")
        if fields[0] not in (b"a", b"f"):
            _fail(name, line, f"unknown operation {_shown(fields[0])}; 'a' allocates, 'f' frees")
        for field, what in ((fields[1], "id"), (fields[2], "bytes")):
            # isdigit() of bytes knows ASCII digits only; the length is checked before a number is made of them.
            if not field.isdigit():
                _fail(name, line, f"{what} is {_shown(field)}; it must be an integer of 0 or more")
            if len(field) > _MAX_DIGITS or int(field) > _MAX_NUMBER:
                _fail(name, line, f"{what} is {_shown(field)}; the limit is 2**63 - 1")
    raise AssertionError("unreachable: the line that the fast reader refused has not been found")
