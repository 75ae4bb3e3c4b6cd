#pragma once

#include <memory>
#include <stdexcept>
#include <string>
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

/// The pool, by the pointer that holds it, that an instance of a Python class is. Null before `__init__` has built it.
template <typename T>
[[nodiscard]] const std::shared_ptr<T>* find_pool(PyObject* self) {
  const auto held = held_value<T>(self);
  return held.holder_constructed() ? &held.template holder<std::shared_ptr<T>>() : nullptr;
}

/// The same, for what needs one. Throws RuntimeError.
template <typename T>
[[nodiscard]] const std::shared_ptr<T>& require_pool(PyObject* self) {
  const std::shared_ptr<T>* pool = find_pool<T>(self);
  if (pool == nullptr) {
    throw std::runtime_error(std::string("this ") + Py_TYPE(self)->tp_name +
                             " was not built: call super().__init__() before its methods");
  }
  return *pool;
}

}  // namespace tierpool::bindings
