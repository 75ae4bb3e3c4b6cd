"""Every example in the documentation runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import tierpool

README = Path(__file__).parents[2] / "README.md"
MODULES = [
    tierpool,
    *(
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(tierpool.__path__, "tierpool.")
        if not module.name.endswith(("__main__", "_core"))
    ),
]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_docstring_examples(module: ModuleType) -> None:
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_the_main_classes_have_examples() -> None:
    finder = doctest.DocTestFinder()
    tested = {test.name for module in MODULES for test in finder.find(module) if test.examples}
    for name in ("pool.MemoryPool", "pool.MemoryPool.warmup", "pool.MemoryPool.numpy", "config.PoolConfig"):
        assert f"tierpool.{name}" in tested


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README.md, block {number + 1}", "exec"), {"__name__": "readme"})


def test_readme_has_examples() -> None:
    assert BLOCKS


def test_readme_tables_name_what_there_is() -> None:
    text = README.read_text(encoding="utf-8")
    fields = tierpool.MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[]).get_statistics().to_dict()
    missing = [name for name in [*fields, *tierpool.PoolConfig.__dataclass_fields__] if f"`{name}`" not in text]
    assert missing == []


def test_public_names_have_docstrings() -> None:
    for name in tierpool.__all__:
        if name != "__version__":
            assert getattr(tierpool, name).__doc__, name
    for owner in (tierpool.MemoryPool, tierpool.Buffer, tierpool.BufferBatch, tierpool.PoolStatistics):
        for name in dir(owner):
            assert name.startswith("_") or getattr(owner, name).__doc__, f"{owner.__name__}.{name}"
