"""The import path of the Metal Memory Pool guide. Everything here is tierpool's."""

from tierpool import MetalMemoryPool, MetalMemoryPoolConfig, MetalMemoryPoolStatistics, __version__

__all__ = ["MetalMemoryPool", "MetalMemoryPoolConfig", "MetalMemoryPoolStatistics", "__version__"]
