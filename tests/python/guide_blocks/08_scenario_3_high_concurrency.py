stats = pool.get_statistics()
print(f"Active allocations: {stats.active_allocations}")
print(f"Total heaps: {stats.total_heaps}")
print(f"Allocations per heap: {stats.active_allocations / stats.total_heaps:.1f}")
