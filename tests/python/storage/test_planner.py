"""Plans: their sums, their order, their limits, on made-up models of every mode."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierpool.storage.errors import ModelError, PlanError
from tierpool.storage.estimate import expected_hit_rate
from tierpool.storage.gguf import Model, ModelFile, Tensor
from tierpool.storage.layer_schedule import BEST_RING_DEPTH
from tierpool.storage.plan import Plan
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile
from tierpool.storage.request import MAPPINGS_KEPT, MIN_IN_FLIGHT

GIB = 1 << 30
CONTEXT = 64


def build_model(  # noqa: PLR0913
    architecture: str,
    *,
    layers: int,
    parts: list[int],
    experts: int = 0,
    used: int = 0,
    attention: int = 30_000,
    vocabulary: int = 300,
    embedding: int = 64,
    gap: int = 32,
) -> Model:
    """`parts` are the sizes of gate, up and down: of one expert, or of a layer."""
    tensors: list[Tensor] = []

    def add(name: str, shape: tuple[int, ...], size: int) -> None:
        begin = (tensors[-1].end_bytes if tensors else 4096) + gap
        tensors.append(Tensor(name, "Q4_0", shape, 0, begin, size))

    add("token_embd.weight", (embedding, vocabulary), embedding * vocabulary)
    for layer in range(layers):
        add(f"blk.{layer}.attn_q.weight", (embedding, embedding), attention)
        if experts:
            add(f"blk.{layer}.ffn_gate_inp.weight", (embedding, experts), 4 * embedding * experts)
        for name, size in zip(("gate", "up", "down"), parts, strict=False):
            if experts:
                add(f"blk.{layer}.ffn_{name}_exps.weight", (embedding, 1, experts), size * experts)
            else:
                add(f"blk.{layer}.ffn_{name}.weight", (embedding, 1), size)
    add("output.weight", (embedding, vocabulary), embedding * vocabulary)
    metadata = {
        "block_count": layers,
        "embedding_length": embedding,
        "attention.head_count": max(1, embedding // 64),
        "attention.head_count_kv": max(1, embedding // 512),
        "feed_forward_length": embedding,
        "expert_count": experts,
        "expert_used_count": used,
    }
    file = ModelFile("model.gguf", tensors[-1].end_bytes, 0, 0)
    return Model(architecture, {f"{architecture}.{k}": v for k, v in metadata.items()}, (file,), tuple(tensors))


@st.composite
def models(draw: st.DrawFn) -> Model:
    architecture = draw(st.sampled_from(["llama", "qwen2", "qwen3", "qwen3moe", "gpt-oss", "gemma3"]))
    may_have_experts = architecture in {"llama", "qwen3moe", "gpt-oss"}
    experts = draw(st.integers(1, 12)) if may_have_experts and draw(st.booleans()) else 0
    largest = 400_000 if experts else 4_000_000
    size = st.one_of(st.integers(1, largest), st.integers(1, largest // 4096).map(lambda pages: pages * 4096))
    return build_model(
        architecture,
        layers=draw(st.integers(1, 6)),
        parts=draw(st.lists(size, min_size=1, max_size=3)),
        experts=experts,
        used=draw(st.integers(1, experts)) if experts else 0,
        attention=draw(st.integers(1, 100_000)),
        vocabulary=draw(st.integers(1, 3000)),
        gap=draw(st.sampled_from([0, 32, 4096, 5000])),
    )


def least_bytes(model: Model, profile: Profile) -> int:
    with pytest.raises(PlanError) as caught:
        plan_model(model, profile, 0, context=CONTEXT)
    assert caught.value.resource == "memory"
    assert caught.value.missing == caught.value.needed
    return caught.value.needed


def check(plan: Plan, model: Model, profile: Profile) -> None:
    assert all(size >= 0 for size in plan.budget.purposes.values())
    assert plan.budget.planned_bytes == sum(plan.budget.purposes.values()) <= plan.budget.limit_bytes
    assert [placed.name for placed in plan.placements] == [tensor.name for tensor in model.tensors]
    assert {placed.tier for placed in plan.placements} <= {"ram", "nvme"}
    assert 1 <= plan.n_ubatch <= CONTEXT
    assert plan.estimate.read_bytes <= plan.estimate.worst_read_bytes
    assert plan.estimate.tokens_per_second > 0
    assert plan.mappings <= profile.limits.max_mappings - MAPPINGS_KEPT
    streamed = [placed for placed in plan.placements if placed.tier == "nvme"]
    if plan.mode == "resident":
        assert (streamed, plan.slots, plan.estimate.read_bytes, plan.stop_node) == ([], 0, 0, "")
        assert plan.budget.purposes["resident weights"] == model.weight_bytes
        return
    assert streamed
    assert plan.budget.purposes["slots"] == plan.slots * plan.slot_bytes
    # Whatever is not in a slot is in memory: nothing is forgotten, and pages are counted once.
    kept = plan.budget.purposes["resident weights"] + plan.budget.purposes["edge pages"]
    assert kept >= model.weight_bytes - sum(placed.size_bytes for placed in streamed)
    if plan.mode == "experts":
        used = model.metadata[f"{model.architecture}.expert_used_count"]
        assert plan.stop_node == "ffn_moe_topk"
        assert min(plan.units, used + MIN_IN_FLIGHT) <= plan.slots <= plan.units
        if plan.slots < model.metadata[f"{model.architecture}.expert_count"]:
            assert plan.n_ubatch * used <= plan.slots
    else:
        assert plan.stop_node == "ffn_inp"
        assert 1 <= plan.ring_depth == plan.slots <= BEST_RING_DEPTH


@given(model=models(), above=st.floats(0, 3))
@settings(max_examples=200)
def test_a_plan_keeps_its_promises(profile: Profile, model: Model, above: float) -> None:
    budget = least_bytes(model, profile) + int(above * model.weight_bytes)
    check(plan_model(model, profile, budget, context=CONTEXT), model, profile)


@given(model=models())
@settings(max_examples=100)
def test_the_number_in_the_error_is_exactly_enough(profile: Profile, model: Model) -> None:
    needed = least_bytes(model, profile)
    check(plan_model(model, profile, needed, context=CONTEXT), model, profile)
    with pytest.raises(PlanError, match="1 MiB are missing") as caught:
        plan_model(model, profile, needed - 1, context=CONTEXT)
    assert (caught.value.needed, caught.value.available, caught.value.missing) == (needed, needed - 1, 1)


@given(model=models(), steps=st.lists(st.floats(0, 2), min_size=2, max_size=6))
@settings(max_examples=200)
def test_more_memory_never_reads_more(profile: Profile, model: Model, steps: list[float]) -> None:
    least = least_bytes(model, profile)
    budgets = [least + int(step * model.weight_bytes) for step in sorted(steps)]
    plans = [plan_model(model, profile, budget, context=CONTEXT) for budget in budgets]
    reads = [plan.estimate.read_bytes for plan in plans]
    assert reads == sorted(reads, reverse=True)


def mixture(**changes: Any) -> Model:
    """About 5 GB: 16 layers of 64 experts, 4 used, of strides that are no whole pages."""
    values = {"layers": 16, "experts": 64, "used": 4, "attention": 8 << 20, "vocabulary": 32_000, "embedding": 2048}
    return build_model("qwen3moe", **{"parts": [1_640_000] * 3, **values, **changes})


def dense() -> Model:
    """About 2.8 GB."""
    return build_model("llama", layers=32, parts=[24_000_010] * 3, attention=9 << 20, vocabulary=32_000, embedding=4096)


def test_modes_by_memory(profile: Profile) -> None:
    for model, mode in ((mixture(), "experts"), (dense(), "layers")):
        assert plan_model(model, profile, 2 * GIB).mode == mode
        whole = plan_model(model, profile, 8 * GIB)
        assert (whole.mode, whole.extra_buffers, whole.n_ubatch) == ("resident", True, 512)
        assert whole.repacked_bytes > model.weight_bytes // 2


def test_a_mixture_in_2_gib(profile: Profile) -> None:
    plan = plan_model(mixture(), profile, 2 * GIB, budget_source="--memory")
    assert plan.budget.source == "--memory"
    assert plan.units == 1024
    assert plan.slots >= 64
    assert 0.4 < plan.estimate.hit_rate < 0.7
    assert plan.estimate.bound == "disk"
    assert any("memory is the bound" in reason for reason in plan.reasons)
    assert plan.budget.unused_bytes <= 0.05 * plan.budget.limit_bytes


def test_a_dense_model_fills_its_budget(profile: Profile) -> None:
    plan = plan_model(dense(), profile, 2 * GIB)
    assert plan.ring_depth == BEST_RING_DEPTH
    assert plan.budget.unused_bytes <= 0.05 * plan.budget.limit_bytes
    streamed = sum(placed.size_bytes for placed in plan.placements if placed.tier == "nvme")
    assert 0.95 * streamed < plan.estimate.read_bytes <= streamed
    assert plan.estimate.tokens_per_second == pytest.approx(2e9 / plan.estimate.read_bytes)


def test_mappings_are_a_budget(profile: Profile) -> None:
    few = replace(profile, limits=replace(profile.limits, max_mappings=MAPPINGS_KEPT + 1000))
    model = mixture(parts=[1_638_400] * 3, gap=4096)  # whole pages: every slot has mappings of its own
    plan = plan_model(model, few, 4 * GIB)
    assert 990 < plan.mappings <= 1000
    assert plan.slots < plan_model(model, profile, 4 * GIB).slots
    assert any("vm.max_map_count is the bound" in reason for reason in plan.reasons)
    too_few = replace(profile, limits=replace(profile.limits, max_mappings=MAPPINGS_KEPT))
    with pytest.raises(PlanError, match="sysctl -w vm") as caught:
        plan_model(model, too_few, 4 * GIB)
    assert caught.value.resource == "mappings"
    enough = replace(profile, limits=replace(profile.limits, max_mappings=caught.value.needed))
    assert plan_model(model, enough, 4 * GIB).slots == 4 + MIN_IN_FLIGHT


def test_experts_between_edge_pages_need_no_mappings_of_their_own(profile: Profile) -> None:
    plan = plan_model(mixture(), profile, 4 * GIB)
    edges = 16 * 3 * 64  # a page at each boundary between 64 experts, in each of three tensors of 16 layers
    assert 2 * (edges - 200) < plan.mappings < 2 * (edges + 200)


@pytest.mark.parametrize("gibibytes", [6, 12, 14, 16])
def test_as_many_experts_as_there_are_mappings_for_a_model_of_18432_parts(profile: Profile, gibibytes: int) -> None:
    part = 768 * 2048 // 32 * 18  # as Qwen3-30B-A3B in Q4_0: 216 pages
    model = mixture(parts=[part] * 3, layers=48, experts=128, used=8)
    plan = plan_model(model, profile, gibibytes * GIB)
    assert plan.mode == "experts"
    # An expert between two edge pages takes the place of what was there.
    assert plan.mappings < 2 * 48 * 3 * 129 + 1000 < profile.limits.max_mappings - MAPPINGS_KEPT
    assert any("memory is the bound" in reason for reason in plan.reasons)


def test_mappings_in_use_are_no_budget(profile: Profile) -> None:
    limits = replace(profile.limits, max_mappings=MAPPINGS_KEPT + 1500, used_mappings=500)
    model = mixture(parts=[1_638_400] * 3, gap=4096)
    assert 990 < plan_model(model, replace(profile, limits=limits), 4 * GIB).mappings <= 1000


def test_layers_in_memory_are_mappings_too(profile: Profile) -> None:
    model = dense()
    plan = plan_model(model, profile, 2 * GIB)
    assert plan.mappings > 2 * 33  # what stays between the layers, and what lies over them
    enough = replace(profile, limits=replace(profile.limits, max_mappings=plan.mappings + MAPPINGS_KEPT))
    assert plan_model(model, enough, 2 * GIB) == plan
    too_few = replace(profile, limits=replace(profile.limits, max_mappings=plan.mappings + MAPPINGS_KEPT - 1))
    with pytest.raises(PlanError, match=f"max_map_count={plan.mappings + MAPPINGS_KEPT}"):
        plan_model(model, too_few, 2 * GIB)


def test_batches_when_a_layer_does_not_fit(profile: Profile) -> None:
    model = mixture(experts=512, used=8, layers=4)
    plan = plan_model(model, profile, 2 * GIB)
    assert plan.slots < 512
    assert plan.n_ubatch == plan.slots // 8
    assert any("8 slots of its own" in reason for reason in plan.reasons)


def test_an_unknown_architecture_stays_in_memory_and_says_so(profile: Profile) -> None:
    model = build_model("gemma3", layers=2, parts=[4_000_000] * 3)
    plan = plan_model(model, profile, least_bytes(model, profile), context=CONTEXT)
    assert plan.mode == "resident"
    assert plan.n_ubatch == 1
    assert "'gemma3' is not among those proven to stream" in plan.reasons[0]


def test_pieces_below_a_page_are_not_streamed(profile: Profile) -> None:
    model = build_model("qwen3moe", layers=2, parts=[1000] * 3, experts=4, used=2)
    plan = plan_model(model, profile, least_bytes(model, profile), context=CONTEXT)
    assert (plan.mode, plan.reasons[0]) == ("resident", "Mode resident: its pieces are smaller than a page of memory.")


def test_biases_and_routers_of_a_streamed_layer_stay(profile: Profile) -> None:
    plan = plan_model(mixture(), profile, 2 * GIB)
    for placed in plan.placements:
        assert placed.tier == ("nvme" if placed.name.endswith("_exps.weight") else "ram")


def test_longer_context_and_more_threads(profile: Profile) -> None:
    short, long = (plan_model(mixture(), profile, 2 * GIB, context=context) for context in (1024, 8192))
    assert long.budget.purposes["KV cache"] == 8 * short.budget.purposes["KV cache"]
    assert long.slots < short.slots
    assert (short.threads, plan_model(mixture(), profile, 2 * GIB, threads=7).threads) == (2, 7)
    for wrong in ({"context": 0}, {"threads": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            plan_model(mixture(), profile, 2 * GIB, **wrong)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("block_count", None, "block_count is missing, as if"),
        ("block_count", 1 << 40, "must lie between 0 and"),
        ("embedding_length", "wide", "is no whole number"),
        ("attention.head_count_kv", (1, 2), "has 2 numbers for 16 layers"),
        ("expert_count", 63, "expert_count is 63"),
        ("expert_used_count", 65, "is 65, but there are 64 experts"),
    ],
)
def test_metadata_that_cannot_be(profile: Profile, key: str, value: object, says: str) -> None:
    model = mixture()
    metadata = {**model.metadata, f"qwen3moe.{key}": value}
    if value is None:
        del metadata[f"qwen3moe.{key}"]
    with pytest.raises(ModelError, match=says):
        plan_model(replace(model, metadata=metadata), profile, 2 * GIB)


def test_a_plan_as_json(profile: Profile) -> None:
    plan = plan_model(mixture(), profile, 2 * GIB)
    values = json.loads(json.dumps(plan.to_dict()))
    assert values["mode"] == "experts"
    assert values["budget"]["planned_bytes"] + values["budget"]["unused_bytes"] == 2 * GIB
    assert values["placements"][0] == {
        "name": "token_embd.weight",
        "role": "embedding",
        "size_bytes": 2048 * 32_000,
        "tier": "ram",
    }


def test_the_hit_rate_is_near_what_was_measured() -> None:
    for share, measured in ((0.25, 0.50), (0.45, 0.78), (0.66, 0.91)):
        assert expected_hit_rate(share) == pytest.approx(measured, abs=0.03)
    assert (expected_hit_rate(0), expected_hit_rate(1)) == (0, 1)
