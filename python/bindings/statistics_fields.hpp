#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "bindings.hpp"

namespace tierpool::bindings {

/// One field of a statistics type: a property, an entry of to_dict() and a part of the repr.
template <typename Statistics>
struct Field {
  const char* name;
  py::object (*read)(const Statistics&);
  const char* doc;
};

/// Statistics inside statistics become dicts too.
inline py::object plain(const py::object& value) {
  if (!py::isinstance<py::list>(value)) {
    return value;
  }
  py::list items;
  for (const py::handle item : value) {
    items.append(item.attr("to_dict")());
  }
  return items;
}

template <typename Statistics>
[[nodiscard]] py::dict to_dict(std::span<const Field<Statistics>> fields, const Statistics& statistics) {
  py::dict all;
  for (const auto& field : fields) {
    all[field.name] = plain(field.read(statistics));
  }
  return all;
}

/// `fields` lives as long as the type.
template <typename Statistics, std::size_t count>
void add_fields(py::class_<Statistics>& type, const Field<Statistics> (&fields)[count]) {
  for (const auto& field : fields) {
    type.def_property_readonly(field.name, field.read, field.doc);
  }
  type.def(
      "to_dict", [&fields](const Statistics& self) { return to_dict<Statistics>(fields, self); },
      "Every field by its name.");
  type.def("__repr__", [&fields, name = py::cast<std::string>(type.attr("__name__"))](const Statistics& self) {
    std::string text = name;
    const char* separator = "(";
    for (const auto& field : fields) {
      text.append(separator).append(field.name).append("=");
      text += py::cast<std::string>(py::repr(field.read(self)));
      separator = ", ";
    }
    return text + ")";
  });
}

}  // namespace tierpool::bindings

/// A Field whose value is an expression over `s`, the statistics.
#define TIERPOOL_FIELD(statistics, name, value, doc)                             \
  Field<statistics> {                                                            \
    name, [](const statistics& s) -> py::object { return py::cast(value); }, doc \
  }
