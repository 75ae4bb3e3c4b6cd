"""What a pool is built from."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict

from tierpool._core import ConfigError
from tierpool.config_values import CHECKS, DEFAULT_COMPACTION, Compaction, megabytes, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self, Unpack

Size = int | float | str
"""MB as a number, or text with a unit: 256, 0.5, "256MiB", "1.5GB". MB and MiB are both 2**20 bytes."""

DEFAULT_WARMUP_SIZES = (32, 128, 512)


class PoolSettings(TypedDict, total=False):
    """The keywords of `PoolConfig` and `MemoryPool`; `PoolConfig` says what each means."""

    enabled: bool
    heap_size_mb: Size
    num_heaps: int
    warmup_sizes: Iterable[Size]
    track_statistics: bool
    log_exhaustion: bool
    strategy: str
    allocation_strategy: str
    placement: str
    on_exhaustion: str
    max_bytes: int | str | None
    magazines: bool
    exact_above: int | str
    magazine_thread_bytes: int | str | None
    magazine_total_bytes: int | str | None
    track_origins: bool
    device: str
    dynamic_growth: bool
    max_heaps: int | None
    growth_trigger: float
    compaction: Compaction | dict[str, Any]


def canonical(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Refuse unknown keys, and put `allocation_strategy` under its other name, `strategy`."""
    known = {*CHECKS, "allocation_strategy"}
    for key in settings:
        if key not in known:
            raise ConfigError(unknown_name(key, known))
    if "strategy" in settings and "allocation_strategy" in settings:
        raise ConfigError(
            f"strategy is {settings['strategy']!r} and allocation_strategy {settings['allocation_strategy']!r}, "
            "but they are two names of one key: remove one of them"
        )
    return {"strategy" if key == "allocation_strategy" else key: value for key, value in settings.items()}


@dataclass(init=False)
class PoolConfig:
    """The configuration of a pool; also under its documented name `MetalMemoryPoolConfig`.

    Every field has a default, may be given as a keyword and may be set afterwards. An unknown name is
    refused at once, a value when a pool is built from it. A pool keeps a copy.

    Parameters
    ----------
    enabled : bool, default True
        False builds a pool without heaps: every allocation is a counted fallback.
    heap_size_mb : int, float or str, default 256
        Size of each heap, in MB (2**20 bytes) or as text such as "256MiB" or "1.5GB".
    num_heaps : int, default 4
        Number of heaps. A heap costs no memory until it is warmed up or used.
    warmup_sizes : list of int, float or str, default [32, 128, 512]
        Buffer sizes to warm up in each heap at construction. A size above the heap is skipped.
    track_statistics : bool, default True
        False stops the event counters; what is live stays known.
    log_exhaustion : bool, default True
        Whether to log, at most once a second, that no heap could serve a request.
    strategy : {"round-robin", "best-fit", "least-used", "most-used"}
        Which heap is tried first; the others follow. `allocation_strategy` is the same key.
    placement : {"good-fit", "best-fit", "first-fit"}
        Which free block inside a heap is taken: one of nearly the right size, the smallest or the lowest that fits.
    on_exhaustion : {"fallback", "raise"}
        What happens when no heap can serve a request.
    max_bytes : int, str or None, default None
        Hard limit over heaps and fallbacks together, in bytes or as text such as "2GiB".
    magazines : bool, default True
        Whether each thread keeps freed blocks by size class and is served from them first. `strategy` and
        `placement` then act when it has none.
    exact_above : int or str, default "1MiB"
        Requests above are never rounded up to a size class, in bytes or as text; below, a class may waste 6.25 %.
    magazine_thread_bytes : int, str or None, default None
        Most that one thread keeps, in bytes or as text; None is as much as all may keep together.
    magazine_total_bytes : int, str or None, default None
        Most that all threads keep together, in equal shares; None is all of the heaps.
    track_origins : bool, default False
        Whether to remember where each buffer was allocated, for the leak report.
    device : {"host", "cuda:0", "pinned", "pinned-write-combined", "simulated"}
        Where the bytes come from.
    dynamic_growth, max_heaps, growth_trigger, compaction
        Read and checked, but not available yet: switching one on is a `ConfigError`.

    Raises
    ------
    ConfigError
        For an unknown key, with the nearest known one, or one key under both its names.

    Notes
    -----
    A plain mutable object: do not change one from several threads at once.

    Examples
    --------
    >>> from tierpool import PoolConfig
    >>> config = PoolConfig(num_heaps=2)
    >>> config.heap_size_mb = "512MiB"
    >>> config.num_heaps, config.warmup_sizes
    (2, [32, 128, 512])
    """

    enabled: bool = True
    heap_size_mb: Size = 256
    num_heaps: int = 4
    warmup_sizes: list[Size] = field(default_factory=lambda: list(DEFAULT_WARMUP_SIZES))
    track_statistics: bool = True
    log_exhaustion: bool = True
    strategy: str = "round-robin"
    placement: str = "good-fit"
    on_exhaustion: str = "fallback"
    max_bytes: int | str | None = None
    magazines: bool = True
    exact_above: int | str = 1 << 20
    magazine_thread_bytes: int | str | None = None
    magazine_total_bytes: int | str | None = None
    track_origins: bool = False
    device: str = "host"
    dynamic_growth: bool = False
    max_heaps: int | None = None
    growth_trigger: float = 0.9
    compaction: Compaction = field(default_factory=DEFAULT_COMPACTION.copy)

    def __init__(self, **settings: Unpack[PoolSettings]) -> None:
        for spec in fields(self):
            default = spec.default_factory() if callable(spec.default_factory) else spec.default
            object.__setattr__(self, spec.name, default)
        object.__setattr__(self, "_warmup_given", False)
        for name, value in canonical(settings).items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        """Set a field. Raises AttributeError for an unknown name, with the nearest known one."""
        if name not in CHECKS and name != "allocation_strategy":
            raise AttributeError(unknown_name(name, {*CHECKS, "allocation_strategy"}), name=name, obj=self)
        if name == "warmup_sizes":
            object.__setattr__(self, "_warmup_given", True)
        object.__setattr__(self, name, value)

    @property
    def allocation_strategy(self) -> str:
        """The configuration file's name for `strategy`."""
        return self.strategy

    @allocation_strategy.setter
    def allocation_strategy(self, value: str) -> None:
        self.strategy = value

    @property
    def warmup_is_default(self) -> bool:
        """Whether `warmup_sizes` is the documented list and nobody asked for it."""
        return not self.__dict__["_warmup_given"] and self.warmup_sizes == list(DEFAULT_WARMUP_SIZES)

    def checked(self) -> Self:
        """Return a copy in which every value is checked and in one form: MB and bytes as numbers.

        Raises
        ------
        TypeError
            For a value of a wrong type.
        ConfigError
            For a value that cannot be used. Names of devices, strategies and the like, and what depends
            on the device, are checked when a pool is built.

        Examples
        --------
        >>> from tierpool import PoolConfig
        >>> PoolConfig(heap_size_mb="1GiB").checked().heap_size_mb
        1024
        """
        result = copy.copy(self)
        for key, check in CHECKS.items():
            object.__setattr__(result, key, check(key, getattr(self, key)))
        return result


def core_arguments(config: PoolConfig) -> dict[str, Any]:
    """Return a checked configuration as the keywords of the compiled pool."""
    return {
        "device": config.device,
        "enabled": config.enabled,
        "heap_size_bytes": megabytes("heap_size_mb", config.heap_size_mb),
        "num_heaps": config.num_heaps,
        "warmup_bytes": [megabytes("warmup_sizes", size) for size in config.warmup_sizes],
        "warmup_is_default": config.warmup_is_default,
        "track_statistics": config.track_statistics,
        "log_exhaustion": config.log_exhaustion,
        "track_origins": config.track_origins,
        "strategy": config.strategy,
        "placement": config.placement,
        "on_exhaustion": config.on_exhaustion,
        "max_bytes": config.max_bytes,
        "magazines": config.magazines,
        "exact_above_bytes": config.exact_above,
        "magazine_thread_bytes": config.magazine_thread_bytes,
        "magazine_total_bytes": config.magazine_total_bytes,
    }
