#include "dlpack_export.hpp"

#include <cstdint>
#include <memory>
#include <utility>

#include "buffer_streams.hpp"

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

py::object export_dlpack(BufferObject& buffer, const DlpackArguments& arguments) {
  check_not_given_up(buffer);
  const DlpackPlace place = dlpack_place(memory_of(buffer).pool().device());
  const DlpackRequest request = check_dlpack_arguments(arguments, place);
  check_not_given_up(buffer);  // again: comparing the arguments may run code that releases the buffer
  if (request.stream) {
    show_to_stream(buffer, *request.stream);
    check_not_given_up(buffer);  // other threads may have run
  }
  const DlpackTensor bytes{
      .address = buffer.address, .place = place, .shape = {static_cast<std::int64_t>(buffer.nbytes)}};
  return make_dlpack_capsule(request.versioned, bytes, share_of(buffer));
}

py::tuple dlpack_device(const BufferObject& buffer) {
  check_not_given_up(buffer);
  return dlpack_place(memory_of(buffer).pool().device()).as_tuple();
}

}  // namespace tierpool::bindings
