"""Models larger than memory: what is in a GGUF file, what this machine can do, a plan, and running it."""

from tierpool.storage.errors import ModelBusyError, ModelClosedError, ModelError, PlanError
from tierpool.storage.generation import Generation
from tierpool.storage.language_model import LanguageModel
from tierpool.storage.loading import load, make_plan
from tierpool.storage.model_statistics import ModelStatistics, PhaseStatistics

__all__ = [
    "Generation",
    "LanguageModel",
    "ModelBusyError",
    "ModelClosedError",
    "ModelError",
    "ModelStatistics",
    "PhaseStatistics",
    "PlanError",
    "load",
    "make_plan",
]
