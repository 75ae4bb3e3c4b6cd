#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "arguments.hpp"
#include "batch_sequence.hpp"
#include "lease_batch.hpp"
#include "memory_end.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool::bindings {
namespace {

ArrayLayout parse_request(py::handle request, std::uint64_t& nbytes) {
  if (!py::isinstance<py::tuple>(request)) {
    nbytes = parse_bytes(request, "nbytes");
    return {};
  }
  const auto fields = py::reinterpret_borrow<py::tuple>(request);
  if (fields.empty() || fields.size() > 3) {
    throw py::type_error("a request is nbytes or a tuple (nbytes, dtype, shape), got a tuple of " +
                         std::to_string(fields.size()));
  }
  nbytes = parse_bytes(fields[0], "nbytes");
  const auto field = [&](std::size_t index) {
    return index < fields.size() ? PyTuple_GET_ITEM(fields.ptr(), static_cast<Py_ssize_t>(index)) : nullptr;
  };
  return parse_layout(nbytes, field(1), field(2));
}

}  // namespace

LeaseRequests parse_requests(py::handle requests) {
  LeaseRequests parsed;
  if (PyObject_CheckBuffer(requests.ptr()) != 0) {  // an array, which holds no tuples
    parsed.sizes = parse_sizes(requests);
    return parsed;
  }
  for (const py::handle request : py::iter(requests)) {
    std::uint64_t nbytes = 0;
    ArrayLayout layout = parse_request(request, nbytes);
    if (!layout.is_default() && parsed.layouts.empty()) {
      parsed.layouts.resize(parsed.sizes.size());
    }
    if (!layout.is_default() || !parsed.layouts.empty()) {
      parsed.layouts.push_back(std::move(layout));
    }
    parsed.sizes.push_back(nbytes);
  }
  return parsed;
}

void LeaseBatch::check_live() const {
  if (released_) {
    throw StaleBufferError("stale batch of " + std::to_string(size()) + " leases: it was released; allocate a new one");
  }
  // A reset ends all of them, so that any one tells.
  if (!leases_.empty() && pool_->state_of(leases_.front()) == LeaseState::reset) {
    pool_->require_live(leases_.front());
  }
}

py::object LeaseBatch::item(std::size_t index) {
  if (items_.empty() || !items_[index]) {
    check_live();
    items_.resize(size());
    auto made = py::reinterpret_steal<py::object>(
        new_lease(pool_, leases_[index], layouts_.empty() ? ArrayLayout() : layouts_[index]));
    if (!made) {
      throw py::error_already_set();
    }
    items_[index] = std::move(made);
  }
  return items_[index];
}

void LeaseBatch::release() {
  check_live();
  for (const py::object& item : items_) {
    if (item && !lease_object(item).views.is_given_up()) {
      check_releasable(lease_object(item));
    }
  }
  release_unmade();
  released_ = true;
  for (const py::object& item : std::exchange(items_, {})) {
    if (item && !lease_object(item).views.is_given_up()) {
      release_now(lease_object(item), *pool_);
    }
  }
}

void LeaseBatch::release_unmade() noexcept {
  if (pool_ == nullptr || released_) {
    return;  // moved from, or all gone
  }
  const std::span<const Lease> all(leases_);
  if (items_.empty()) {
    end_leases(*pool_, all);
    return;
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!items_[i]) {
      end_leases(*pool_, all.subspan(i, 1));
    }
  }
}

void bind_lease_batch(py::module_& module) {
  py::class_<LeaseBatch> batch(
      module, "LeaseBatch",
      "Leases that were allocated together. A sequence: an item becomes a `Lease` when asked for.\n"
      "Items never asked for end with the batch, all of them with a reset. Not to be used from several\n"
      "threads at once.");
  add_sequence(batch, "leases");
  batch
      .def_property_readonly(
          "addresses",
          [](const LeaseBatch& self) {
            self.check_live();
            return column<std::uint64_t>(self.leases(), [](const Lease& lease) { return lease.address; });
          },
          "Addresses as a uint64 array. No count sees who uses them: they are good until the leases end.")
      .def_property_readonly(
          "nbytes",
          [](const LeaseBatch& self) {
            return column<std::int64_t>(self.leases(), [](const Lease& lease) { return lease.requested_bytes; });
          },
          "Requested sizes as an int64 array.")
      .def("release", &LeaseBatch::release,
           "End all leases now, before the reset that would end them.\n\n"
           "Raises\n------\n"
           "StaleBufferError\n    When the batch was released already or the pool reset.\n"
           "BufferError\n    In checked mode, while a view of any item is alive; nothing is released then.")
      .def("__repr__", [](const LeaseBatch& self) {
        return "<tierpool.LeaseBatch of " + std::to_string(self.size()) + " leases" +
               (self.released() ? ", released>" : ">");
      });
}

}  // namespace tierpool::bindings
