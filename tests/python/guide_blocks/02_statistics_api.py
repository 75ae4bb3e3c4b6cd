from krserve_native import MetalMemoryPool

# Get current statistics
stats = pool.get_statistics()

print(f"Total allocations:     {stats.total_allocations}")
print(f"Fallback allocations:  {stats.fallback_allocations}")
print(f"Hit rate:              {stats.hit_rate * 100:.1f}%")
print(f"Active allocations:    {stats.active_allocations}")
print(f"Total heaps:           {stats.total_heaps}")
print(f"Active heaps:          {stats.active_heaps}")
print(f"Heap utilization:      {stats.utilization * 100:.1f}%")
print(f"Largest allocation:    {stats.largest_allocation_mb:.1f}MB")
print(f"Avg allocation:        {stats.avg_allocation_mb:.1f}MB")
print(f"Total capacity:        {stats.total_capacity_mb:.1f}MB")
print(f"Used capacity:         {stats.used_capacity_mb:.1f}MB")
