#include "viewed_leases.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "lease_type.hpp"

namespace tierpool::bindings {
namespace {

constexpr std::size_t kNamedViews = 8;

LeaseObject* first_viewed = nullptr;

std::string name_of(const Lease& lease) {
  for (const LeaseObject* object = first_viewed; object != nullptr; object = object->next_viewed) {
    if (object->lease == lease) {
      return describe(object->layout, lease.requested_bytes);
    }
  }
  return std::to_string(lease.requested_bytes) + " bytes";  // an ndarray of its own, or an export that outlived it
}

}  // namespace

void list_viewed(LeaseObject& lease) noexcept {
  if (lease.previous_viewed != nullptr || first_viewed == &lease) {
    return;
  }
  lease.next_viewed = first_viewed;
  if (first_viewed != nullptr) {
    first_viewed->previous_viewed = &lease;
  }
  first_viewed = &lease;
}

void unlist_viewed(LeaseObject& lease) noexcept {
  if (first_viewed == &lease) {
    first_viewed = lease.next_viewed;
  } else if (lease.previous_viewed != nullptr) {
    lease.previous_viewed->next_viewed = lease.next_viewed;
  }
  if (lease.next_viewed != nullptr) {
    lease.next_viewed->previous_viewed = lease.previous_viewed;
  }
}

std::string describe_views(const BufferPool& pool) {
  const std::vector<ViewedLease> viewed = pool.live_views();
  std::string text;
  for (std::size_t i = 0; i < std::min(viewed.size(), kNamedViews); ++i) {
    const ViewedLease& one = viewed[i];
    text += (i == 0 ? "" : "; ") + name_of(one.lease) + " with " + std::to_string(one.views) +
            (one.views == 1 ? " view" : " views");
    if (!one.origin.empty()) {
      text += ", allocated at " + one.origin;
    }
  }
  if (viewed.size() > kNamedViews) {
    text += "; and " + std::to_string(viewed.size() - kNamedViews) + " more";
  }
  return text;
}

}  // namespace tierpool::bindings
