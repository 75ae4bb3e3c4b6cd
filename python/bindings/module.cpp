#include "bindings.hpp"
#include "python_log_sink.hpp"

namespace tierpool::bindings {

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled core of tierpool. Use the names of the package, not this module.";
  module.attr("__version__") = TIERPOOL_VERSION;
  install_python_log_sink();
  // In dependency order, so that signatures show Python names.
  bind_errors(module);
  bind_device(module);
  bind_statistics(module);
  bind_buffer(module);
  bind_batch(module);
  bind_pool(module);
  bind_lease(module);
  bind_lease_batch(module);
  bind_arena_statistics(module);
  bind_arena(module);
  bind_numpy_handler(module);
  bind_trace(module);
  bind_engine(module);
  bind_torch_allocator(module);
}

}  // namespace tierpool::bindings
