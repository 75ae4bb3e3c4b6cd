if stats.hit_rate < 0.80:
    print("❌ Pool too small, increase heap_size_mb or num_heaps")
elif stats.hit_rate < 0.90:
    print("⚠️ Pool adequate but could be optimized")
else:
    print("✅ Pool sized correctly")
