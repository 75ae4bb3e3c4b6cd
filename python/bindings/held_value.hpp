#pragma once

#include <typeinfo>

#include "bindings.hpp"

namespace tierpool::bindings {

/// Where pybind11 keeps the T of an instance, found without a cast's lookups. `self` must be an instance of T's class,
/// which a slot or a method descriptor has checked; before `__init__` no holder is constructed.
template <typename T>
[[nodiscard]] py::detail::value_and_holder held_value(PyObject* self) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  if (instance->simple_layout) {
    return {instance, nullptr, 0, 0};
  }
  return instance->get_value_and_holder(py::detail::get_type_info(typeid(T)));  // has several C++ bases
}

}  // namespace tierpool::bindings
