stats = pool.get_statistics()
print(f"Fallback rate: {stats.fallback_allocations / stats.total_allocations * 100:.1f}%")
print(f"Largest allocation: {stats.largest_allocation_mb:.1f}MB")
print(f"Current heap size: {config.heap_size_mb}MB")

if stats.largest_allocation_mb > config.heap_size_mb:
    print(f"❌ Allocation ({stats.largest_allocation_mb}MB) larger than heap ({config.heap_size_mb}MB)")
