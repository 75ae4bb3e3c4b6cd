#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "item_type.hpp"

namespace tierpool::bindings {

/// What memory shows itself as: items in C order. Empty fields are the defaults, which cost nothing. Guarded by the
/// GIL.
struct ArrayLayout {
  ItemTypePointer items;  ///< null: uint8
  py::object shape;       ///< a tuple of int; null: one dimension over the whole memory

  [[nodiscard]] bool is_default() const noexcept { return items == nullptr && !shape; }
  [[nodiscard]] const ItemType& item_type() const { return items == nullptr ? *byte_type() : *items; }
};

/// From arguments of Python; null or None are the defaults. Throws TypeError, and ValueError unless the items fill the
/// memory exactly.
[[nodiscard]] ArrayLayout parse_layout(std::uint64_t nbytes, PyObject* dtype, PyObject* shape);

/// The lengths of the axes.
[[nodiscard]] std::vector<std::int64_t> extents_of(const ArrayLayout& layout, std::uint64_t nbytes);
/// The same as a tuple.
[[nodiscard]] py::object shape_of(const ArrayLayout& layout, std::uint64_t nbytes);
/// For messages: "float32 (4, 8)".
[[nodiscard]] std::string describe(const ArrayLayout& layout, std::uint64_t nbytes);

}  // namespace tierpool::bindings
