stats = pool.get_statistics()
leaked = stats.total_allocations - stats.total_deallocations
print(f"Leaked buffers: {leaked}")
