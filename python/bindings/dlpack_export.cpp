#include "dlpack_export.hpp"

#include <cstdint>
#include <memory>
#include <utility>

#include "dlpack_capsule.hpp"

namespace tierpool::bindings {
namespace {

std::shared_ptr<void> share_of(BufferObject& buffer) {
  if (buffer.shared == nullptr) {
    buffer.shared = new SharedBuffer(std::move(buffer.memory));
  }
  buffer.shared->add_owner();
  return {buffer.shared, [](SharedBuffer* shared) { shared->remove_owner(); }};
}

}  // namespace

py::object export_dlpack(BufferObject& buffer, py::handle stream, py::handle max_version, py::handle dl_device,
                         py::handle copy) {
  const bool versioned = check_dlpack_arguments({stream.ptr(), max_version.ptr(), dl_device.ptr(), copy.ptr()});
  check_not_given_up(buffer);  // not earlier: comparing the arguments may run code that releases the buffer
  check_host_accessible(buffer);
  const DlpackTensor bytes{.address = buffer.address, .shape = {static_cast<std::int64_t>(buffer.nbytes)}};
  return make_dlpack_capsule(versioned, bytes, share_of(buffer));
}

py::tuple dlpack_device(const BufferObject& buffer) {
  check_not_given_up(buffer);
  check_host_accessible(buffer);
  return dlpack_host_device();
}

}  // namespace tierpool::bindings
