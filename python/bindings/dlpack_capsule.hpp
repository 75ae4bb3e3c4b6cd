#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bindings.hpp"

namespace tierpool::bindings {

/// DLPack's name for an item type: its kind of number and bits.
struct DlpackType {
  std::uint8_t code = 0;
  std::uint8_t bits = 0;  ///< 0: DLPack has no name for it
};

inline constexpr DlpackType kDlpackBytes = {1, 8};

/// What a capsule shows: contiguous memory that the processor can reach.
struct DlpackTensor {
  std::uint64_t address = 0;
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

/// Whether the consumer reads versioned capsules. Throws BufferError for a stream, a device or a copy that memory of
/// the processor cannot offer. Comparing the arguments may run foreign code.
[[nodiscard]] bool check_dlpack_arguments(const DlpackArguments& arguments);

/// A capsule that keeps `share` until its consumer is done: on any thread, maybe without the GIL, maybe after Python.
[[nodiscard]] py::object make_dlpack_capsule(bool versioned, const DlpackTensor& tensor,
                                             const std::shared_ptr<void>& share);

/// (kDLCPU, 0).
[[nodiscard]] py::tuple dlpack_host_device();

}  // namespace tierpool::bindings
