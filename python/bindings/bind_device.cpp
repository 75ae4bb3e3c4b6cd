#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/pool/heap_selection.hpp"

namespace tierpool::bindings {

void bind_device(py::module_& module) {
  module.def("device_names", &device_names, "Names of the devices a pool can be built on here.");
  module.def("strategy_names", &strategy_names, "Names of the strategies that pick a heap.");
  module.def("placement_names", &placement_names, "Names of the placements that pick a block inside a heap.");
}

}  // namespace tierpool::bindings
