if stats.utilization > 0.95:
    print("❌ Pool near exhaustion, increase capacity")
elif stats.utilization > 0.80:
    print("⚠️ Pool heavily utilized, consider expansion")
elif stats.utilization < 0.50:
    print("⚠️ Pool over-provisioned, reduce to save memory")
else:
    print("✅ Pool utilization optimal")
