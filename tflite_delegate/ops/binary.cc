#include "tflite_delegate/ops/binary.h"

#include <algorithm>
#include <memory>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

bool BroadcastDims(const graph::Dims& a, const graph::Dims& b, graph::Dims* out) {
  const size_t rank = std::max(a.size(), b.size());
  out->assign(rank, 1);
  for (size_t i = 0; i < rank; i++) {
    const int32_t of_a = i < a.size() ? a[a.size() - 1 - i] : 1, of_b = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (of_a != of_b && of_a != 1 && of_b != 1) return false;
    (*out)[rank - 1 - i] = of_a == 1 ? of_b : of_a;
  }
  return true;
}

namespace {

graph::Dims FourDims(const graph::Dims& dims) {
  graph::Dims four(4 - std::min<size_t>(4, dims.size()), 1);
  four.insert(four.end(), dims.begin(), dims.end());
  return four;
}

// Can BinaryOp read `value`, made planar if it has pixels, as an operand of a planar output?
bool FitsPlanar(const graph::Value& value, const graph::Dims& out) {
  if (value.dims.size() > 4) return false;
  const graph::Dims dims = FourDims(value.dims);
  if (dims[1] == 1 && dims[2] == 1) return true;
  if (dims[1] != out[1] || dims[2] != out[2]) return false;
  return value.constant != nullptr || value.dims.size() == 4;
}

}  // namespace

int AddBinary(graph::Graph* graph, kernels::Binary kind, int a, int b, float low, float high) {
  const graph::Value &left = graph->value(a), &right = graph->value(b);
  graph::Dims out;
  if (!BroadcastDims(left.dims, right.dims, &out)) return -1;
  const bool any_planar = left.layout == graph::Layout::kPlanar || right.layout == graph::Layout::kPlanar;
  const bool planar = any_planar && out.size() == 4 && FitsPlanar(left, out) && FitsPlanar(right, out);
  for (int* v : {&a, &b}) {
    if (!planar) {
      *v = graph->Interleaved(*v);
    } else if (graph->value(*v).constant == nullptr && graph->value(*v).dims.size() == 4) {
      *v = graph->Planar(*v);
    }
  }
  const int output = graph->AddValue(out, !planar);
  const bool full_a = graph->value(a).dims == out && graph->value(a).constant == nullptr;
  const bool full_b = graph->value(b).dims == out && graph->value(b).constant == nullptr;
  const auto is_a_channel = [&](int v) {
    const graph::Value& value = graph->value(v);
    return planar && value.constant != nullptr && graph::Count(value.dims) == FourDims(value.dims)[3];
  };
  const int a_channel = full_a && is_a_channel(b) ? 1 : full_b && is_a_channel(a) ? 0 : -1;
  graph->AddOp(std::make_unique<BinaryOp>(kind, a, b, output, full_a, full_b, a_channel, low, high));
  return output;
}

BinaryOp::BinaryOp(kernels::Binary kind, int a, int b, int op_output, bool full_a, bool full_b, int a_channel,
                   float low, float high)
    : Op({a, b}, op_output), kind_(kind), low_(low), high_(high), full_{full_a, full_b}, a_channel_(a_channel) {}

const char* BinaryOp::name() const {
  constexpr const char* kNames[kernels::kBinaryCount] = {"add", "sub", "mul", "div"};
  return kNames[kind_];
}

bool BinaryOp::IsAdd(float* low, float* high) const {
  *low = low_;
  *high = high_;
  return kind_ == kernels::kAdd && full_[0] && full_[1];
}

int BinaryOp::ShiftsInput(int* shift, float* low, float* high) const {
  if (kind_ != kernels::kAdd || a_channel_ < 0) return -1;
  *shift = inputs[a_channel_];
  *low = low_;
  *high = high_;
  return 1 - a_channel_;
}

// What a batch normalisation becomes that stands before a convolution.
bool BinaryOp::FuseShift(int shift, float low, float high) {
  constexpr float kInfinity = __builtin_huge_valf();
  if (kind_ != kernels::kMul || a_channel_ < 0 || inputs.size() > 2 || low_ != -kInfinity || high_ != kInfinity) {
    return false;
  }
  inputs.push_back(shift);
  low_ = low;
  high_ = high;
  return true;
}

bool BinaryOp::FuseClamp(float low, float high) {
  low_ = std::max(low_, low);
  high_ = std::max(low_, std::min(high_, high));
  return true;
}

void BinaryOp::Constrain(graph::Planner* planner) {
  for (int v : inputs) planner->SamePlanes(v, output);
}

int BinaryOp::InPlaceInput() const { return full_[0] ? 0 : full_[1] ? 1 : -1; }

void BinaryOp::PrepareOperand(const graph::Value& value, Operand* operand) const {
  const graph::Dims dims = FourDims(value.dims);
  const bool images = dims[0] > 1, channels = dims[3] > 1;
  if (dims[1] * static_cast<int64_t>(dims[2]) == 1) {
    operand->batch_step = images ? dims[3] : 0;
    operand->channel_step = channels ? 1 : 0;
    return;
  }
  operand->planes = true;
  if (value.layout == graph::Layout::kPlanar) {
    operand->batch_step = images ? value.planes.batch : 0;
    operand->channel_step = channels ? value.planes.plane : 0;
    operand->origin = value.planes.origin;
    return;
  }
  const int64_t plane = image_.Run();
  operand->channel_step = channels ? plane : 0;
  operand->batch_step = images ? plane * dims[3] : 0;
  operand->packed.assign(static_cast<size_t>(plane) * dims[3] * dims[0], 0.0f);
  const float* from = value.constant;
  for (int32_t n = 0; n < dims[0]; n++) {
    for (int32_t y = 0; y < dims[1]; y++) {
      for (int32_t x = 0; x < dims[2]; x++) {
        for (int32_t c = 0; c < dims[3]; c++) {
          operand->packed[(static_cast<size_t>(n) * dims[3] + c) * plane + static_cast<size_t>(y) * image_.planes.row +
                          x] = *from++;
        }
      }
    }
  }
}

bool BinaryOp::Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int) {
  kernels_ = &kernels.elementwise;
  const graph::Value& out = graph.value(output);
  planar_ = out.layout == graph::Layout::kPlanar;
  if (planar_) {
    image_ = Image(out);
    for (size_t i = 0; i < inputs.size(); i++) PrepareOperand(graph.value(inputs[i]), &operands_[i]);
    return true;
  }
  // Dimensions that both operands step through alike are one loop.
  std::array<std::array<int64_t, 3>, kMaxDims> loops;  // extent and steps, innermost first
  size_t count = 0;
  int64_t size[2] = {1, 1};
  const size_t rank = out.dims.size();
  if (rank > kMaxDims) return false;
  for (size_t i = 0; i < rank; i++) {
    std::array<int64_t, 3> loop = {out.dims[rank - 1 - i], 0, 0};
    for (int k = 0; k < 2; k++) {
      const graph::Dims& dims = graph.value(inputs[k]).dims;
      const int64_t extent = i < dims.size() ? dims[dims.size() - 1 - i] : 1;
      loop[1 + k] = extent > 1 ? size[k] : 0;
      size[k] *= extent;
    }
    if (loop[0] == 1) continue;
    if (count > 0) {
      std::array<int64_t, 3>& inner = loops[count - 1];
      if (inner[1] * inner[0] == loop[1] && inner[2] * inner[0] == loop[2]) {
        inner[0] *= loop[0];
        continue;
      }
    }
    loops[count++] = loop;
  }
  extent_.fill(1);
  for (size_t i = 0; i < count; i++) {
    extent_[kMaxDims - 1 - i] = loops[i][0];
    step_a_[kMaxDims - 1 - i] = loops[i][1];
    step_b_[kMaxDims - 1 - i] = loops[i][2];
  }
  return true;
}

void BinaryOp::RunScaleShift(const graph::RunContext& context) const {
  const Operand &full = operands_[1 - a_channel_], &scale = operands_[a_channel_], &shift = operands_[2];
  const float* const x = context.data[inputs[1 - a_channel_]] + full.origin;
  const float* const scales = context.data[inputs[a_channel_]];
  const float* const shifts = context.data[inputs[2]];
  const int32_t run = image_.Run();
  ForEachPlane(context.pool, image_.batch, image_.channels, run, [&](int32_t n, int32_t first, int32_t count) {
    for (int32_t c = first; c < first + count; c++) {
      kernels_->scale_shift(x + n * full.batch_step + c * full.channel_step, scales[c * scale.channel_step],
                            shifts[c * shift.channel_step], context.data[output] + image_.Plane(n, c), run, low_,
                            high_);
    }
  });
}

void BinaryOp::RunPlanar(const graph::RunContext& context) const {
  const float* from[2];
  for (int i = 0; i < 2; i++) {
    from[i] =
        (operands_[i].packed.empty() ? context.data[inputs[i]] : operands_[i].packed.data()) + operands_[i].origin;
  }
  const kernels::BinaryKernel kernel = operands_[0].planes && operands_[1].planes ? kernels_->vector_vector[kind_]
                                       : operands_[0].planes                      ? kernels_->vector_scalar[kind_]
                                                                                  : kernels_->scalar_vector[kind_];
  const int32_t run = image_.Run();
  ForEachPlane(context.pool, image_.batch, image_.channels, run, [&](int32_t n, int32_t first, int32_t count) {
    for (int32_t c = first; c < first + count; c++) {
      kernel(from[0] + n * operands_[0].batch_step + c * operands_[0].channel_step,
             from[1] + n * operands_[1].batch_step + c * operands_[1].channel_step,
             context.data[output] + image_.Plane(n, c), run, low_, high_);
    }
  });
}

void BinaryOp::RunInterleaved(const graph::RunContext& context) const {
  const float *a = context.data[inputs[0]], *b = context.data[inputs[1]];
  float* y = context.data[output];
  const int64_t inner = extent_[kMaxDims - 1], inner_a = step_a_[kMaxDims - 1], inner_b = step_b_[kMaxDims - 1];
  const kernels::BinaryKernel kernel = inner_a != 0 && inner_b != 0 ? kernels_->vector_vector[kind_]
                                       : inner_a != 0               ? kernels_->vector_scalar[kind_]
                                                                    : kernels_->scalar_vector[kind_];
  int64_t rows = 1;
  for (int d = 0; d + 1 < kMaxDims; d++) rows *= extent_[d];
  // A task is some rows, or a part of one.
  constexpr int64_t kTask = 1 << 14;
  const int64_t rows_a_task = std::max<int64_t>(1, kTask / inner);
  const int64_t parts = (inner + kTask - 1) / kTask;
  const int64_t tasks = (rows + rows_a_task - 1) / rows_a_task * parts;
  context.pool->For(static_cast<int>(tasks), [&](int task) {
    const int64_t begin = task % parts * kTask, end = std::min(inner, begin + kTask);
    const int64_t first = task / parts * rows_a_task, last = std::min(rows, first + rows_a_task);
    for (int64_t row = first; row < last; row++) {
      int64_t at_a = begin * inner_a, at_b = begin * inner_b, left = row;
      for (int d = kMaxDims - 2; d >= 0; d--) {
        at_a += left % extent_[d] * step_a_[d];
        at_b += left % extent_[d] * step_b_[d];
        left /= extent_[d];
      }
      kernel(a + at_a, b + at_b, y + row * inner + begin, end - begin, low_, high_);
    }
  });
}

void BinaryOp::Run(const graph::RunContext& context) const {
  if (inputs.size() > 2) {
    RunScaleShift(context);
  } else if (planar_) {
    RunPlanar(context);
  } else {
    RunInterleaved(context);
  }
}

namespace {

template <class Params>
std::string Claim(const Node& node) {
  const auto* params = node.params<Params>();
  if (params == nullptr || node.input_count() != 2) return "it does not have two inputs and parameters";
  std::string reason = CheckFloat(node.input(0), "input 0");
  if (reason.empty()) reason = CheckFloat(node.input(1), "input 1");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  if (!reason.empty()) return reason;
  float low, high;
  if (!ActivationBounds(params->activation, &low, &high)) return "its fused activation is not a clamp";
  graph::Dims out;
  if (!BroadcastDims(DimsOf(node.input(0)), DimsOf(node.input(1)), &out)) return "its inputs' shapes do not fit";
  return "";
}

template <class Params, kernels::Binary kKind>
std::string Build(const Node& node, Builder* builder) {
  float low, high;
  ActivationBounds(node.params<Params>()->activation, &low, &high);
  const int output = AddBinary(&builder->graph(), kKind, builder->Input(node, 0), builder->Input(node, 1), low, high);
  if (output < 0) return "the shapes of an elementwise operator's inputs do not fit";
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kAdd, kSub, kMul, kDiv;
constexpr OpRegistration kAdd = {kTfLiteBuiltinAdd, nullptr, Claim<TfLiteAddParams>,
                                 Build<TfLiteAddParams, kernels::kAdd>};
constexpr OpRegistration kSub = {kTfLiteBuiltinSub, nullptr, Claim<TfLiteSubParams>,
                                 Build<TfLiteSubParams, kernels::kSub>};
constexpr OpRegistration kMul = {kTfLiteBuiltinMul, nullptr, Claim<TfLiteMulParams>,
                                 Build<TfLiteMulParams, kernels::kMul>};
constexpr OpRegistration kDiv = {kTfLiteBuiltinDiv, nullptr, Claim<TfLiteDivParams>,
                                 Build<TfLiteDivParams, kernels::kDiv>};

}  // namespace ops
}  // namespace block_sparse
