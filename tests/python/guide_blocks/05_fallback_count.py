fallback_rate = stats.fallback_allocations / stats.total_allocations

if fallback_rate == 0:
    print("✅ No fallbacks, pool perfectly sized")
elif fallback_rate < 0.05:
    print("✅ Rare fallbacks, acceptable")
elif fallback_rate < 0.10:
    print("⚠️ Some fallbacks, consider increasing capacity")
else:
    print("❌ Frequent fallbacks, pool too small")
