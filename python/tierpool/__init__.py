"""Memory for LLM inference: pre-warmed heaps, allocation in nanoseconds, honest statistics.

Examples
--------
>>> from tierpool import MemoryPool
>>> pool = MemoryPool(heap_size_mb=64, num_heaps=2, warmup_sizes=[16])
>>> buffer = pool.allocate(1 << 20)
>>> buffer.nbytes, buffer.heap_index
(1048576, 0)
"""

from tierpool._core import (
    BudgetError,
    Buffer,
    BufferBatch,
    BufferPoolStatistics,
    CancelledError,
    ConfigError,
    DeviceError,
    Finding,
    HeapStatistics,
    InitializationError,
    Lease,
    LeaseBatch,
    OutOfMemoryError,
    PoolClosedError,
    PoolStatistics,
    ReadError,
    Registration,
    SizeClassStatistics,
    StaleBufferError,
    TierpoolError,
    TraceError,
    WarmupReport,
    __version__,
)
from tierpool.buffer_pool import BufferPool, CompletionEvent
from tierpool.config import PoolConfig
from tierpool.config_sources import apply_log_level as _apply_log_level
from tierpool.pool import MemoryPool

MetalMemoryPool = MemoryPool
MetalMemoryPoolConfig = PoolConfig
MetalMemoryPoolStatistics = PoolStatistics

__all__ = [
    "BudgetError",
    "Buffer",
    "BufferBatch",
    "BufferPool",
    "BufferPoolStatistics",
    "CancelledError",
    "CompletionEvent",
    "ConfigError",
    "DeviceError",
    "Finding",
    "HeapStatistics",
    "InitializationError",
    "Lease",
    "LeaseBatch",
    "MemoryPool",
    "MetalMemoryPool",
    "MetalMemoryPoolConfig",
    "MetalMemoryPoolStatistics",
    "OutOfMemoryError",
    "PoolClosedError",
    "PoolConfig",
    "PoolStatistics",
    "ReadError",
    "Registration",
    "SizeClassStatistics",
    "StaleBufferError",
    "TierpoolError",
    "TraceError",
    "WarmupReport",
    "__version__",
]

_apply_log_level()
