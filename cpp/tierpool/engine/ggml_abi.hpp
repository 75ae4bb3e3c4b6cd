#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tierpool {

inline constexpr std::size_t kGgmlDimensions = 4;
inline constexpr std::size_t kGgmlSources = 10;
inline constexpr std::size_t kGgmlNameBytes = 64;
/// ggml's number for 32-bit integers.
inline constexpr std::int32_t kGgmlI32 = 26;

/// The front of ggml's tensor, as far as it is read here; nothing is ever written to one. What the library really uses
/// is compared with it by require_known_layout() before the first is looked at.
struct GgmlTensor {
  std::int32_t type;
  void* buffer;
  std::array<std::int64_t, kGgmlDimensions> ne;  ///< elements by dimension
  std::array<std::size_t, kGgmlDimensions> nb;   ///< bytes from one element to the next by dimension
  std::int32_t op;
  std::array<std::int32_t, 16> op_params;
  std::int32_t flags;
  std::array<GgmlTensor*, kGgmlSources> src;
  GgmlTensor* view_src;
  std::size_t view_offs;
  void* data;
  std::array<char, kGgmlNameBytes> name;
};

/// ggml's parameters for a context, passed by value.
struct GgmlInitParams {
  std::size_t mem_size;
  void* mem_buffer;
  bool no_alloc;
};

/// Functions of the library that computes, under their names there less the prefix; all of them given.
struct GgmlFunctions {
  void* (*init)(GgmlInitParams);
  void (*free)(void* context);
  GgmlTensor* (*new_tensor_2d)(void* context, std::int32_t type, std::int64_t ne0, std::int64_t ne1);
  GgmlTensor* (*view_2d)(void* context, GgmlTensor* source, std::int64_t ne0, std::int64_t ne1, std::size_t nb1,
                         std::size_t offset);
  GgmlTensor* (*mul_mat)(void* context, GgmlTensor* left, GgmlTensor* right);
  GgmlTensor* (*set_name)(GgmlTensor* tensor, const char* name);
  const char* (*get_name)(const GgmlTensor* tensor);
  void* (*get_data)(const GgmlTensor* tensor);
};

/// Has the library make a few tensors and compares what it says of them with what is found in GgmlTensor.
/// Throws Error naming the first field that differs.
void require_known_layout(const GgmlFunctions& functions);

}  // namespace tierpool
