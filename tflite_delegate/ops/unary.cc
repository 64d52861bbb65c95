// Activations that stand alone: functions of one number, the same everywhere or with a slope a channel.
#include <algorithm>
#include <memory>
#include <string>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/kernels/elementwise.h"
#include "tflite_delegate/ops/image.h"
#include "tflite_delegate/ops/node.h"
#include "tflite_delegate/ops/unary.h"

namespace block_sparse {
namespace ops {

namespace {

// Numbers of an interleaved value that one task handles.
constexpr int64_t kTask = 1 << 14;

class UnaryOp : public graph::Op {
 public:
  UnaryOp(kernels::Unary kind, int input, int op_output, float p, float q)
      : Op({input}, op_output), kind_(kind), p_(p), q_(q) {}

  const char* name() const override {
    constexpr const char* kNames[kernels::kUnaryCount] = {"clamp",      "leaky_relu", "elu",
                                                          "hard_swish", "logistic",   "tanh"};
    return kNames[kind_];
  }
  void Constrain(graph::Planner* planner) override { planner->SamePlanes(inputs[0], output); }
  int InPlaceInput() const override { return 0; }
  bool IsClamp(float* low, float* high) const override {
    *low = p_;
    *high = q_;
    return kind_ == kernels::kClamp;
  }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int) override {
    const graph::Value& value = graph.value(output);
    kernel_ = kernels.elementwise.unary[kind_];
    planar_ = value.layout == graph::Layout::kPlanar;
    if (planar_) image_ = Image(value);
    count_ = graph::Count(value.dims);
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    const float* x = context.data[inputs[0]];
    float* y = context.data[output];
    if (!planar_) {
      context.pool->For(static_cast<int>((count_ + kTask - 1) / kTask), [&](int task) {
        const int64_t first = task * kTask;
        kernel_(x + first, y + first, std::min(kTask, count_ - first), p_, q_);
      });
      return;
    }
    const int32_t run = image_.Run();
    ForEachPlane(context.pool, image_.batch, image_.channels, run, [&](int32_t n, int32_t first, int32_t count) {
      for (int32_t c = first; c < first + count; c++) {
        kernel_(x + image_.Plane(n, c), y + image_.Plane(n, c), run, p_, q_);
      }
    });
  }

 private:
  kernels::Unary kind_;
  float p_, q_;
  kernels::UnaryKernel kernel_ = nullptr;
  bool planar_ = false;
  Image image_;
  int64_t count_ = 0;
};

class PreluOp : public graph::Op {
 public:
  // One slope a channel, or one for all.
  PreluOp(int input, int op_output, const float* slopes, bool per_channel)
      : Op({input}, op_output), slopes_(slopes), per_channel_(per_channel) {}
  const char* name() const override { return "prelu"; }
  void Constrain(graph::Planner* planner) override { planner->SamePlanes(inputs[0], output); }
  int InPlaceInput() const override { return 0; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int) override {
    const graph::Value& value = graph.value(output);
    kernels_ = &kernels.elementwise;
    planar_ = value.layout == graph::Layout::kPlanar;
    if (planar_) image_ = Image(value);
    channels_ = per_channel_ ? value.dims.back() : 1;
    count_ = graph::Count(value.dims);
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    const float* x = context.data[inputs[0]];
    float* y = context.data[output];
    const kernels::UnaryKernel leaky = kernels_->unary[kernels::kLeakyRelu];
    if (planar_) {
      const int32_t run = image_.Run();
      ForEachPlane(context.pool, image_.batch, image_.channels, run, [&](int32_t n, int32_t first, int32_t count) {
        for (int32_t c = first; c < first + count; c++) {
          leaky(x + image_.Plane(n, c), y + image_.Plane(n, c), run, slopes_[per_channel_ ? c : 0], 0.0f);
        }
      });
      return;
    }
    const int64_t step = std::max<int64_t>(1, kTask / channels_) * channels_;  // whole pixels
    context.pool->For(static_cast<int>((count_ + step - 1) / step), [&](int task) {
      const int64_t first = task * step, last = std::min(count_, first + step);
      if (!per_channel_) {
        leaky(x + first, y + first, last - first, slopes_[0], 0.0f);
        return;
      }
      for (int64_t i = first; i < last; i += channels_) kernels_->prelu(x + i, slopes_, y + i, channels_);
    });
  }

 private:
  const float* slopes_;
  bool per_channel_;
  const kernels::ElementwiseKernels* kernels_ = nullptr;
  bool planar_ = false;
  Image image_;
  int64_t channels_ = 1, count_ = 0;
};

}  // namespace

int AddUnary(graph::Graph* graph, kernels::Unary kind, int input, float p, float q) {
  const graph::Value& value = graph->value(input);
  const int output = graph->AddValue(graph::Dims(value.dims), value.layout == graph::Layout::kInterleaved);
  graph->AddOp(std::make_unique<UnaryOp>(kind, input, output, p, q));
  return output;
}

int AddPrelu(graph::Graph* graph, int input, const float* slopes, bool per_channel) {
  const graph::Value& value = graph->value(input);
  const int output = graph->AddValue(graph::Dims(value.dims), value.layout == graph::Layout::kInterleaved);
  graph->AddOp(std::make_unique<PreluOp>(input, output, slopes, per_channel));
  return output;
}

namespace {

std::string Claim(const Node& node) {
  if (node.input_count() != 1) return "it does not have one input";
  const std::string reason = CheckFloat(node.input(0), "the input");
  return reason.empty() ? CheckFloat(node.output(0), "the output") : reason;
}

template <kernels::Unary kKind>
std::string Build(const Node& node, Builder* builder) {
  builder->SetOutput(node, AddUnary(&builder->graph(), kKind, builder->Input(node, 0), 0.0f, 0.0f));
  return "";
}

template <TfLiteFusedActivation kActivation>
std::string BuildClamp(const Node& node, Builder* builder) {
  float low, high;
  ActivationBounds(kActivation, &low, &high);
  builder->SetOutput(node, AddUnary(&builder->graph(), kernels::kClamp, builder->Input(node, 0), low, high));
  return "";
}

std::string ClaimLeakyRelu(const Node& node) {
  return node.params<TfLiteLeakyReluParams>() == nullptr ? "it has no parameters" : Claim(node);
}

std::string BuildLeakyRelu(const Node& node, Builder* builder) {
  const float slope = node.params<TfLiteLeakyReluParams>()->alpha;
  builder->SetOutput(node, AddUnary(&builder->graph(), kernels::kLeakyRelu, builder->Input(node, 0), slope, 0.0f));
  return "";
}

// Slopes that differ from pixel to pixel are left to the runtime.
bool SlopesPerChannel(const graph::Dims& input, const graph::Dims& slopes, bool* per_channel) {
  const int64_t count = graph::Count(slopes);
  *per_channel = count > 1;
  return count == 1 || (!slopes.empty() && !input.empty() && slopes.back() == input.back() && count == slopes.back());
}

std::string ClaimPrelu(const Node& node) {
  if (node.input_count() != 2) return "it does not have two inputs";
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckConstant(node.input(1), "the slopes");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  bool per_channel;
  if (reason.empty() && !SlopesPerChannel(DimsOf(node.input(0)), DimsOf(node.input(1)), &per_channel)) {
    reason = "its slopes are neither one nor one a channel";
  }
  return reason;
}

std::string BuildPrelu(const Node& node, Builder* builder) {
  const int input = builder->Input(node, 0);
  bool per_channel;
  if (!SlopesPerChannel(builder->value(input).dims, DimsOf(node.input(1)), &per_channel)) {
    return "PRELU: the slopes are neither one nor one a channel";
  }
  builder->SetOutput(node, AddPrelu(&builder->graph(), input, Floats(node.input(1)), per_channel));
  return "";
}

}  // namespace

extern const OpRegistration kRelu, kRelu6, kReluN1To1, kLeakyRelu, kPrelu, kElu, kHardSwish, kLogistic, kTanh;
constexpr OpRegistration kRelu = {kTfLiteBuiltinRelu, nullptr, Claim, BuildClamp<kTfLiteActRelu>};
constexpr OpRegistration kRelu6 = {kTfLiteBuiltinRelu6, nullptr, Claim, BuildClamp<kTfLiteActRelu6>};
constexpr OpRegistration kReluN1To1 = {kTfLiteBuiltinReluN1To1, nullptr, Claim, BuildClamp<kTfLiteActReluN1To1>};
constexpr OpRegistration kLeakyRelu = {kTfLiteBuiltinLeakyRelu, nullptr, ClaimLeakyRelu, BuildLeakyRelu};
constexpr OpRegistration kPrelu = {kTfLiteBuiltinPrelu, nullptr, ClaimPrelu, BuildPrelu};
constexpr OpRegistration kElu = {kTfLiteBuiltinElu, nullptr, Claim, Build<kernels::kElu>};
constexpr OpRegistration kHardSwish = {kTfLiteBuiltinHardSwish, nullptr, Claim, Build<kernels::kHardSwish>};
constexpr OpRegistration kLogistic = {kTfLiteBuiltinLogistic, nullptr, Claim, Build<kernels::kLogistic>};
constexpr OpRegistration kTanh = {kTfLiteBuiltinTanh, nullptr, Claim, Build<kernels::kTanh>};

}  // namespace ops
}  // namespace block_sparse
