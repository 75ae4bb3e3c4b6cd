#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings.hpp"
#include "gil.hpp"
#include "tierpool/device/cuda_driver.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/pool/heap_selection.hpp"

namespace tierpool::bindings {
namespace {

// Starting the driver can take seconds.
CudaDriver& cuda_driver() {
  const WithoutGil without_gil;
  return CudaDriver::instance();
}

}  // namespace

void bind_device(py::module_& module) {
  module.def("device_names", &device_names, "Kinds of devices a pool can be built on, where the machine has them.");
  module.def(
      "cuda_unavailable_reason", [] { return cuda_driver().unavailable_reason(); },
      "Why CUDA cannot be used; empty when it can. Starts the driver.");
  module.def(
      "cuda_device_count", [] { return cuda_driver().device_count(); }, "CUDA devices of this machine.");
  module.def(
      "cuda_device_name", [](int index) { return cuda_driver().device_name(index); }, py::arg("index"),
      "What its maker calls a CUDA device.");
  module.def(
      "cuda_driver_version", [] { return cuda_driver().version(); },
      "1000 x major + 10 x minor of the CUDA version the driver knows; 0 without a driver.");
  module.def("strategy_names", &strategy_names, "Names of the strategies that pick a heap.");
  module.def("placement_names", &placement_names, "Names of the placements that pick a block inside a heap.");
}

}  // namespace tierpool::bindings
