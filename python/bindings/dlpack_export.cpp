#include "dlpack_export.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "tierpool/base/address.hpp"

namespace tierpool::bindings {
namespace {

// The structs of the DLPack standard, version 1.0 (https://dmlc.github.io/dlpack/latest/c_api.html), field by field.
struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};
struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

constexpr std::int32_t kDLCPU = 1;
constexpr std::uint8_t kDLUInt = 1;

template <typename Managed>
constexpr const char* kCapsuleName = nullptr;
template <>
constexpr const char* kCapsuleName<DLManagedTensor> = "dltensor";
template <>
constexpr const char* kCapsuleName<DLManagedTensorVersioned> = "dltensor_versioned";

/// One export: the struct a consumer gets, its shape, and a share in the memory.
template <typename Managed>
struct Export {
  Managed managed{};
  std::int64_t shape = 0;
  std::int64_t stride = 1;
  SharedBuffer* owner = nullptr;
};

template <typename Managed>
void end_export(Managed* managed) {
  auto* ended = static_cast<Export<Managed>*>(managed->manager_ctx);
  ended->owner->remove_owner();
  delete ended;
}

// A consumer renames the capsule; one that still has its first name was never consumed.
template <typename Managed>
void destroy_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kCapsuleName<Managed>) != 0) {
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kCapsuleName<Managed>));
    managed->deleter(managed);
  }
}

template <typename Managed>
py::object make_capsule(BufferObject& buffer) {
  auto created = std::make_unique<Export<Managed>>();
  created->shape = static_cast<std::int64_t>(buffer.nbytes);
  DLTensor& tensor = created->managed.dl_tensor;
  tensor.data = buffer.nbytes == 0 ? nullptr : pointer_at(buffer.address);
  tensor.device = {kDLCPU, 0};
  tensor.ndim = 1;
  tensor.dtype = {kDLUInt, 8, 1};
  tensor.shape = &created->shape;
  tensor.strides = &created->stride;
  if (buffer.shared == nullptr) {
    buffer.shared = new SharedBuffer(std::move(buffer.memory));
  }
  created->owner = buffer.shared;
  created->managed.manager_ctx = created.get();
  created->managed.deleter = end_export<Managed>;
  if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>) {
    created->managed.version = {1, 0};
  }
  auto capsule = py::reinterpret_steal<py::object>(
      PyCapsule_New(&created->managed, kCapsuleName<Managed>, destroy_capsule<Managed>));
  if (!capsule) {
    throw py::error_already_set();
  }
  created.release()->owner->add_owner();  // the capsule's now
  return capsule;
}

bool reads_versioned(py::handle max_version) {
  if (max_version.is_none()) {
    return false;
  }
  try {
    return py::cast<std::pair<int, int>>(max_version).first >= 1;
  } catch (const py::cast_error&) {
    throw py::type_error("max_version must be None or a pair (major, minor), got " +
                         py::cast<std::string>(py::repr(max_version)));
  }
}

}  // namespace

py::object export_dlpack(BufferObject& buffer, py::handle stream, py::handle max_version, py::handle dl_device,
                         py::handle copy) {
  const bool versioned = reads_versioned(max_version);
  if (!stream.is_none()) {
    throw py::buffer_error("a host buffer has no stream: call __dlpack__(stream=None)");
  }
  if (!dl_device.is_none() && !dl_device.equal(py::make_tuple(kDLCPU, 0))) {
    throw py::buffer_error("the buffer lives on device (1, 0), the processor, and cannot be exported to " +
                           py::cast<std::string>(py::repr(dl_device)) + "; copy it there after the import");
  }
  if (py::bool_(py::reinterpret_borrow<py::object>(copy))) {
    throw py::buffer_error("tierpool exports without a copy: copy after the import, or pass copy=None");
  }
  check_not_given_up(buffer);  // not earlier: comparing the arguments may run code that releases the buffer
  check_host_accessible(buffer);
  return versioned ? make_capsule<DLManagedTensorVersioned>(buffer) : make_capsule<DLManagedTensor>(buffer);
}

py::tuple dlpack_device(const BufferObject& buffer) {
  check_not_given_up(buffer);
  check_host_accessible(buffer);
  return py::make_tuple(kDLCPU, 0);
}

}  // namespace tierpool::bindings
