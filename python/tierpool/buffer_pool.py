"""The arena as Python sees it: the compiled one plus its source, steps, NumPy and registration."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from tierpool import _core
from tierpool.config import PoolConfig
from tierpool.config_sources import is_residency_off
from tierpool.config_values import byte_limit, choice, flag, whole_number
from tierpool.pool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Buffer as SupportsBuffer
    from typing_extensions import Self

    from tierpool.integrations.numpy import use


class CompletionEvent(Protocol):
    """Work in flight on a device that still uses leases after the program is done with them.

    Both methods may be called on any thread, from inside any call of the buffer pool, and must not call that pool.
    What they raise goes to `sys.unraisablehook`; the work then counts as not complete.
    """

    def is_complete(self) -> bool:
        """Whether the work is done; once true, always true. Does not block."""
        ...

    def wait(self) -> object:
        """Block until the work is done."""
        ...


class BufferPool(_core.BufferPool):
    """An arena of scratch buffers that are recycled together.

    `alloc` hands out a `Lease`; `reset`, once a token or a layer, ends all leases in a time that does not depend on
    their number, and the next step gets the same buffers again. Leases may also be released or dropped one by one,
    in any order with resets: a handle that has ended raises `StaleBufferError`, whoever has its buffer by then, and
    no two live leases ever share a byte.

    Parameters
    ----------
    source : MemoryPool or str, default "host"
        Where buffers come from: a pool, or the name of a device.
    size_classes : {"eighths", "power-of-two", "exact"}
        How requests are rounded up to buffers that can be used again. ``eighths``: whole 256-byte units up to
        2 KiB, then 8 steps per power of two. ``exact``: not at all. The length that is seen is what was asked for.
    max_bytes : int or str, optional
        Hard limit on what the buffers hold, free ones included: bytes, or text such as "2GiB".
    max_buffers : int, optional
        Hard limit on their number.
    zero : {"never", "fresh", "always", "poison"}
        What a lease contains: whatever was there, zeros the first time a buffer is used, zeros, or the byte 0xCB
        throughout, so that a read of what nobody wrote is seen.
    checked : bool, default True
        Refuse to release or reset under live views. False cuts views off instead: their memory is handed out again
        under them and may go back to the system, so that using one reads another lease's data or ends the process.
    track_origins : bool, default False
        Remember where each lease was allocated, for the messages that name live views and growth.

    Raises
    ------
    ConfigError
        For a value that cannot be used; a ValueError.
    TypeError
        For a value of a wrong type.

    See Also
    --------
    MemoryPool : for what lives longer than a step.

    Notes
    -----
    May be used from any number of threads at once. A reset ends the leases of all of them: threads whose steps end
    at different times have a pool each.

    A warning is logged once when fresh buffers are needed in 8 resets in a row, or 16384 of them without a reset.

    Examples
    --------
    >>> from tierpool import BufferPool
    >>> arena = BufferPool("host")
    >>> for token in range(3):
    ...     with arena.step():
    ...         logits = arena.alloc(4000, "float32", (10, 100))
    ...         logits.array()[:] = token
    >>> stats = arena.get_statistics()
    >>> stats.fresh, stats.reused
    (1, 2)
    """

    def __init__(  # noqa: PLR0913  (each is a choice of its own)
        self,
        source: MemoryPool | str = "host",
        *,
        size_classes: str = "eighths",
        max_bytes: int | str | None = None,
        max_buffers: int | None = None,
        zero: str = "never",
        checked: bool = True,
        track_origins: bool = False,
    ) -> None:
        self._source = _as_pool(source)
        self._step = threading.Lock()
        # Who owns registered memory, by address and bytes: a registration ends with the last of them.
        self._owners: dict[tuple[int, int], list[weakref.ref[object]]] = {}
        super().__init__(
            source=self._source,
            size_classes=choice("size_classes", size_classes),
            max_bytes=byte_limit("max_bytes", max_bytes),
            max_buffers=None if max_buffers is None else whole_number("max_buffers", max_buffers),
            zero=choice("zero", zero),
            checked=flag("checked", checked),
            track_origins=flag("track_origins", track_origins),
            pin_registered=not is_residency_off(),
        )

    @property
    def source(self) -> MemoryPool:
        """The pool that buffers come from; for a device, one without heaps."""
        return self._source

    @contextmanager
    def step(self) -> Iterator[Self]:
        """Reset the pool at the end of a ``with`` block.

        Raises
        ------
        BufferError
            At the end, in checked mode, when views of leases or arrays of `numpy` are still alive; names them. When
            the block itself raises, that goes on instead, and what its traceback keeps alive stays leased.
        RuntimeError
            At the start, when a step of this pool is open: its end would end the leases of both.

        Notes
        -----
        Names that are bound in the block live on after it: let a function do the work of a step, and return from it
        what outlives the step as a copy or a number.

        Examples
        --------
        >>> from tierpool import BufferPool
        >>> arena = BufferPool()
        >>> with arena.step():
        ...     lease = arena.alloc(100)
        >>> lease.live
        False
        """
        if not self._step.acquire(blocking=False):
            raise RuntimeError("a step of this buffer pool is open; end it first, or give each thread its own pool")
        try:
            yield self
        except BaseException:
            with suppress(BufferError):  # the traceback on its way holds the frames that hold the views
                self.reset()
            raise
        else:
            self.reset()
        finally:
            self._step.release()

    def numpy(self, min_bytes: int = 1024) -> use:
        """Let every NumPy array that is created in a ``with`` block be a lease of the current step.

        Parameters
        ----------
        min_bytes : int, default 1024
            Smaller requests go to NumPy's own allocator and are not counted; 0 takes everything.

        Returns
        -------
        context manager
            May be entered again and nested.

        Raises
        ------
        ValueError
            When the processor cannot reach the pool's memory, or `min_bytes` is negative.

        Notes
        -----
        An array counts as a view of its lease as long as it lives: in checked mode a reset refuses while one does.
        The choice belongs to the current context, as that of `MemoryPool.numpy`.

        Examples
        --------
        >>> import numpy
        >>> from tierpool import BufferPool
        >>> arena = BufferPool()
        >>> def norm(n):
        ...     return float(numpy.ones(n).sum())
        >>> for token in range(3):
        ...     with arena.step(), arena.numpy():
        ...         total = norm(5000)
        >>> arena.get_statistics().fresh
        1
        """
        from tierpool.integrations.numpy import use  # noqa: PLC0415  (imported by who uses it)

        return use(self, min_bytes)

    def register_existing(self, memory: SupportsBuffer) -> _core.Registration:
        """Account for memory that somebody else owns, and lock it into RAM where the system allows it.

        The pool neither owns nor recycles it. A view registers the whole range of its owner. The registration ends
        with the owner, with `close`, or by `unregister_existing`.

        Parameters
        ----------
        memory : ndarray, mmap, Buffer or other object with the buffer protocol
            Its owner must allow weak references, as these do.

        Returns
        -------
        Registration
            `pinned` says whether it is locked into RAM. A range that is registered already stays as it is.

        Raises
        ------
        TypeError
            For an object without the buffer protocol, and for an owner without weak references such as bytes.
        ValueError
            For memory that overlaps another registration, and for memory the processor cannot reach.
        PoolClosedError
            After `close`.

        Notes
        -----
        The environment variable ``TIERPOOL_NO_RESIDENCY=1`` switches locking off for pools built after it was set.

        Examples
        --------
        >>> import numpy
        >>> from tierpool import BufferPool
        >>> arena = BufferPool()
        >>> weights = numpy.ones((100, 100), "float32")
        >>> arena.register_existing(weights[10:]).nbytes
        40000
        >>> del weights
        >>> arena.registrations()
        []
        """
        from tierpool.registered_owner import find_owner  # noqa: PLC0415  (it imports NumPy)

        owner, address, nbytes = find_owner(memory)
        watched = self._watch(owner, address, nbytes)  # first: the last other owner may go at any moment
        try:
            return self._register_existing(address, nbytes)
        except BaseException:
            self._stop_watching(watched, address, nbytes)
            raise

    def unregister_existing(self, memory: SupportsBuffer) -> bool:
        """End the registration of `memory`'s owner; False when there is none.

        Examples
        --------
        >>> import numpy
        >>> from tierpool import BufferPool
        >>> arena = BufferPool()
        >>> weights = numpy.ones(1000)
        >>> _ = arena.register_existing(weights)
        >>> arena.unregister_existing(weights), arena.unregister_existing(weights)
        (True, False)
        """
        from tierpool.registered_owner import find_owner  # noqa: PLC0415

        _, address, nbytes = find_owner(memory)
        self._owners.pop((address, nbytes), None)
        return self._unregister_existing(address, nbytes)

    def _watch(self, owner: object, address: int, nbytes: int) -> weakref.ref[object] | None:
        """Let the death of `owner` end its registration; None when that is so already."""
        key = (address, nbytes)
        this = weakref.ref(self)

        def forget(dead: weakref.ref[object]) -> None:
            pool = this()
            if pool is not None and pool._stop_watching(dead, address, nbytes):
                pool._unregister_existing(address, nbytes)

        while True:
            owners = self._owners.setdefault(key, [])
            if any(known() is owner for known in owners):
                return None
            watched = weakref.ref(owner, forget)
            owners.append(watched)
            if self._owners.get(key) is owners:  # else the last other owner went in between, and the list with it
                return watched

    def _stop_watching(self, watched: weakref.ref[object] | None, address: int, nbytes: int) -> bool:
        """Whether that was the last owner of the range."""
        owners = self._owners.get((address, nbytes), [])
        places = [place for place, one in enumerate(owners) if one is watched]  # == would compare the owners
        for place in places:
            del owners[place]
        return bool(places) and not owners and self._owners.pop((address, nbytes), None) is not None

    def __enter__(self) -> Self:
        """Return the pool; the end of the block closes it."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool."""
        self.close()

    def __repr__(self) -> str:
        """Name the source and how much is in use."""
        source: MemoryPool | None = self.__dict__.get("_source")
        if source is None:  # asked by a traceback of the constructor: there is no pool behind it
            return "<BufferPool, not built>"
        stats = self.get_statistics()
        state = "closed" if self.closed else f"{stats.in_use_count} leases, {stats.held_bytes} bytes held"
        return f"<BufferPool on {source.device!r}: {state}>"


def _as_pool(source: MemoryPool | str) -> MemoryPool:
    if isinstance(source, MemoryPool):
        return source
    if not isinstance(source, str):
        raise TypeError(f"source must be a MemoryPool or the name of a device, got {type(source).__name__}")
    # Complete, so that no file adds heaps.
    return MemoryPool(PoolConfig(enabled=False, device=source, warmup_sizes=[], log_exhaustion=False))
