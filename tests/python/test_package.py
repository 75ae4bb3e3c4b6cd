"""The package as a whole: what it exports, what importing it costs, its version."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import krserve_native
import tierpool
from tierpool import _core

ROOT = Path(__file__).parents[2]


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_import_loads_nothing_that_only_some_use() -> None:
    added = modules_after("import numpy, tierpool") - modules_after("import numpy")
    packages = {name.partition(".")[0] for name in added}
    assert not packages & {"typer", "click", "rich", "yaml", "hypothesis", "pytest", "typing_extensions"}
    # What costs time is modules: some dozens of the standard library's and the package's own.
    assert len(added) < 40, sorted(added)


def test_a_pool_without_a_file_does_not_load_yaml() -> None:
    assert "yaml" not in modules_after("import tierpool; tierpool.MemoryPool(num_heaps=1, warmup_sizes=[])")


def test_one_version() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert tierpool.__version__ == _core.__version__ == version("tierpool") == declared[1]


@pytest.mark.parametrize("package", [tierpool, krserve_native])
def test_all_is_complete_and_true(package: object) -> None:
    exported = package.__all__  # type: ignore[attr-defined]
    assert sorted(set(exported)) == sorted(exported)
    for name in exported:
        assert hasattr(package, name)
    public = {name for name in vars(package) if not name.startswith("_")}
    modules = {name for name in public if isinstance(vars(package)[name], type(sys))}
    assert public - modules <= set(exported)


def test_both_packages_are_typed() -> None:
    for package in (tierpool, krserve_native):
        assert (Path(str(package.__file__)).parent / "py.typed").exists()


def test_errors_derive_as_documented() -> None:
    own = [
        tierpool.ConfigError,
        tierpool.DeviceError,
        tierpool.InitializationError,
        tierpool.PoolClosedError,
        tierpool.TraceError,
    ]
    assert all(issubclass(error, tierpool.TierpoolError) for error in own)
    assert issubclass(tierpool.TierpoolError, RuntimeError)
    assert issubclass(tierpool.ConfigError, ValueError)
    assert issubclass(tierpool.OutOfMemoryError, MemoryError)
    assert not issubclass(tierpool.OutOfMemoryError, tierpool.TierpoolError)


def test_interpreter_exit_with_live_buffers_is_silent() -> None:
    code = (
        "import logging, tierpool; logging.basicConfig(level=0)\n"
        "pool = tierpool.MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[])\n"
        "buffer = pool.allocate(100); batch = pool.allocate_batch([1, 2]); array = buffer.array()\n"
        "with pool.numpy(0):\n    import numpy; x = numpy.ones(1000)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
