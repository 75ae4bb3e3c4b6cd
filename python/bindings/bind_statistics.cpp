#include <pybind11/stl.h>

#include <string>

#include "bindings.hpp"
#include "statistics_fields.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool::bindings {
namespace {

double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); }

using Pool = PoolStatistics;
using OneHeap = HeapStatistics;

constexpr Field<Pool> kPoolFields[] = {
    TIERPOOL_FIELD(Pool, "total_allocations", s.total_allocations, "Successful allocations since reset."),
    TIERPOOL_FIELD(Pool, "total_acquired", s.total_allocations, "The same as total_allocations."),
    TIERPOOL_FIELD(Pool, "total_deallocations", s.total_deallocations, "Allocations that came back since reset."),
    TIERPOOL_FIELD(Pool, "total_released", s.total_deallocations, "The same as total_deallocations."),
    TIERPOOL_FIELD(Pool, "fallback_allocations", s.fallback_allocations, "Allocations served outside the heaps."),
    TIERPOOL_FIELD(Pool, "fallback_events", s.fallback_allocations, "The same as fallback_allocations."),
    TIERPOOL_FIELD(Pool, "exhaustion_events", s.exhaustion_events, "Times no heap could serve a request."),
    TIERPOOL_FIELD(Pool, "active_allocations", s.active_allocations, "Live now; reset does not touch it."),
    TIERPOOL_FIELD(Pool, "active_arrays", s.active_arrays, "Of the live allocations, those NumPy arrays own."),
    TIERPOOL_FIELD(Pool, "hit_rate", s.hit_rate(), "Share of allocations served by heaps; 0.0 when there were none."),
    TIERPOOL_FIELD(Pool, "total_heaps", s.total_heaps, "Heaps of the pool."),
    TIERPOOL_FIELD(Pool, "active_heaps", s.active_heaps, "Heaps with a live block."),
    TIERPOOL_FIELD(Pool, "pool_size", s.total_heaps, "The same as total_heaps."),
    TIERPOOL_FIELD(Pool, "available_count", s.available_count(), "Heaps with no live block."),
    TIERPOOL_FIELD(Pool, "utilization", s.utilization(), "Used bytes / capacity."),
    TIERPOOL_FIELD(Pool, "total_capacity_mb", mebibytes(s.capacity_bytes), "Size of all heaps, MiB."),
    TIERPOOL_FIELD(Pool, "used_capacity_mb", mebibytes(s.used_bytes), "Block bytes of live buffers in heaps, MiB."),
    TIERPOOL_FIELD(Pool, "peak_used_mb", mebibytes(s.peak_used_bytes), "Most taken from the heaps since reset, MiB."),
    TIERPOOL_FIELD(Pool, "peak_taken_mb", mebibytes(s.peak_taken_bytes),
                   "Most taken from the heaps and outside them at one moment since reset, MiB."),
    TIERPOOL_FIELD(Pool, "free_mb", mebibytes(s.free_bytes), "Free bytes in heaps, MiB."),
    TIERPOOL_FIELD(Pool, "largest_free_mb", mebibytes(s.largest_free_bytes), "Largest free block, MiB."),
    TIERPOOL_FIELD(Pool, "largest_allocation_mb", mebibytes(s.largest_allocation_bytes),
                   "Largest request since reset, fallbacks included, MiB."),
    TIERPOOL_FIELD(Pool, "avg_allocation_mb", s.average_allocation_bytes() / static_cast<double>(kMiB),
                   "Mean request since reset, fallbacks included, MiB."),
    TIERPOOL_FIELD(Pool, "fallback_used_mb", mebibytes(s.fallback_used_bytes), "Live bytes outside heaps, MiB."),
    TIERPOOL_FIELD(Pool, "committed_mb", mebibytes(s.committed_bytes), "Physically backed bytes of heaps, MiB."),
    TIERPOOL_FIELD(Pool, "cached_mb", mebibytes(s.cached_bytes), "Bytes parked in thread caches, MiB."),
    TIERPOOL_FIELD(Pool, "pending_mb", mebibytes(s.pending_bytes),
                   "Released bytes of heaps that streams may still use, MiB."),
    TIERPOOL_FIELD(Pool, "fallback_pending_mb", mebibytes(s.fallback_pending_bytes),
                   "Released bytes outside heaps that streams may still use, MiB."),
    TIERPOOL_FIELD(Pool, "reserved_mb", mebibytes(s.reserved_bytes),
                   "Held of the device: committed granules and all outside heaps, MiB."),
    TIERPOOL_FIELD(Pool, "peak_reserved_mb", mebibytes(s.peak_reserved_bytes), "The most of it since reset, MiB."),
    TIERPOOL_FIELD(Pool, "device_allocations", s.device_allocations, "Times memory was taken from the device."),
    TIERPOOL_FIELD(Pool, "device_frees", s.device_frees, "Times memory was given back to the device."),
    TIERPOOL_FIELD(Pool, "stream_lanes", s.stream_lanes, "Streams with heaps of their own, the default one included."),
    TIERPOOL_FIELD(Pool, "fragmentation", s.fragmentation(),
                   "Share of free bytes outside the largest free block of their heap."),
};

constexpr Field<OneHeap> kHeapFields[] = {
    TIERPOOL_FIELD(OneHeap, "index", s.index, "Position in the pool."),
    TIERPOOL_FIELD(OneHeap, "stream", s.stream, "Handle of the stream it serves; 0 for the default stream."),
    TIERPOOL_FIELD(OneHeap, "total_allocations", s.counters.allocations, "Allocations since reset."),
    TIERPOOL_FIELD(OneHeap, "total_deallocations", s.counters.deallocations, "Allocations that came back since reset."),
    TIERPOOL_FIELD(OneHeap, "active_allocations", s.live_count, "Live now."),
    TIERPOOL_FIELD(OneHeap, "utilization", s.utilization(), "Used bytes / capacity."),
    TIERPOOL_FIELD(OneHeap, "capacity_mb", mebibytes(s.capacity_bytes), "Size, MiB."),
    TIERPOOL_FIELD(OneHeap, "used_mb", mebibytes(s.used_bytes), "Block bytes of live buffers, MiB."),
    TIERPOOL_FIELD(OneHeap, "peak_used_mb", mebibytes(s.peak_used_bytes), "Most taken since reset, MiB."),
    TIERPOOL_FIELD(OneHeap, "committed_mb", mebibytes(s.committed_bytes), "Physically backed bytes, MiB."),
    TIERPOOL_FIELD(OneHeap, "free_mb", mebibytes(s.free_bytes), "Free bytes, MiB."),
    TIERPOOL_FIELD(OneHeap, "largest_free_mb", mebibytes(s.largest_free_bytes), "Largest free block, MiB."),
    TIERPOOL_FIELD(OneHeap, "cached_mb", mebibytes(s.cached_bytes), "Bytes parked in thread caches, MiB."),
    TIERPOOL_FIELD(OneHeap, "pending_mb", mebibytes(s.pending_bytes),
                   "Released bytes that streams may still use, MiB."),
    TIERPOOL_FIELD(OneHeap, "free_block_count", s.free_block_count, "Free blocks."),
    TIERPOOL_FIELD(OneHeap, "fragmentation", s.fragmentation(), "1 - largest free block / free bytes."),
};

}  // namespace

void bind_statistics(py::module_& module) {
  py::class_<Finding>(module, "Finding", "One verdict on a pool's statistics, with what to do about it.")
      .def_readonly("metric", &Finding::metric, "'hit_rate', 'utilization' or 'fallback_rate'.")
      .def_readonly("value", &Finding::value, "What was judged, 0..1.")
      .def_readonly("verdict", &Finding::verdict, "For example 'excellent' or 'over-provisioned'.")
      .def_readonly("advice", &Finding::advice, "What to change.")
      .def("__repr__", [](const Finding& self) {
        return "Finding(metric='" + self.metric + "', value=" + py::cast<std::string>(py::repr(py::cast(self.value))) +
               ", verdict='" + self.verdict + "', advice='" + self.advice + "')";
      });

  py::class_<HeapStatistics> heap(module, "HeapStatistics", "One heap at one moment. Sizes in MiB.");
  add_fields(heap, kHeapFields);
  py::class_<PoolStatistics> pool(module, "PoolStatistics", "One pool at one moment. Sizes in MiB, ratios 0..1.");
  add_fields(pool, kPoolFields);
  pool.def("diagnose", &diagnose, "Judge hit rate, utilization and fallback rate by the guide's thresholds.");
}

}  // namespace tierpool::bindings
