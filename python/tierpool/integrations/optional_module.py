"""Libraries that an integration needs and the package does not."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(module: str, extra: str) -> Any:
    """Import a library, or say how it is installed.

    Parameters
    ----------
    module : str
        What is imported.
    extra : str
        The package's extra that brings it.

    Raises
    ------
    ImportError
        When it is not installed; the message has the command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"tierpool.integrations.{extra} needs {module}, which cannot be imported ({error}): "
            f"pip install 'tierpool[{extra}]'"
        ) from error
