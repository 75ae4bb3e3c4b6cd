"""Who owns the memory behind a view, and where it is."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from tierpool import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer as SupportsBuffer


def find_owner(memory: SupportsBuffer) -> tuple[object, int, int]:
    """Return the object whose death frees `memory`, and the address and bytes of all it owns.

    Raises
    ------
    TypeError
        When there is no such object, or none that can be watched.
    ValueError
        When the processor cannot reach the memory, or there is none.
    """
    owner = _owner_of(memory)
    if isinstance(owner, _core.Lease):
        raise TypeError("a Lease is scratch that ends with the step; register memory that outlives it")
    try:
        weakref.ref(owner)
    except TypeError as error:
        raise TypeError(
            f"the memory belongs to a {type(owner).__name__}, which allows no weak references, so that nobody can tell "
            "when it goes; copy it into a NumPy array and register that"
        ) from error
    address, nbytes = _range_of(owner)
    if nbytes == 0:
        raise ValueError(f"the {type(owner).__name__} owns no bytes; there is nothing to register")
    return owner, address, nbytes


def _owner_of(memory: object) -> object:
    while True:
        if isinstance(memory, np.ndarray) and memory.base is not None:
            memory = memory.base
        elif isinstance(memory, memoryview):
            memory = memory.obj
        else:
            return memory


def _range_of(owner: object) -> tuple[int, int]:
    if isinstance(owner, np.ndarray):
        return owner.ctypes.data, owner.nbytes
    try:
        data: NDArray[np.uint8] = np.frombuffer(memoryview(owner), np.uint8)  # type: ignore[arg-type]
    except BufferError as error:
        raise ValueError(f"cannot register the {type(owner).__name__}: {error}") from error
    except TypeError as error:
        raise TypeError(
            f"register_existing() takes an object with the buffer protocol, got {type(owner).__name__}"
        ) from error
    return data.ctypes.data, data.nbytes
