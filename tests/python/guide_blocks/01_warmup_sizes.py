# Run benchmark with verbose logging
pool.reset_statistics()
# ... run inference ...
stats = pool.get_statistics()
print(f"Largest allocation: {stats.largest_allocation_mb}MB")
print(f"Avg allocation: {stats.avg_allocation_mb}MB")
