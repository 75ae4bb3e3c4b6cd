"""From a path and a budget to a model that runs."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tierpool.config_values import byte_limit
from tierpool.storage.gguf import read_model
from tierpool.storage.language_model import LanguageModel
from tierpool.storage.limits import read_limits
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import measure_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool.storage.plan import Plan
    from tierpool.storage.profile import Profile

    Progress = Callable[[str, int, int], None]


def make_plan(  # noqa: PLR0913  (one argument a condition)
    path: str | os.PathLike[str],
    memory: int | str | None = None,
    context: int = 4096,
    threads: int | None = None,
    *,
    profile: Profile | None = None,
    memory_name: str = "memory",
) -> Plan:
    """Plan a model without loading it: its header is read, and its file measured unless a profile is given.

    Parameters
    ----------
    path : path-like
        A GGUF file; of a model in shards, any of them.
    memory : int or str, optional
        What the process may hold: bytes, or text such as "2GiB"; by default what the system allows.
    context, threads, profile
        As `tierpool.storage.planner.plan_model` takes them. Limits count as the profile has them.
    memory_name : str
        How messages call `memory`.

    Raises
    ------
    ModelError, PlanError
        When the file is refused, or the model cannot run.
    ConfigError, ValueError
        When an argument is out of range.
    """
    limit_bytes = byte_limit(memory_name, memory)
    model = read_model(path)
    if profile is None:
        profile = measure_profile(max(model.files, key=lambda file: file.size_bytes).path)
    budget_bytes, source = profile.limits.budget()
    if limit_bytes is not None:
        budget_bytes, source = limit_bytes, memory_name
    return plan_model(model, profile, budget_bytes, budget_source=source, context=context, threads=threads)


def load(  # noqa: PLR0913  (one argument a condition)
    path: str | os.PathLike[str],
    memory: int | str | None = None,
    context: int = 4096,
    threads: int | None = None,
    *,
    profile: Profile | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """Load a model so that the whole process stays within `memory`, streaming from disk what does not fit.

    Parameters
    ----------
    path : path-like
        A GGUF file; of a model in shards, any of them.
    memory : int or str, optional
        What the process may hold: bytes, or text such as "2GiB"; by default the control group's limit or the
        available memory.
    context : int
        Positions of the KV cache: tokens of a prompt and its continuation together.
    threads : int, optional
        Threads that compute; as many as processors by default.
    profile : Profile, optional
        Bandwidths that `tierpool.storage.profile.measure_profile` measured, which takes two seconds otherwise; limits
        are read anew.
    progress : callable, optional
        Called with a step's name, what is done of it, and how much there is to do; of ``loading``, bytes as soon as
        it is known how many. What it raises ends the loading.

    Returns
    -------
    LanguageModel
        Ready to generate; close it, or use it in a ``with``.

    Raises
    ------
    ModelError, PlanError
        When the file is refused, or cannot run within the memory.
    ImportError
        When llama-cpp-python is missing or of an unsupported version.
    ConfigError, ValueError
        When an argument is out of range.
    """
    report = progress or (lambda _step, _done, _total: None)
    report("planning", 0, 1)
    # The library's own memory belongs to what the process holds before anything is planned.
    from tierpool.storage.engine_llama import load_engine  # noqa: PLC0415  (an extra, and slow to import)
    from tierpool.storage.llama_library import llama_library  # noqa: PLC0415

    llama_library()
    if profile is not None:
        profile = replace(profile, limits=read_limits())
    plan = make_plan(path, memory, context, threads, profile=profile)
    report("planning", 1, 1)
    report("loading", 0, 1)
    model = LanguageModel(load_engine(plan, progress=partial(report, "loading")))
    if plan.mode == "resident":
        report("loading", 1, 1)  # llama.cpp does not say how far it is
    return model
