"""llama.cpp as llama-cpp-python brings it: version checked, log redirected, undeclared functions."""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

LOGGER = logging.getLogger("tierpool")

FIRST_VERSION: Final = (0, 3, 35)
END_VERSION: Final = (0, 3, 37)
"""The first version that is too new: it may lay out its structures differently."""

IMPORT_BYTES: Final = 12 << 20
"""What importing it adds to a process at most; 6.5 MiB with version 0.3.36 and Python 3.11."""

_PACKAGE = "llama_cpp.llama_cpp"
_INSTALL = "pip install 'tierpool[llama]'"
# By llama.cpp's number: debug, info, warning, error. It tells much, and most of what it warns of is normal here, such
# as a context smaller than the model's.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.ERROR}
_CONTINUED = 5
# All that were made: of two threads that come first, nobody knows whose one llama.cpp has kept.
_CALLBACKS: list[Any] = []


@lru_cache(maxsize=1)
def llama_library() -> Any:
    """Import llama-cpp-python's low-level functions, and prepare the library behind them.

    Raises
    ------
    ImportError
        When the package is missing, or its version is not one that this was made for.
    """
    try:
        found = version("llama-cpp-python")
    except PackageNotFoundError:
        raise ImportError(f"running a model needs llama-cpp-python: {_INSTALL}") from None
    if not FIRST_VERSION <= version_numbers(found) < END_VERSION:
        first, end = (".".join(map(str, numbers)) for numbers in (FIRST_VERSION, END_VERSION))
        raise ImportError(f"llama-cpp-python {found} is not supported, only >={first},<{end}: {_INSTALL}")
    # All of the package before its part: while another thread imports it, the part may be there already, and the
    # package's own function for the log would take the place of ours.
    importlib.import_module("llama_cpp")
    library = importlib.import_module(_PACKAGE)
    library.llama_log_set(_log_callback(library), ctypes.c_void_p(0))
    library.llama_backend_init()
    return library


def is_imported() -> bool:
    """Whether this process has the library already."""
    return _PACKAGE in sys.modules


def version_numbers(text: str) -> tuple[int, ...]:
    """Read the leading numbers of a version; what follows them, such as a build's name, is left out."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


class LogLines:
    """Joins the pieces that llama.cpp writes into lines."""

    def __init__(self) -> None:
        self._level = logging.DEBUG
        self._text = ""

    def add(self, level: int, text: str) -> None:
        """Take a piece, and log what ends with it."""
        if level != _CONTINUED:
            self._flush()
            self._level = _LEVELS.get(level, logging.INFO)
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._log(line)

    def _flush(self) -> None:
        line, self._text = self._text, ""
        self._log(line)

    def _log(self, line: str) -> None:
        # Dots that show progress are no message.
        if line.strip(" ."):
            LOGGER.log(self._level, "llama.cpp: %s", line.rstrip())


def _log_callback(library: Any) -> Any:
    """Make a function that llama.cpp calls for as long as the process lives."""
    lines = LogLines()

    def take(level: int, text: bytes, _data: object) -> None:
        lines.add(level, text.decode("utf-8", errors="replace"))

    callback = library.llama_log_callback(take)
    _CALLBACKS.append(callback)
    return callback


def function_of(library: Any, name: str) -> Any:
    """A function of llama.cpp or of the libraries under it, which the package does not declare.

    Raises
    ------
    ImportError
        When the library has no such function.
    """
    try:
        return library._lib[name]
    except AttributeError:
        raise ImportError(f"the llama.cpp of this llama-cpp-python lacks {name}: {_INSTALL}") from None


def function_address(library: Any, name: str) -> int:
    """Address of such a function."""
    return ctypes.cast(function_of(library, name), ctypes.c_void_p).value or 0
