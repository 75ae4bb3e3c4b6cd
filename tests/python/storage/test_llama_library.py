"""Which llama-cpp-python is accepted, what becomes of its log, and functions that it does not declare."""

from __future__ import annotations

import logging

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
