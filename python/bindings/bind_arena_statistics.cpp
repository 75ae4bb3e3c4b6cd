#include <pybind11/stl.h>

#include "bindings.hpp"
#include "statistics_fields.hpp"
#include "tierpool/arena/buffer_pool_statistics.hpp"

namespace tierpool::bindings {
namespace {

using Pool = BufferPoolStatistics;
using OneClass = SizeClassStatistics;

constexpr Field<OneClass> kClassFields[] = {
    TIERPOOL_FIELD(OneClass, "class_bytes", s.class_bytes, "What a buffer of the class holds."),
    TIERPOOL_FIELD(OneClass, "in_use_count", s.in_use_count, "Live leases."),
    TIERPOOL_FIELD(OneClass, "free_count", s.free_count, "Buffers that wait to be leased again."),
    TIERPOOL_FIELD(OneClass, "fresh", s.fresh, "Leases that took a buffer from the source."),
    TIERPOOL_FIELD(OneClass, "reused", s.reused, "Leases that took a free buffer."),
    TIERPOOL_FIELD(OneClass, "requested_bytes", s.requested_bytes, "Sum over all leases."),
    TIERPOOL_FIELD(OneClass, "waste_bytes", s.waste_bytes(), "Class bytes less requested bytes, over all leases."),
};

constexpr Field<Pool> kPoolFields[] = {
    TIERPOOL_FIELD(Pool, "fresh", s.fresh, "Leases that took a buffer from the source."),
    TIERPOOL_FIELD(Pool, "reused", s.reused, "Leases that took a free buffer."),
    TIERPOOL_FIELD(Pool, "reuse_rate", s.reuse_rate(), "reused / (fresh + reused); 0.0 when there were none."),
    TIERPOOL_FIELD(Pool, "resets", s.resets, "Resets."),
    TIERPOOL_FIELD(Pool, "requested_bytes", s.requested_bytes, "Sum over all leases."),
    TIERPOOL_FIELD(Pool, "leased_bytes", s.leased_bytes, "Class bytes of all leases."),
    TIERPOOL_FIELD(Pool, "waste_bytes", s.waste_bytes(), "leased_bytes - requested_bytes."),
    TIERPOOL_FIELD(Pool, "waste_ratio", s.waste_ratio(), "waste_bytes / requested_bytes."),
    TIERPOOL_FIELD(Pool, "in_use_count", s.in_use_count, "Live leases."),
    TIERPOOL_FIELD(Pool, "in_use_bytes", s.in_use_bytes, "Class bytes of live leases."),
    TIERPOOL_FIELD(Pool, "live_requested_bytes", s.live_requested_bytes, "Requested bytes of live leases."),
    TIERPOOL_FIELD(Pool, "high_water_bytes", s.high_water_bytes, "The most that in_use_bytes ever were."),
    TIERPOOL_FIELD(Pool, "free_count", s.free_count, "Buffers that wait to be leased again."),
    TIERPOOL_FIELD(Pool, "free_bytes", s.free_bytes, "What they hold."),
    TIERPOOL_FIELD(Pool, "quarantined_count", s.quarantined_count, "Buffers that wait for a completion event."),
    TIERPOOL_FIELD(Pool, "quarantined_bytes", s.quarantined_bytes, "What they hold."),
    TIERPOOL_FIELD(Pool, "held_count", s.held_count, "All buffers; under load also those being prepared."),
    TIERPOOL_FIELD(Pool, "held_bytes", s.held_bytes, "What they hold."),
    TIERPOOL_FIELD(Pool, "live_views", s.live_views, "Views of live leases."),
    TIERPOOL_FIELD(Pool, "registered_count", s.residency.registered_count, "Registrations of external memory."),
    TIERPOOL_FIELD(Pool, "registered_bytes", s.residency.registered_bytes, "What they cover."),
    TIERPOOL_FIELD(Pool, "pinned_bytes", s.residency.pinned_bytes, "Of these, locked into RAM."),
    TIERPOOL_FIELD(Pool, "classes", s.classes, "Statistics of each size class that has, or had, a lease."),
};

}  // namespace

void bind_arena_statistics(py::module_& module) {
  py::class_<SizeClassStatistics> one(module, "SizeClassStatistics",
                                      "The buffers of one size. Events since the pool was made.");
  add_fields(one, kClassFields);
  py::class_<BufferPoolStatistics> pool(module, "BufferPoolStatistics",
                                        "One buffer pool at one moment, exact. Events since the pool was made.");
  add_fields(pool, kPoolFields);
}

}  // namespace tierpool::bindings
