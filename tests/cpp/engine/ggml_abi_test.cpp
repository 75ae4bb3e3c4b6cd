#include "tierpool/engine/ggml_abi.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <list>
#include <string>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

/// A library whose tensors are laid out as expected, until a change is made to each.
struct FakeLibrary {
  static inline std::list<GgmlTensor> tensors;
  static inline std::list<std::vector<char>> data;
  static inline int open_contexts = 0;
  static inline std::function<void(GgmlTensor&)> change;

  static GgmlTensor* changed(GgmlTensor& tensor) {
    if (change) {
      change(tensor);
    }
    return &tensor;
  }
  static void* init(GgmlInitParams params) {
    ++open_contexts;
    return params.mem_size > 0 && !params.no_alloc ? &tensors : nullptr;
  }
  static void free(void*) {
    --open_contexts;
    tensors.clear();
    data.clear();
  }
  static GgmlTensor* new_tensor_2d(void*, std::int32_t type, std::int64_t ne0, std::int64_t ne1) {
    GgmlTensor& tensor = tensors.emplace_back();
    const auto row = static_cast<std::size_t>(ne0) * 4;
    const std::size_t size = row * static_cast<std::size_t>(ne1);
    tensor.type = type;
    tensor.ne = {ne0, ne1, 1, 1};
    tensor.nb = {4, row, size, size};
    tensor.data = data.emplace_back(size).data();
    return changed(tensor);
  }
  static GgmlTensor* view_2d(void*, GgmlTensor* source, std::int64_t ne0, std::int64_t ne1, std::size_t nb1,
                             std::size_t offset) {
    GgmlTensor& tensor = tensors.emplace_back();
    tensor.ne = {ne0, ne1, 1, 1};
    tensor.nb = {4, nb1, 0, 0};
    tensor.src[0] = tensor.view_src = source;
    tensor.view_offs = offset;
    tensor.data = static_cast<char*>(source->data) + offset;
    return changed(tensor);
  }
  static GgmlTensor* mul_mat(void*, GgmlTensor* left, GgmlTensor* right) {
    GgmlTensor& tensor = tensors.emplace_back();
    tensor.op = 29;
    tensor.src[0] = left;
    tensor.src[1] = right;
    return changed(tensor);
  }
  static GgmlTensor* set_name(GgmlTensor* tensor, const char* name) {
    std::snprintf(tensor->name.data(), tensor->name.size(), "%s", name);
    return tensor;
  }
  static const char* get_name(const GgmlTensor* tensor) { return tensor->name.data(); }
  static void* get_data(const GgmlTensor* tensor) { return tensor->data; }

  static GgmlFunctions functions() {
    return {&init, &free, &new_tensor_2d, &view_2d, &mul_mat, &set_name, &get_name, &get_data};
  }
};

class GgmlAbi : public ::testing::Test {
 protected:
  ~GgmlAbi() override {
    EXPECT_EQ(FakeLibrary::open_contexts, 0);
    FakeLibrary::change = nullptr;
  }
  static void expect_refused(const std::function<void(GgmlTensor&)>& change, const std::string& field) {
    FakeLibrary::change = change;
    try {
      require_known_layout(FakeLibrary::functions());
      FAIL() << field;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("(" + field), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("llama-cpp-python"), std::string::npos);
    }
  }
};

TEST_F(GgmlAbi, TheExpectedLayoutIsAccepted) { EXPECT_NO_THROW(require_known_layout(FakeLibrary::functions())); }

TEST_F(GgmlAbi, EveryFieldThatIsElsewhereIsNoticed) {
  expect_refused([](GgmlTensor& tensor) { tensor.type += 1; }, "type");
  expect_refused([](GgmlTensor& tensor) { tensor.ne[1] += 1; }, "ne");
  expect_refused([](GgmlTensor& tensor) { tensor.nb[1] += 1; }, "nb");
  expect_refused([](GgmlTensor& tensor) { tensor.src[0] = &tensor; }, "src");
  expect_refused([](GgmlTensor& tensor) { tensor.view_src = nullptr; }, "view_src");
  expect_refused([](GgmlTensor& tensor) { tensor.view_offs = 1; }, "view_offs");
  expect_refused([](GgmlTensor& tensor) { tensor.data = tensor.view_src == nullptr ? tensor.data : nullptr; }, "data");
  expect_refused([](GgmlTensor& tensor) { tensor.data = nullptr; }, "data");
  expect_refused([](GgmlTensor& tensor) { tensor.op = 0; }, "op");
}

TEST_F(GgmlAbi, ANameThatIsElsewhereIsNoticed) {
  GgmlFunctions functions = FakeLibrary::functions();
  functions.get_name = [](const GgmlTensor* tensor) -> const char* { return tensor->name.data() + 1; };
  EXPECT_THROW(require_known_layout(functions), Error);
}

}  // namespace
}  // namespace tierpool
