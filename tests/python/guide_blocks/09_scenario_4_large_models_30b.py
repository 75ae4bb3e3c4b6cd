stats = pool.get_statistics()
print(f"Largest allocation: {stats.largest_allocation_mb:.1f}MB")
print(f"Heap size: {config.heap_size_mb}MB")
print(f"Model fits in single heap: {stats.largest_allocation_mb < config.heap_size_mb}")
