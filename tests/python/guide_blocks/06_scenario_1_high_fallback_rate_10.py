stats = pool.get_statistics()
print(f"Fallback rate: {stats.fallback_allocations / stats.total_allocations * 100:.1f}%")
print(f"Largest allocation: {stats.largest_allocation_mb:.1f}MB")
print(f"Heap size: {config.heap_size_mb}MB")
