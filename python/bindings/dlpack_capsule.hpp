#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "bindings.hpp"
#include "tierpool/device/device.hpp"

namespace tierpool::bindings {

/// DLPack's name for an item type: its kind of number and bits.
struct DlpackType {
  std::uint8_t code = 0;
  std::uint8_t bits = 0;  ///< 0: DLPack has no name for it
};

inline constexpr DlpackType kDlpackBytes = {1, 8};

/// DLPack's name for where memory lives. Pinned memory counts as the processor's: some consumers refuse its own name,
/// and those that can use it ask the driver by address.
struct DlpackPlace {
  std::int32_t type = 1;  ///< kDLCPU
  std::int32_t index = 0;

  [[nodiscard]] bool is_host() const noexcept { return type == 1; }
  [[nodiscard]] py::tuple as_tuple() const { return py::make_tuple(type, index); }
};

/// Whether the memory is a CUDA device's own.
[[nodiscard]] bool is_cuda(const Device& device) noexcept;
/// Throws BufferError for memory that DLPack has no name for.
[[nodiscard]] DlpackPlace dlpack_place(const Device& device);

/// What a capsule shows: contiguous memory.
struct DlpackTensor {
  std::uint64_t address = 0;
  DlpackPlace place;
  DlpackType type = kDlpackBytes;
  std::vector<std::int64_t> shape;
};

/// The keywords of `__dlpack__`, borrowed.
struct DlpackArguments {
  PyObject* stream = Py_None;
  PyObject* max_version = Py_None;
  PyObject* dl_device = Py_None;
  PyObject* copy = Py_None;
};

/// Throws TypeError.
[[nodiscard]] DlpackArguments parse_dlpack_arguments(PyObject* arguments, PyObject* keywords);

/// What a consumer asked for.
struct DlpackRequest {
  bool versioned = false;              ///< it reads versioned capsules
  std::optional<StreamHandle> stream;  ///< on which the data has to be ready; nothing: it sees to that itself
};

/// Throws BufferError for a stream, a device or a copy that memory of that place cannot offer, TypeError for what is
/// none. Comparing the arguments may run foreign code.
[[nodiscard]] DlpackRequest check_dlpack_arguments(const DlpackArguments& arguments, const DlpackPlace& place);

/// A capsule that keeps `share` until its consumer is done: on any thread, maybe without the GIL, maybe after Python.
[[nodiscard]] py::object make_dlpack_capsule(bool versioned, const DlpackTensor& tensor,
                                             const std::shared_ptr<void>& share);
}  // namespace tierpool::bindings
