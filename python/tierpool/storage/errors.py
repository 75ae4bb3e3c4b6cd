"""What can be wrong with a model or with the memory it is given."""

from __future__ import annotations

from tierpool._core import TierpoolError


class ModelError(TierpoolError, ValueError):
    """A model file that is refused; the message names file, place and remedy."""


class PlanError(TierpoolError):
    """A model that cannot run within what it was given.

    Attributes
    ----------
    resource : str
        What is missing: ``memory`` in bytes, or ``mappings`` as a number of them.
    needed, available : int
        The least that would do, and what there is.
    """

    def __init__(self, message: str, resource: str, needed: int, available: int) -> None:
        super().__init__(message)
        self.resource = resource
        self.needed = needed
        self.available = available

    @property
    def missing(self) -> int:
        """How much more is needed."""
        return self.needed - self.available


class ModelBusyError(TierpoolError):
    """A generation that cannot begin, because another one of the same model has not ended."""


class ModelClosedError(TierpoolError):
    """A model that was closed and cannot generate any more."""
