"""The layers of the C++ core: includes point down only, and nothing in it knows Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "cpp" / "tierpool"
# What each layer may include besides itself.
LAYERS = {
    "base": [],
    "device": ["base"],
    "pool": ["base", "device"],
    "arena": ["base", "device", "pool"],
    "trace": ["base", "device", "pool"],
    "storage": ["base", "device"],
    "engine": ["base", "device", "storage"],
}
FILES = sorted(path for path in CORE.rglob("*") if path.suffix in {".hpp", ".cpp"})
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def test_every_folder_is_a_known_layer() -> None:
    assert sorted(path.name for path in CORE.iterdir() if path.is_dir()) == sorted(LAYERS)
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CORE)))
def test_includes_point_down(file: Path) -> None:
    includes = INCLUDE.findall(file.read_text(encoding="utf-8"))
    own = file.relative_to(CORE).parts[0]
    layers = {include.split("/")[1] for include in includes if include.startswith("tierpool/")}
    assert layers <= {own, *LAYERS[own]}
    others = [include for include in includes if not include.startswith("tierpool/")]
    assert [include for include in others if re.match(r"Python\.h|pybind11|numpy", include)] == []
    if file.relative_to(CORE).as_posix() != "base/logging.cpp":
        assert [include for include in others if re.match(r"spdlog|fmt", include)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CORE)))
def test_no_python_in_the_core(file: Path) -> None:
    code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
    assert not re.search(r"\bPy[A-Z_]\w+|pybind11|\bpy::", code)
