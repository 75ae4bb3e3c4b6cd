"""What the storage tests share: synthetic models from the benchmarks, and a profile of a machine that is nobody's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tierpool.storage.gguf import read_model
from tierpool.storage.limits import Limits
from tierpool.storage.memory_group import MemoryGroup, MemoryGroupError
from tierpool.storage.profile import Profile

if TYPE_CHECKING:
    from tierpool.storage.engine_llama import LlamaEngine
    from tierpool.storage.plan import Plan

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2] / "benchmarks" / "python"), str(HERE / "support")]


@pytest.fixture(scope="session")
def profile() -> Profile:
    """2 GB/s of disk, 20 GB/s of memory, 2 processors."""
    limits = Limits(
        memory_limit_bytes=None,
        memory_limit_source="",
        memory_used_by_others_bytes=0,
        memory_available_bytes=8 << 30,
        process_bytes=50 << 20,
        cores=2,
        max_mappings=65_530,
    )
    return Profile("model.gguf", True, 2e9, 1.5e9, 20e9, limits)


@pytest.fixture
def _memory_groups() -> None:
    """Skip where no control group can hold a process to a limit, and say how to get one."""
    try:
        MemoryGroup(64 << 20).remove()
    except MemoryGroupError as error:
        pytest.skip(f"NOT TESTED WITHIN A LIMIT: {error}")


# Only tests that need llama-cpp-python anyway ask for what follows, so that it is imported only then.


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small models by architecture, each written once."""
    from small_models import write_small

    folder = tmp_path_factory.mktemp("models")

    def write(architecture: str) -> Path:
        path = folder / f"{architecture}.gguf"
        return path if path.exists() else write_small(path, architecture)

    return write


@pytest.fixture
def moe_plan(models: Callable[[str], Path], profile: Profile, tmp_path: Path) -> Plan:
    """Experts with few slots, in a file of its own that a test may harm."""
    from small_models import plan_small

    path = tmp_path / "model.gguf"
    path.write_bytes(models("qwen3moe").read_bytes())
    return plan_small(path, profile, 0.0)


@pytest.fixture
def moe(moe_plan: Plan) -> Iterator[LlamaEngine]:
    from tierpool.storage.engine_llama import load_engine

    engine = load_engine(moe_plan)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["qwen3moe", "llama"])
def streamed_plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> Plan:
    """Experts or layers, of which a fifth fits."""
    from streamed_runs import plan_share, shape_of

    from make_model import write_model

    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write_model(path, shape_of(request.param))
    return plan_share(read_model(path), profile, 0.2)


@pytest.fixture
def streamed(streamed_plan: Plan) -> Iterator[LlamaEngine]:
    from tierpool.storage.engine_llama import load_engine

    engine = load_engine(streamed_plan)
    yield engine
    engine.close()
