"""Every example in the documentation runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tierpool
from tierpool import cuda, storage
from tierpool.storage import ModelStatistics, PhaseStatistics

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BUFFER_POOL, CUDA, STORAGE = (ROOT / "python" / f"{name}.md" for name in ("BUFFER_POOL", "CUDA", "STORAGE"))
PAGES = [README, BUFFER_POOL, CUDA, STORAGE]
MAKE_MODEL = ROOT / "benchmarks" / "python" / "make_model.py"
NEEDS_A_GPU = "# needs a GPU"
MODULES = [
    tierpool,
    *(
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(tierpool.__path__, "tierpool.")
        if not module.name.endswith(("__main__", "_core"))
    ),
]
BLOCKS = {
    f"{page.name}, block {number}": block
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL), start=1
    )
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_docstring_examples(module: ModuleType) -> None:
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_the_main_classes_have_examples() -> None:
    finder = doctest.DocTestFinder()
    tested = {test.name for module in MODULES for test in finder.find(module) if test.examples}
    for name in (
        "pool.MemoryPool",
        "pool.MemoryPool.warmup",
        "pool.MemoryPool.numpy",
        "config.PoolConfig",
        "buffer_pool.BufferPool",
    ):
        assert f"tierpool.{name}" in tested


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("gguf", "llama_cpp"):
        pytest.importorskip(package, reason=f"NOT TESTED: needs {package}: pip install 'tierpool[llama]'")
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    command = [sys.executable, str(MAKE_MODEL), str(path), "--size", "30MB"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path


@pytest.mark.parametrize("name", BLOCKS)
def test_block_of_a_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if "model.gguf" in BLOCKS[name]:
        (tmp_path / "model.gguf").symlink_to(request.getfixturevalue("model"))
    if BLOCKS[name].startswith(NEEDS_A_GPU):
        if not cuda.is_available():
            pytest.skip(f"NO CUDA HERE, not tested: {cuda.unavailable_reason()}")
        if "import torch" in BLOCKS[name]:
            pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
    exec(compile(BLOCKS[name], name, "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_examples(page: Path) -> None:
    assert any(name.startswith(page.name) for name in BLOCKS)


def test_readme_tables_name_what_there_is() -> None:
    text = README.read_text(encoding="utf-8")
    fields = tierpool.MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[]).get_statistics().to_dict()
    missing = [name for name in [*fields, *tierpool.PoolConfig.__dataclass_fields__] if f"`{name}`" not in text]
    assert missing == []


def test_the_buffer_pool_page_names_every_setting() -> None:
    text = BUFFER_POOL.read_text(encoding="utf-8")
    settings = [name for name in inspect.signature(tierpool.BufferPool).parameters if f"`{name}`" not in text]
    assert settings == []


def test_the_storage_page_names_every_statistic() -> None:
    text = STORAGE.read_text(encoding="utf-8")
    phase = PhaseStatistics(*[0] * len(PhaseStatistics.__dataclass_fields__))
    names = [*phase.to_dict(), *ModelStatistics.__dataclass_fields__]
    missing = [name for name in names if f"`{name}`" not in text and f"`statistics.{name}`" not in text]
    assert missing == []


def test_public_names_have_docstrings() -> None:
    for name in tierpool.__all__:
        if name != "__version__":
            assert getattr(tierpool, name).__doc__, name
    for name in storage.__all__:
        assert getattr(storage, name).__doc__, name
    pools = (tierpool.MemoryPool, tierpool.BufferPool)
    handles = (tierpool.Buffer, tierpool.BufferBatch, tierpool.Lease, tierpool.LeaseBatch)
    for owner in (*pools, *handles, tierpool.PoolStatistics, tierpool.BufferPoolStatistics):
        for name in dir(owner):
            assert name.startswith("_") or getattr(owner, name).__doc__, f"{owner.__name__}.{name}"
