#pragma once

#include <memory>
#include <string>

#include "bindings.hpp"
#include "dlpack_capsule.hpp"

namespace tierpool::bindings {

/// What views of memory need to know of a NumPy dtype. Guarded by the GIL.
struct ItemType {
  py::object dtype;
  Py_ssize_t item_bytes = 0;
  std::string name;    ///< as str(dtype) has it
  std::string format;  ///< of the buffer protocol, which has none for dates and the like: then empty
  DlpackType dlpack;   ///< no bits: DLPack has no name for it
};

using ItemTypePointer = std::shared_ptr<const ItemType>;

/// Of anything that numpy.dtype() takes; None is uint8. The ones used last are kept. Throws TypeError for objects and
/// what is no dtype, ValueError for one without a size or with a shape of its own.
[[nodiscard]] ItemTypePointer find_item_type(PyObject* dtype);

/// uint8, found without a look at any argument.
[[nodiscard]] const ItemTypePointer& byte_type();

}  // namespace tierpool::bindings
