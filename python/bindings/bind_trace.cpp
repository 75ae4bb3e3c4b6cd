#include <pybind11/numpy.h>

#include <memory>
#include <span>
#include <string>

#include "bindings.hpp"
#include "gil.hpp"
#include "python_log_sink.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/trace/trace.hpp"
#include "tierpool/trace/trace_fit.hpp"
#include "tierpool/trace/trace_replay.hpp"

namespace tierpool::bindings {
namespace {

// Without forcecast: an array of another type is a TypeError, not a silent conversion.
template <typename Value>
using Column = py::array_t<Value, py::array::c_style>;

template <typename Value>
std::span<const Value> view(const Column<Value>& column) {
  return {column.data(), static_cast<std::size_t>(column.size())};
}

Trace make_trace(const Column<std::uint8_t>& ops, const Column<std::uint64_t>& ids, const Column<std::uint64_t>& bytes,
                 std::uint64_t first_line) {
  const auto op_view = view(ops);
  const auto id_view = view(ids);
  const auto byte_view = view(bytes);
  const WithoutGil without_gil;
  return Trace(op_view, id_view, byte_view, first_line);
}

}  // namespace

void bind_trace(py::module_& module) {
  using Unlocked = py::call_guard<LogDelivery, WithoutGil>;
  py::class_<Trace>(module, "Trace", "The allocations and frees of a recorded program, known to be consistent.")
      .def(py::init(&make_trace), py::arg("ops"), py::arg("ids"), py::arg("bytes"), py::arg("first_line"),
           "ops: the characters 'a' and 'f'; event i stands in line first_line + i of its file.")
      .def_property_readonly("event_count", &Trace::event_count, "Allocations and frees.")
      .def_property_readonly("allocation_count", &Trace::allocation_count, "Allocations.")
      .def_property_readonly("peak_live_bytes", &Trace::peak_live_bytes, "The most requested bytes live at once.");
  module.def(
      "replay",
      [](const Trace& trace, const std::shared_ptr<MemoryPool>& pool, bool write) {
        return static_cast<double>(replay(trace, *pool, write));
      },
      py::arg("trace"), py::arg("pool").none(false), py::arg("write") = false, Unlocked(),
      "Runs a trace against a pool; nanoseconds in all.");
  module.def(
      "replay_direct",
      [](const Trace& trace, const std::string& device, bool write) {
        return static_cast<double>(replay_direct(trace, *make_device(device), write));
      },
      py::arg("trace"), py::arg("device"), py::arg("write") = false, Unlocked(),
      "Runs a trace against a device's own allocation; nanoseconds in all.");
  module.def(
      "replay_malloc", [](const Trace& trace, bool write) { return static_cast<double>(replay_malloc(trace, write)); },
      py::arg("trace"), py::arg("write") = false, Unlocked(),
      "Runs a trace against the C library's malloc; nanoseconds in all.");
  module.def(
      "fit",
      [](const Trace& trace, const std::string& placement) {
        return fit_capacity_bytes(trace, parse_placement(placement));
      },
      py::arg("trace"), py::arg("placement"), Unlocked(),
      "The smallest capacity in bytes of one heap that serves a trace in full.");
}

}  // namespace tierpool::bindings
