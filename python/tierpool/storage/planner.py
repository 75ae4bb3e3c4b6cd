"""From tensors, memory and measured bandwidths to a plan. Nothing here reads, measures or allocates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierpool.storage.errors import PlanError
from tierpool.storage.footprint import estimate_footprint
from tierpool.storage.hyperparameters import read_hyperparameters
from tierpool.storage.modes import plan_experts, plan_layers, plan_resident
from tierpool.storage.request import Request, in_mib
from tierpool.storage.streaming import Streaming, find_streaming

if TYPE_CHECKING:
    from tierpool.storage.gguf import Model
    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile


def plan_model(  # noqa: PLR0913  (one argument a condition)
    model: Model,
    profile: Profile,
    budget_bytes: int,
    *,
    budget_source: str = "given",
    context: int = 4096,
    threads: int | None = None,
) -> Plan:
    """Decide how to run `model` within `budget_bytes`.

    Parameters
    ----------
    model : Model
        Its tensor table, from `tierpool.storage.gguf.read_model`.
    profile : Profile
        What the machine can do.
    budget_bytes : int
        What the whole process may hold: itself, weights, slots, KV cache, compute buffers, margin.
    budget_source : str
        Where that number comes from; it is only shown.
    context : int
        Positions of the KV cache.
    threads : int, optional
        Threads that compute; as many as processors by default.

    Returns
    -------
    Plan
        `resident` if everything fits with batches of full size, else `experts` or `layers`. With more memory a plan
        never expects to read more.

    Raises
    ------
    PlanError
        When the model cannot run; it holds what is missing.
    ModelError
        When the metadata lacks a size or contradicts the tensors.
    ValueError
        When context or threads are below 1.
    """
    if context < 1:
        raise ValueError(f"context must be at least 1, got {context}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    sizes = read_hyperparameters(model)
    footprint = estimate_footprint(sizes, context)
    request = Request(
        model, sizes, profile, footprint, budget_bytes, budget_source, context, threads or profile.limits.cores
    )
    streaming = find_streaming(model, sizes)
    if not isinstance(streaming, str) and request.streaming_bytes(streaming) >= request.resident_bytes:
        streaming = "streaming would need as much memory as the whole model"
    _refuse_too_little(request, streaming)
    if budget_bytes >= request.resident_bytes + request.batch_bytes:
        return plan_resident(request, "all of it fits into memory")
    if isinstance(streaming, str):
        return plan_resident(request, streaming)
    return plan_experts(request, streaming) if streaming.mode == "experts" else plan_layers(request, streaming)


def _refuse_too_little(request: Request, streaming: Streaming | str) -> None:
    needed = request.resident_bytes if isinstance(streaming, str) else request.streaming_bytes(streaming)
    if request.budget_bytes >= needed:
        return
    why = f" ({streaming})" if isinstance(streaming, str) else ""
    raise PlanError(
        f"{request.model.path} needs at least {needed} bytes{why}, the budget is {request.budget_bytes} "
        f"({request.budget_source}): {in_mib(needed - request.budget_bytes)} are missing; give it more "
        f"memory, or a context below {request.context}, whose KV cache takes {in_mib(request.footprint.kv_bytes)}",
        resource="memory",
        needed=needed,
        available=request.budget_bytes,
    )
