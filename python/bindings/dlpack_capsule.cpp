#include "dlpack_capsule.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
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

constexpr std::int32_t kDLCUDA = 2;
constexpr std::string_view kCudaPrefix = "cuda:";

template <typename Managed>
constexpr const char* kCapsuleName = nullptr;
template <>
constexpr const char* kCapsuleName<DLManagedTensor> = "dltensor";
template <>
constexpr const char* kCapsuleName<DLManagedTensorVersioned> = "dltensor_versioned";

/// One export: the struct a consumer gets, its shape and strides, and a share in the memory.
template <typename Managed>
struct Export {
  Managed managed{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in items
  std::shared_ptr<void> share;
};

template <typename Managed>
void end_export(Managed* managed) {
  delete static_cast<Export<Managed>*>(managed->manager_ctx);
}

// A consumer renames the capsule; one that still has its first name was never consumed.
template <typename Managed>
void destroy_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kCapsuleName<Managed>) != 0) {
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kCapsuleName<Managed>));
    managed->deleter(managed);
  }
}

std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

bool has_items(const std::vector<std::int64_t>& shape) {
  return std::find(shape.begin(), shape.end(), 0) == shape.end();
}

template <typename Managed>
py::object make_capsule(const DlpackTensor& shown, const std::shared_ptr<void>& share) {
  auto created = std::make_unique<Export<Managed>>();
  created->shape = shown.shape;
  created->strides = contiguous_strides(shown.shape);
  created->share = share;
  DLTensor& tensor = created->managed.dl_tensor;
  tensor.data = has_items(shown.shape) ? pointer_at(shown.address) : nullptr;
  tensor.device = {shown.place.type, shown.place.index};
  tensor.ndim = static_cast<std::int32_t>(shown.shape.size());
  tensor.dtype = {shown.type.code, shown.type.bits, 1};
  tensor.shape = created->shape.data();
  tensor.strides = created->strides.data();
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
  static_cast<void>(created.release());  // the capsule's now
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

/// The consumer's stream by the standard's rules for CUDA: none and 1 are the legacy default stream, 2 the per-thread
/// one, -1 asks for no order at all, and 0 would be ambiguous.
std::optional<StreamHandle> parse_consumer_stream(py::handle stream) {
  if (stream.is_none()) {
    return kLegacyStream;
  }
  if (!PyLong_Check(stream.ptr())) {
    throw py::type_error(std::string("stream must be None or an int, got ") + Py_TYPE(stream.ptr())->tp_name);
  }
  const auto number = py::cast<std::int64_t>(stream);
  if (number == -1) {
    return std::nullopt;
  }
  if (number <= 0) {
    throw py::buffer_error("stream " + std::to_string(number) +
                           " is none of CUDA's: pass None or 1 for the legacy default stream, 2 for the per-thread "
                           "one, a stream's handle, or -1 for no synchronisation");
  }
  return static_cast<StreamHandle>(number);
}

}  // namespace

bool is_cuda(const Device& device) noexcept { return std::string_view(device.name()).starts_with(kCudaPrefix); }

DlpackPlace dlpack_place(const Device& device) {
  if (device.host_accessible()) {
    return {};
  }
  if (!is_cuda(device)) {
    throw py::buffer_error("DLPack has no name for the memory of device '" + device.name() +
                           "'; build the pool with device='host' for that");
  }
  const std::string_view number = std::string_view(device.name()).substr(kCudaPrefix.size());
  DlpackPlace place{.type = kDLCUDA, .index = 0};
  std::from_chars(number.data(), number.data() + number.size(), place.index);
  return place;
}

DlpackArguments parse_dlpack_arguments(PyObject* arguments, PyObject* keywords) {
  static const char* names[] = {"stream", "max_version", "dl_device", "copy", nullptr};
  DlpackArguments parsed;
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, "|$OOOO:__dlpack__", const_cast<char**>(names), &parsed.stream,
                                  &parsed.max_version, &parsed.dl_device, &parsed.copy) == 0) {
    throw py::error_already_set();
  }
  return parsed;
}

DlpackRequest check_dlpack_arguments(const DlpackArguments& arguments, const DlpackPlace& place) {
  DlpackRequest request{.versioned = reads_versioned(arguments.max_version), .stream = std::nullopt};
  if (!place.is_host()) {
    request.stream = parse_consumer_stream(arguments.stream);
  } else if (arguments.stream != Py_None) {
    throw py::buffer_error("a host buffer has no stream: call __dlpack__(stream=None)");
  }
  const py::handle dl_device = arguments.dl_device;
  if (!dl_device.is_none() && !dl_device.equal(place.as_tuple())) {
    throw py::buffer_error("the buffer lives on device " + py::cast<std::string>(py::repr(place.as_tuple())) +
                           (place.is_host() ? ", the processor," : "") + " and cannot be exported to " +
                           py::cast<std::string>(py::repr(dl_device)) + "; copy it there after the import");
  }
  if (py::bool_(py::reinterpret_borrow<py::object>(arguments.copy))) {
    throw py::buffer_error("tierpool exports without a copy: copy after the import, or pass copy=None");
  }
  return request;
}

py::object make_dlpack_capsule(bool versioned, const DlpackTensor& tensor, const std::shared_ptr<void>& share) {
  return versioned ? make_capsule<DLManagedTensorVersioned>(tensor, share)
                   : make_capsule<DLManagedTensor>(tensor, share);
}

}  // namespace tierpool::bindings
