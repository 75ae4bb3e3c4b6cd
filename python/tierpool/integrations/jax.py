"""JAX arrays over a pool's memory. JAX takes no allocator: arrays are imported by DLPack."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tierpool.integrations.optional_module import import_optional

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tierpool._core import Buffer


def array(buffer: Buffer, dtype: DTypeLike = "uint8", shape: int | tuple[int, ...] | None = None) -> Any:
    """Return a JAX array over a buffer's bytes.

    Parameters
    ----------
    buffer : Buffer
        Of any pool but a simulated one. JAX takes arrays for immutable: do not write to it any more.
    dtype : data type
        Of the items; another than uint8 costs one copy on the device, because JAX has no other way to reinterpret.
    shape : int or tuple of int, optional
        At most as many bytes as the buffer has; by default one dimension over all of it.

    Raises
    ------
    ImportError
        Without JAX; the message says how to install it.
    ValueError
        When dtype and shape do not fit the buffer.
    """
    jax = import_optional("jax", "jax")
    item_bytes = jax.numpy.dtype(dtype).itemsize
    extents = (buffer.nbytes // item_bytes,) if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(extents) * item_bytes
    if nbytes > buffer.nbytes or (shape is None and nbytes != buffer.nbytes):
        raise ValueError(f"{extents} items of {item_bytes} bytes do not fit a buffer of {buffer.nbytes} bytes")
    whole = jax.dlpack.from_dlpack(buffer)
    if item_bytes == 1 and jax.numpy.dtype(dtype) == whole.dtype:
        return whole[:nbytes].reshape(extents) if nbytes != buffer.nbytes or len(extents) != 1 else whole
    return whole[:nbytes].view(dtype).reshape(extents)
