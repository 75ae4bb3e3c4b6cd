"""Which llama-cpp-python is accepted, what becomes of its log, and functions that it does not declare."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tierpool.storage import llama_library as library_module
from tierpool.storage.llama_library import LogLines, function_address, llama_library, version_numbers


def test_log_lines_are_joined(caplog: pytest.LogCaptureFixture) -> None:
    lines = LogLines()
    with caplog.at_level(logging.DEBUG, logger="tierpool"):
        lines.add(3, "a warning in ")
        lines.add(5, "two pieces\n")
        lines.add(2, ".....")
        lines.add(4, "an error\n")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "llama.cpp: a warning in two pieces"),
        (logging.ERROR, "llama.cpp: an error"),
    ]


@pytest.mark.parametrize("found", ["0.3.34", "0.3.37", "0.4.0", "1.0"])
def test_versions_out_of_range(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(library_module, "version", lambda _: found)
    with pytest.raises(ImportError, match=rf"{found}.*tierpool\[llama\]"):
        llama_library.__wrapped__()


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise library_module.PackageNotFoundError(name)

    monkeypatch.setattr(library_module, "version", version)
    with pytest.raises(ImportError, match=r"tierpool\[llama\]"):
        llama_library.__wrapped__()


def test_version_numbers() -> None:
    assert version_numbers("0.3.36") == version_numbers("0.3.36+cu126") == version_numbers("0.3.36rc1") == (0, 3, 36)
    assert version_numbers("1.2.dev3") == (1, 2)
    assert version_numbers("unknown") == ()


def test_functions_that_the_package_does_not_declare() -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")
    library = llama_library()
    assert function_address(library, "ggml_get_name") > 0
    with pytest.raises(ImportError, match="ggml_no_such_thing"):
        function_address(library, "ggml_no_such_thing")


PACKAGE = """
import sys, threading
from . import llama_cpp
llama_cpp.is_half_imported.set()
def main_waits_for_this_import():
    frame = sys._current_frames()[threading.main_thread().ident]
    return getattr(frame.f_locals.get("self"), "name", None) == __name__  # the import system's lock of this package
while not main_waits_for_this_import() and not llama_cpp.is_used.wait(0.001):
    pass
llama_cpp.llama_log_set("the package's", None)
"""
LIBRARY = """
import threading
is_half_imported, is_used, log_callbacks = threading.Event(), threading.Event(), []
def llama_log_callback(function): return function
def llama_log_set(callback, _data): log_callbacks.append(callback)
def llama_backend_init(): pass
"""


def test_the_log_is_ours_when_two_threads_import_the_package_at_once(tmp_path: Path) -> None:
    package = tmp_path / "llama_cpp"
    package.mkdir()
    (package / "__init__.py").write_text(PACKAGE)
    (package / "llama_cpp.py").write_text(LIBRARY)
    code = """
import sys, threading
from tierpool.storage import llama_library as library_module
library_module.version = lambda _: "0.3.36"
first = threading.Thread(target=library_module.llama_library)
first.start()
while not hasattr(sys.modules.get("llama_cpp.llama_cpp"), "llama_backend_init"):
    pass
library = sys.modules["llama_cpp.llama_cpp"]
library.is_half_imported.wait()
library_module.llama_library()
library.is_used.set()
print(library.log_callbacks.index("the package's"), callable(library.log_callbacks[-1]))
first.join()
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0 True\n"), done.stderr
