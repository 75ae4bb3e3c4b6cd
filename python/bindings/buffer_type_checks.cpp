// What a call on a buffer refuses: a handle given up, memory out of reach, a release that others still see.

#include <string>

#include "buffer_type.hpp"
#include "dlpack_export.hpp"

namespace tierpool::bindings {

void check_not_given_up(const BufferObject& buffer) {
  if (buffer.views.is_given_up()) {
    throw py::value_error("the buffer of " + std::to_string(buffer.nbytes) +
                          " bytes was released already; allocate a new one");
  }
}

void check_host_accessible(const BufferObject& buffer) {
  const Device& device = memory_of(buffer).pool().device();
  if (!device.host_accessible()) {
    throw py::buffer_error(
        "the processor cannot reach the memory of device '" + device.name() +
        "'; copy the bytes by buffer.copy_to(array), or build the pool with device='host' or 'pinned'");
  }
}

void check_releasable(const BufferObject& buffer) {
  if (buffer.views.are_none() && buffer.shared == nullptr) [[likely]] {
    return;
  }
  check_not_given_up(buffer);
  const std::string size = std::to_string(buffer.nbytes);
  if (buffer.views.count() != 0) {
    throw py::buffer_error("cannot release the buffer of " + size + " bytes: it has live views (" +
                           std::to_string(buffer.views.count()) +
                           "); drop them first, or drop the buffer and let them keep the memory");
  }
  if (buffer.shared != nullptr && buffer.shared->export_count() != 0) {
    throw py::buffer_error("cannot release the buffer of " + size + " bytes: it has live DLPack exports (" +
                           std::to_string(buffer.shared->export_count()) + "); drop them first, or drop the buffer");
  }
  if (buffer.views.address_is_out()) {
    const bool is_of_the_host = memory_of(buffer).pool().device().host_accessible();
    throw py::buffer_error("cannot release the buffer of " + size +
                           " bytes: " + (is_of_the_host ? "__array_interface__" : "__cuda_array_interface__") +
                           " gave its address away; drop the buffer instead");
  }
}

}  // namespace tierpool::bindings
