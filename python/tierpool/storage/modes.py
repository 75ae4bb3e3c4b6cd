"""The three ways to run a model, each within a budget that is known to suffice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierpool.storage.estimate import computed_bytes, estimate, expected_hit_rate
from tierpool.storage.layer_schedule import LayerSchedule, schedule_layers
from tierpool.storage.plan import Budget, Estimate, Placement, Plan
from tierpool.storage.request import MARGIN_BYTES, Request, in_mib
from tierpool.storage.roles import Role, role_of
from tierpool.storage.streamed_parts import StreamedParts

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from tierpool.storage.streaming import Streaming

_REPACKED_TYPES = frozenset({"Q4_0", "Q2_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"})
_MULTIPLIED = frozenset({Role.ATTENTION, Role.OUTPUT, Role.SHARED_EXPERT, Role.EXPERT, Role.DENSE_FFN})


def plan_resident(request: Request, why: str) -> Plan:
    """Leave everything to the engine."""
    n_ubatch = request.largest_batch(request.budget_bytes - request.resident_bytes)
    choice = _Choice(
        n_ubatch=n_ubatch,
        weights={"resident weights": request.model.weight_bytes},
        repacked_bytes=sum(
            tensor.size_bytes
            for tensor in request.model.tensors
            if tensor.type_name in _REPACKED_TYPES and role_of(tensor.name) in _MULTIPLIED
        ),
    )
    reasons = [f"Mode resident: {why}.", *_batch_reasons(request, n_ubatch, "larger compute buffers do not fit")]
    return _plan(request, None, choice, reasons)


def plan_experts(request: Request, streaming: Streaming) -> Plan:
    """Give as many experts a slot as memory and mappings allow."""
    units, sizes = len(streaming.units), request.sizes
    least = request.least_slots(streaming)
    request.require_mappings(streaming.mappings(least))
    above_bytes = request.budget_bytes - request.streaming_bytes(streaming)
    by_memory = least + (above_bytes - request.batch_reserve(above_bytes)) // streaming.slot_bytes
    by_mappings = streaming.most_slots(request.mappings)
    slots = min(units, by_memory, by_mappings)
    n_ubatch = request.largest_batch(above_bytes - (slots - least) * streaming.slot_bytes)
    batch_reason = "larger compute buffers would cost slots"
    # A layer is computed at once, for all tokens of a batch: each may ask for experts of its own.
    if slots < sizes.experts and slots // sizes.used_experts < n_ubatch:
        n_ubatch = slots // sizes.used_experts
        batch_reason = f"each of its tokens may need {sizes.used_experts} slots of its own"
    bound = "memory is the bound" if by_memory <= by_mappings else "vm.max_map_count is the bound"
    hit_rate = expected_hit_rate(slots / units)
    reasons = [
        _too_large(request, "experts"),
        f"{slots:,} slots of {in_mib(streaming.slot_bytes)} for {units:,} experts: "
        f"{bound if slots < units else 'all of them fit'}.",
        f"The hit rate of {hit_rate:.2f} is a guess from the share of experts that have a slot.",
        *_batch_reasons(request, n_ubatch, batch_reason),
    ]
    worst_read_bytes = streaming.unit_bytes * sizes.used_experts // sizes.experts
    choice = _Choice(
        slots=slots,
        slot_bytes=streaming.slot_bytes,
        mappings=streaming.mappings(slots),
        n_ubatch=n_ubatch,
        weights=_streaming_weights(streaming, slots * streaming.slot_bytes),
        hit_rate=hit_rate,
        read_bytes=round(worst_read_bytes * (1 - hit_rate)),
        worst_read_bytes=worst_read_bytes,
        streamed_names=streaming.tensor_names,
    )
    return _plan(request, streaming, choice, reasons)


def plan_layers(request: Request, streaming: Streaming) -> Plan:
    """Keep as much of the dense FFNs in memory as fits beside a ring for the rest."""
    above_bytes = request.budget_bytes - request.streaming_bytes(streaming)
    # The minimum has a ring of one slot, which the schedule may use as it likes.
    memory_bytes = above_bytes + request.least_slots(streaming) * streaming.slot_bytes
    schedule = schedule_layers(streaming.units, memory_bytes - request.batch_reserve(above_bytes))
    n_ubatch = request.largest_batch(memory_bytes - schedule.size_bytes)
    reasons = [
        _too_large(request, "layers"),
        _schedule_reason(schedule, len(streaming.units)),
        *_batch_reasons(request, n_ubatch, "larger compute buffers would cost layers in memory"),
    ]
    streamed_names = streaming.tensor_names - schedule.pinned_names
    # What is pinned divides the files differently.
    parts = StreamedParts.of_model(request.model, streamed_names, 0)
    mappings = parts.count_mappings().most(schedule.ring_depth)
    request.require_mappings(mappings)
    choice = _Choice(
        slots=schedule.ring_depth,
        slot_bytes=schedule.slot_bytes,
        mappings=mappings,
        ring_depth=schedule.ring_depth,
        n_ubatch=n_ubatch,
        weights=_streaming_weights(streaming, schedule.ring_bytes, schedule.pinned_bytes),
        hit_rate=1.0 - schedule.read_bytes / streaming.unit_bytes,
        read_bytes=schedule.read_bytes,
        worst_read_bytes=schedule.read_bytes,
        streamed_names=streamed_names,
    )
    return _plan(request, streaming, choice, reasons)


def _schedule_reason(schedule: LayerSchedule, layers: int) -> str:
    return (
        f"{schedule.streamed_layers} of {layers} layers go around a ring of {schedule.ring_depth} slots of "
        f"{in_mib(schedule.slot_bytes)}; {in_mib(schedule.pinned_bytes)} of dense FFN stay in memory."
    )


def _too_large(request: Request, mode: str) -> str:
    whole_bytes = request.resident_bytes + request.batch_bytes
    return f"Mode {mode}: the whole model needs {in_mib(whole_bytes)}, the budget is {in_mib(request.budget_bytes)}."


def _batch_reasons(request: Request, n_ubatch: int, why: str) -> list[str]:
    return [f"n_ubatch is {n_ubatch}: {why}."] if n_ubatch < request.batch_limit else []


def _streaming_weights(streaming: Streaming, slots_bytes: int, pinned_bytes: int = 0) -> dict[str, int]:
    return {
        "resident weights": streaming.resident_bytes + pinned_bytes,
        "edge pages": streaming.edge_bytes,
        "slots": slots_bytes,
    }


@dataclass(frozen=True)
class _Choice:
    """What the modes decide differently; the fields are those of `Plan` and `Estimate`."""

    n_ubatch: int
    weights: dict[str, int]
    slots: int = 0
    slot_bytes: int = 0
    mappings: int = 0
    ring_depth: int = 0
    hit_rate: float = 1.0
    read_bytes: int = 0
    worst_read_bytes: int = 0
    streamed_names: AbstractSet[str] = frozenset()
    repacked_bytes: int = 0


def _budget(request: Request, choice: _Choice) -> Budget:
    purposes = {
        "process": request.process_bytes,
        **choice.weights,
        "KV cache": request.footprint.kv_bytes,
        "compute buffers": request.footprint.compute_bytes(choice.n_ubatch),
        "margin": MARGIN_BYTES,
    }
    return Budget(request.budget_bytes, request.budget_source, purposes)


def _estimate(request: Request, choice: _Choice) -> Estimate:
    return estimate(
        request.profile,
        computed_bytes(request.model, request.sizes),
        hit_rate=choice.hit_rate,
        read_bytes=choice.read_bytes,
        worst_read_bytes=choice.worst_read_bytes,
        overlapped=choice.ring_depth > 1,
    )


def _placements(request: Request, choice: _Choice) -> tuple[Placement, ...]:
    return tuple(
        Placement(
            name=tensor.name,
            role=role_of(tensor.name),
            size_bytes=tensor.size_bytes,
            tier="nvme" if tensor.name in choice.streamed_names else "ram",
        )
        for tensor in request.model.tensors
    )


def _plan(request: Request, streaming: Streaming | None, choice: _Choice, reasons: list[str]) -> Plan:
    return Plan(
        path=request.model.path,
        architecture=request.model.architecture,
        mode=streaming.mode if streaming else "resident",
        stop_node=streaming.stop_node if streaming else "",
        units=len(streaming.units) if streaming else 0,
        slots=choice.slots,
        slot_bytes=choice.slot_bytes,
        ring_depth=choice.ring_depth,
        mappings=choice.mappings,
        n_ubatch=choice.n_ubatch,
        threads=request.threads,
        context=request.context,
        flash_attention=True,
        kv_type="F16",
        extra_buffers=streaming is None,
        repacked_bytes=choice.repacked_bytes,
        budget=_budget(request, choice),
        estimate=_estimate(request, choice),
        placements=_placements(request, choice),
        reasons=tuple(reasons),
    )
