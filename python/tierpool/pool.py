"""The pool as Python sees it: the compiled one plus configuration, `with`, warm-up and NumPy."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tierpool import _core
from tierpool.config import PoolConfig, core_arguments
from tierpool.config_sources import resolve
from tierpool.config_values import megabytes, size_list
from tierpool.memory_stats import memory_stats

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Self, Unpack

    from tierpool.config import PoolSettings, Size
    from tierpool.integrations.numpy import Shape, use

_FAILURE = "Failed to initialize MetalMemoryPool"


@contextmanager
def _naming_the_pool() -> Iterator[None]:
    """Begin every configuration error with the documented words, as the compiled pool does."""
    try:
        yield
    except _core.ConfigError as error:
        if str(error).startswith(_FAILURE):
            raise
        raise _core.ConfigError(f"{_FAILURE}: {error}") from error


@_core.with_own_calls
class MemoryPool(_core.MemoryPool):
    """Pre-warmed heaps that serve buffers; also under its documented name `MetalMemoryPool`.

    Parameters
    ----------
    config : PoolConfig or dict, optional
        A `PoolConfig` is complete: neither file nor environment adds to it. A dict holds pool keys, or
        the documented nesting `metal_optimizations.memory_pool`.
    **settings
        The fields of `PoolConfig`; they win over `config`.

    Raises
    ------
    ConfigError
        For a key or value that cannot be used; a ValueError and a RuntimeError.
    InitializationError
        When the device cannot provide the heaps. Both messages begin
        ``Failed to initialize MetalMemoryPool``.
    TypeError
        For a value of a wrong type.

    See Also
    --------
    PoolConfig : every setting with its default.

    Notes
    -----
    A setting comes from the arguments, else from the YAML file that the environment variable
    ``TIERPOOL_CONFIG`` names, else from the defaults. ``TIERPOOL_DISABLE=1`` switches the heaps of every
    pool off.

    May be used from any number of threads at once. Buffers may be released on any thread, also after
    `close`.

    Examples
    --------
    >>> from tierpool import MemoryPool
    >>> with MemoryPool(heap_size_mb=64, num_heaps=2, warmup_sizes=[16]) as pool:
    ...     buffer = pool.allocate(1 << 20)
    ...     del buffer
    ...     pool.get_statistics().hit_rate
    1.0
    """

    def __init__(self, config: PoolConfig | Mapping[str, Any] | None = None, **settings: Unpack[PoolSettings]) -> None:
        with _naming_the_pool():
            complete = resolve(config, settings)
            super().__init__(**core_arguments(complete))
        self._config = complete

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **overrides: Unpack[PoolSettings]) -> Self:
        """Build a pool from a YAML file with the section ``metal_optimizations.memory_pool``.

        Parameters
        ----------
        path : str or path
            The file. Keys outside the section are left alone; unknown keys inside it are refused.
        **overrides
            The fields of `PoolConfig`; they win over the file.

        Raises
        ------
        ConfigError
            As the constructor, and when the file cannot be read or is not valid YAML: the message has
            file, line and column.
        TypeError
            For a value of a wrong type.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from tierpool import MemoryPool
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "runtime.yaml")
        ...     _ = path.write_text("metal_optimizations: {memory_pool: {num_heaps: 2}}")
        ...     pool = MemoryPool.from_yaml(path, warmup_sizes=[])
        >>> pool.config.num_heaps
        2
        """
        with _naming_the_pool():
            config = resolve(None, overrides, path)
        return cls(config)

    @property
    def config(self) -> PoolConfig:
        """A copy of the configuration in force, complete, with sizes as numbers of MB."""
        return copy.deepcopy(self._config)

    def warmup(
        self,
        sizes: Iterable[Size] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> _core.WarmupReport:
        """Put memory behind the low end of every heap, ready to use, and leave live buffers alone.

        Parameters
        ----------
        sizes : iterable of int, float or str, optional
            Buffer sizes in MB, or text with a unit; by default the configured `warmup_sizes`. In each heap
            all sizes that fit together are made warm; one above the heap is skipped with a warning.
        progress : callable, optional
            Called with the bytes done and the bytes to do. What it raises ends the warm-up and is passed on.

        Returns
        -------
        WarmupReport
            `warm_bytes` over all heaps, `committed_bytes` newly committed, in whole granules, and `milliseconds`.

        Raises
        ------
        OutOfMemoryError
            When the device has no memory left.
        PoolClosedError
            After `close`.
        ConfigError, TypeError
            For a size that cannot be used.

        Notes
        -----
        May be called from any thread while others allocate. Counts in no allocation statistic.

        Examples
        --------
        >>> from tierpool import MemoryPool
        >>> pool = MemoryPool(heap_size_mb=16, num_heaps=2, warmup_sizes=[])
        >>> pool.warmup([4]).warm_bytes
        8388608
        """
        chosen = self._config.warmup_sizes if sizes is None else size_list("sizes", sizes)
        sizes_are_default = sizes is None and self._config.warmup_is_default
        return self._warm_up([megabytes("sizes", size) for size in chosen], sizes_are_default, progress)

    def diagnose(self) -> list[_core.Finding]:
        """Judge hit rate, utilization and fallback rate by the guide's thresholds.

        Returns
        -------
        list of Finding
            Each with `metric`, `value`, `verdict` and `advice`. Without an allocation since the last reset
            only utilization is judged.

        Examples
        --------
        >>> from tierpool import MemoryPool
        >>> pool = MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[])
        >>> [finding.verdict for finding in pool.diagnose()]
        ['over-provisioned']
        """
        return self.get_statistics().diagnose()

    def memory_stats(self) -> dict[str, int]:
        """Return statistics under the names of `torch.cuda.memory_stats`, as a flat dict of integers.

        Returns
        -------
        dict
            ``allocated_bytes.all.current``, ``reserved_bytes.all.current`` and more, of what a pool counts.

        Notes
        -----
        May be called from any thread. `get_statistics` has all figures. In the peaks, and only
        there, what magazines keep counts as well, and in that of ``allocated_bytes`` what waits for streams;
        ``num_ooms`` counts a `try_allocate` that returned None, too. Left out is what a pool does not count:
        ``allocation.all.peak``, ``allocated_bytes.all.allocated`` and ``freed``, ``requested_bytes.all.current`` and
        ``peak``, ``num_alloc_retries``.

        Examples
        --------
        >>> from tierpool import MemoryPool
        >>> pool = MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[])
        >>> buffer = pool.allocate(1000)
        >>> pool.memory_stats()["allocated_bytes.all.current"]
        1024
        """
        return memory_stats(self.get_statistics())

    def numpy(self, min_bytes: int = 1024) -> use:
        """Let every NumPy array that is created in a ``with`` block live in this pool.

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
        The choice belongs to the current context: tasks of asyncio created inside the block inherit it, a
        new thread does not and enters a block of its own. Arrays outlive block and pool safely.

        Examples
        --------
        >>> import numpy
        >>> from tierpool import MemoryPool
        >>> pool = MemoryPool(heap_size_mb=16, num_heaps=1, warmup_sizes=[])
        >>> with pool.numpy():
        ...     x = numpy.ones((512, 512))
        >>> pool.get_statistics().used_capacity_mb
        2.0
        """
        from tierpool.integrations.numpy import use  # noqa: PLC0415  (imported by who uses it)

        return use(self, min_bytes)

    def empty(self, shape: Shape, dtype: DTypeLike = float) -> NDArray[Any]:
        """Return an uninitialised array in this pool, whatever its size; see `numpy.empty`.

        Examples
        --------
        >>> from tierpool import MemoryPool
        >>> pool = MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[])
        >>> pool.empty((2, 3), "float16").nbytes
        12
        """
        from tierpool.integrations.numpy import empty  # noqa: PLC0415

        return empty(self, shape, dtype)

    def zeros(self, shape: Shape, dtype: DTypeLike = float) -> NDArray[Any]:
        """Return an array of zeros in this pool, whatever its size; see `numpy.zeros`.

        Notes
        -----
        Memory that was used before is cleared, which takes the time of a memset.

        Examples
        --------
        >>> from tierpool import MemoryPool
        >>> pool = MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[])
        >>> pool.zeros(3).tolist()
        [0.0, 0.0, 0.0]
        """
        from tierpool.integrations.numpy import zeros  # noqa: PLC0415

        return zeros(self, shape, dtype)

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
        """Name what the pool was built from and how much of it is in use."""
        config: PoolConfig | None = self.__dict__.get("_config")
        if config is None:  # asked by a traceback of the constructor: there is no pool behind it
            return "<MemoryPool, not built>"
        heaps = f"{config.num_heaps} heaps of {config.heap_size_mb:g} MB" if config.enabled else "no heaps"
        used = "closed" if self.closed else f"{self.get_statistics().used_capacity_mb:.1f} MB used"
        return (
            f"<MemoryPool on {config.device!r}: {heaps}, strategy={config.strategy}, "
            f"placement={config.placement}, {used}>"
        )
