#include "buffer_interfaces.hpp"

#include "buffer_streams.hpp"
#include "dlpack_capsule.hpp"
#include "guarded.hpp"

namespace tierpool::bindings {
namespace {

py::dict describe_bytes(BufferObject& buffer) {
  buffer.views.hand_out_address();
  py::dict interface;
  interface["shape"] = py::make_tuple(buffer.nbytes);
  interface["typestr"] = "|u1";
  interface["data"] = py::make_tuple(buffer.address, false);
  interface["strides"] = py::none();
  interface["version"] = 3;
  return interface;
}

}  // namespace

PyObject* get_buffer_interface(PyObject* self, void* /*closure*/) {
  return guarded([&]() -> py::object {
    BufferObject& buffer = buffer_object(self);
    check_not_given_up(buffer);
    check_host_accessible(buffer);
    return describe_bytes(buffer);
  });
}

PyObject* get_cuda_interface(PyObject* self, void* /*closure*/) {
  return guarded([&]() -> py::object {
    BufferObject& buffer = buffer_object(self);
    check_not_given_up(buffer);
    const Device& device = memory_of(buffer).pool().device();
    if (!is_cuda(device)) {
      throw py::attribute_error("memory of device '" + device.name() +
                                "' has no __cuda_array_interface__: only that of a GPU has; use numpy.asarray(buffer)");
    }
    py::dict interface = describe_bytes(buffer);
    if (buffer.nbytes == 0) {
      interface["data"] = py::make_tuple(0, false);
    }
    const StreamHandle stream = stream_to_follow(buffer);
    interface["stream"] = stream == kDefaultStream ? kLegacyStream : stream;  // 0 is forbidden there
    return interface;
  });
}

}  // namespace tierpool::bindings
