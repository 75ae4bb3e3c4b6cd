"""Headers damaged at random are refused or read, never anything else.

``TIERPOOL_TEST_MUTATIONS=100000`` asks for more of them.
"""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")

from header_mutations import mutations

from make_model import write_model
from model_shapes import ModelShape
from tierpool.storage.errors import ModelError, PlanError
from tierpool.storage.gguf import Model, read_model
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile

MUTATIONS = int(os.environ.get("TIERPOOL_TEST_MUTATIONS", "10000"))
PEAK_BYTES = 32 << 20


def check(model: Model) -> None:
    """What the rest of tierpool relies on."""
    sizes = [file.size_bytes for file in model.files]
    last_end = 0
    for tensor in sorted(model.tensors, key=lambda tensor: tensor.offset_bytes):
        assert last_end <= tensor.offset_bytes < tensor.end_bytes <= sizes[tensor.file_index]
        last_end = tensor.end_bytes


def test_damaged_headers(tmp_path: Path, profile: Profile) -> None:
    shape = ModelShape("qwen3moe", layers=2, heads=1, feed_forward=96, experts=4, used_experts=2, vocabulary=260)
    path = tmp_path / "model.gguf"
    write_model(path, shape)
    whole_bytes = path.stat().st_size
    header_bytes = min(tensor.offset_bytes for tensor in read_model(path).tensors)
    header = path.read_bytes()[:header_bytes]
    outcomes = {"read": 0, "planned": 0, "refused": 0}
    descriptor = os.open(path, os.O_RDWR)  # writing in place is ten times faster than writing anew
    for index, damaged in zip(range(MUTATIONS), mutations(header, seed=1), strict=False):
        os.pwrite(descriptor, damaged, 0)
        os.ftruncate(descriptor, whole_bytes if index % 8 else len(damaged))
        watched = index % 10 == 0  # following every allocation is slow
        if watched:
            tracemalloc.start()
        try:
            model = read_model(path)
            check(model)
            outcomes["read"] += 1
            plan_model(model, profile, 1 << 40)
            outcomes["planned"] += 1
        except (ModelError, PlanError):
            outcomes["refused"] += 1
        finally:
            if watched:
                assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
                tracemalloc.stop()
    os.close(descriptor)
    assert outcomes["refused"] > MUTATIONS // 4  # the damage is real
    assert outcomes["planned"] > 0  # and some of it is harmless
