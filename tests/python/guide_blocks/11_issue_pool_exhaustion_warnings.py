# Check if allocation is unusually large (potential bug)
if stats.largest_allocation_mb > 4096:  # >4GB is suspicious
    print("⚠️ Unusually large allocation, check for bugs")
