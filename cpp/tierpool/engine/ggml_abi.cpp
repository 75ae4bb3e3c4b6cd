#include "tierpool/engine/ggml_abi.hpp"

#include <string>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::int64_t kColumns = 7;
constexpr std::int64_t kRows = 5;
constexpr std::size_t kRowBytes = kColumns * sizeof(float);
constexpr std::int32_t kF32 = 0;
constexpr std::size_t kViewOffset = kRowBytes + 2 * sizeof(float);

class Context {
 public:
  explicit Context(const GgmlFunctions& functions)
      : functions_(functions), context_(functions.init({64 * kKiB, nullptr, false})) {
    if (context_ == nullptr) {
      throw Error("The llama.cpp library cannot make a context to check its tensors with");
    }
  }
  ~Context() { functions_.free(context_); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  [[nodiscard]] void* get() const noexcept { return context_; }

 private:
  const GgmlFunctions& functions_;
  void* const context_;
};

void require(bool holds, const char* field) {
  if (!holds) {
    throw Error(std::string("The tensors of this llama.cpp are not laid out as expected (") + field +
                "): install a version of llama-cpp-python that is supported");
  }
}

void check_shape(const GgmlTensor& tensor) {
  require(tensor.ne == std::array<std::int64_t, kGgmlDimensions>{kColumns, kRows, 1, 1}, "ne");
  require(tensor.nb ==
              std::array<std::size_t, kGgmlDimensions>{sizeof(float), kRowBytes, kRows * kRowBytes, kRows * kRowBytes},
          "nb");
}

void check_view(const GgmlTensor& view, GgmlTensor* source) {
  require(view.view_src == source, "view_src");
  require(view.view_offs == kViewOffset, "view_offs");
  require(view.data == static_cast<char*>(source->data) + kViewOffset, "data of a view");
  require(view.ne[0] == 3 && view.ne[1] == 2 && view.nb[1] == kRowBytes, "ne and nb of a view");
  require(view.src[0] == source, "src of a view");
}

}  // namespace

void require_known_layout(const GgmlFunctions& functions) {
  const Context context(functions);
  GgmlTensor* left = functions.new_tensor_2d(context.get(), kF32, kColumns, kRows);
  GgmlTensor* right = functions.new_tensor_2d(context.get(), kGgmlI32, kColumns, kRows);
  require(left != nullptr && right != nullptr, "no tensor");
  require(left->type == kF32 && right->type == kGgmlI32, "type");
  check_shape(*left);
  check_shape(*right);
  require(left->data != nullptr && left->data == functions.get_data(left) && left->data != right->data, "data");
  functions.set_name(left, "a-17");
  require(functions.get_name(left) == left->name.data() && std::string(left->name.data()) == "a-17", "name");
  require(left->src[0] == nullptr && left->view_src == nullptr, "src");
  check_view(*functions.view_2d(context.get(), left, 3, 2, kRowBytes, kViewOffset), left);
  GgmlTensor* other = functions.new_tensor_2d(context.get(), kF32, kColumns, kRows);
  const GgmlTensor* product = functions.mul_mat(context.get(), left, other);
  require(product->src[0] == left && product->src[1] == other && product->src[2] == nullptr, "src of a product");
  require(product->op != left->op, "op");
}

}  // namespace tierpool
