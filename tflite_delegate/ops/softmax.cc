// SOFTMAX along the last dimension.
#include <memory>
#include <string>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

class Softmax : public graph::Op {
 public:
  Softmax(int input, int output, float beta) : Op({input}, output), beta_(beta) {}
  const char* name() const override { return "softmax"; }
  int InPlaceInput() const override { return 0; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int) override {
    const graph::Dims& dims = graph.value(output).dims;
    count_ = dims.back();
    rows_ = static_cast<int32_t>(graph::Count(dims) / count_);
    kernel_ = kernels.reduce.softmax;
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    // As many rows a task as make handing it out worth while.
    const int32_t step = 1 + (1 << 12) / count_;
    context.pool->For((rows_ + step - 1) / step, [&](int task) {
      for (int32_t r = task * step; r < rows_ && r < (task + 1) * step; r++) {
        const int64_t at = static_cast<int64_t>(r) * count_;
        kernel_(context.data[inputs[0]] + at, count_, beta_, context.data[output] + at);
      }
    });
  }

 private:
  float beta_;
  int32_t rows_ = 0, count_ = 0;
  void (*kernel_)(const float*, int32_t, float, float*) = nullptr;
};

std::string Claim(const Node& node) {
  const auto* params = node.params<TfLiteSoftmaxParams>();
  if (params == nullptr) return "it has no parameters";
  if (!(params->beta >= 0.0f && params->beta < 1e6f)) return "its beta is out of range";
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  if (reason.empty() && node.input(0)->dims->size < 1) reason = "its input has no dimensions";
  return reason;
}

std::string Build(const Node& node, Builder* builder) {
  graph::Graph& graph = builder->graph();
  const int input = graph.Interleaved(builder->Input(node, 0));
  const graph::Dims dims = graph.value(input).dims;
  const int output = graph.AddValue(dims, true);
  graph.AddOp(std::make_unique<Softmax>(input, output, node.params<TfLiteSoftmaxParams>()->beta));
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kSoftmax;
constexpr OpRegistration kSoftmax = {kTfLiteBuiltinSoftmax, nullptr, Claim, Build};

}  // namespace ops
}  // namespace block_sparse
