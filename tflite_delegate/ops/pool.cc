#include "tflite_delegate/ops/pool.h"

#include <algorithm>
#include <memory>
#include <string>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

PoolOp::PoolOp(int input, int op_output, const PoolOptions& options, const graph::Border& border, float low, float high)
    : Op({input}, op_output), options_(options), border_(border), low_(low), high_(high) {}

bool PoolOp::FuseClamp(float low, float high) {
  low_ = std::max(low_, low);
  high_ = std::max(low_, std::min(high_, high));
  return true;
}

// An average would have to count the zeros, and a maximum cannot have pixels that count and others that do not. No
// window may come to lie outside.
bool PoolOp::FuseZeroPad(const graph::Border& border) {
  if (!options_.maximum || border_.any() || std::max(border.top, border.bottom) >= options_.window_height ||
      std::max(border.left, border.right) >= options_.window_width) {
    return false;
  }
  border_ = border;
  zeros_outside_ = true;
  return true;
}

bool PoolOp::Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) {
  input_ = Image(graph.value(inputs[0]));
  output_ = Image(graph.value(output));
  kernels_ = &kernels;
  whole_ = !zeros_outside_ && output_.height * output_.width == 1 && border_.top <= 0 && border_.left <= 0 &&
           options_.window_height >= input_.height && options_.window_width >= input_.width;
  columns_.clear();
  for (int32_t ox = 0; ox < output_.width; ox++) {
    const int32_t left = ox * options_.stride_width - border_.left;
    const int32_t first = std::max(0, left), last = std::min(input_.width, left + options_.window_width);
    columns_.push_back(static_cast<float>(last - first));
  }
  columns_.resize(columns_.size() + kernels::kMaxLanes, 1.0f);
  scratch_ = static_cast<size_t>(
      kernels::PoolScratch(input_.width, output_.width, options_.window_width, options_.stride_width));
  scratch_ = (scratch_ + kernels::kMaxLanes - 1) / kernels::kMaxLanes * kernels::kMaxLanes;
  tasks_ = num_threads == 1 ? 1 : std::min(output_.channels, 4 * num_threads);
  return true;
}

void PoolOp::Constrain(graph::Planner* planner) { input_height_ = planner->value(inputs[0]).dims[1]; }

bool PoolOp::InputRows(size_t, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const {
  *in_begin = std::max(0, begin * options_.stride_height - border_.top);
  *in_end = std::min(input_height_, (end - 1) * options_.stride_height - border_.top + options_.window_height);
  return true;
}

void PoolOp::RunRows(const graph::RunContext& context, int32_t begin, int32_t end) const {
  const float* x = context.data[inputs[0]];
  float* y = context.data[output];
  const int32_t step = (output_.channels + tasks_ - 1) / tasks_;
  for (int32_t n = 0; n < output_.batch; n++) {
    context.pool->For((output_.channels + step - 1) / step, [&](int task) {
      const int32_t first = task * step, count = std::min(step, output_.channels - first);
      if (whole_) {
        const auto fold = options_.maximum ? kernels_->reduce.max : kernels_->reduce.sum;
        const float pixels = options_.maximum ? 1.0f : static_cast<float>(input_.height * input_.width);
        for (int32_t c = first; c < first + count; c++) {
          const float v = fold(x + input_.Plane(n, c), input_.height, input_.width, input_.planes.row) / pixels;
          const float raised = low_ > v ? low_ : v;
          y[output_.Plane(n, c)] = high_ < raised ? high_ : raised;
        }
        return;
      }
      // The rows are an image of their own, cut out of the whole one.
      const int32_t first_row = std::max(0, begin * options_.stride_height - border_.top);
      kernels::PoolArgs args;
      args.x = x + input_.Plane(n, first) + static_cast<int64_t>(first_row) * input_.planes.row;
      args.y = y + output_.Plane(n, first) + static_cast<int64_t>(begin) * output_.planes.row;
      args.x_plane = input_.planes.plane;
      args.x_row = input_.planes.row;
      args.x_height = input_.height - first_row;
      args.x_width = input_.width;
      args.y_plane = output_.planes.plane;
      args.y_row = output_.planes.row;
      args.y_height = end - begin;
      args.y_width = output_.width;
      args.count = count;
      args.pad_top = border_.top - begin * options_.stride_height + first_row;
      args.pad_left = border_.left;
      args.window_height = options_.window_height;
      args.window_width = options_.window_width;
      args.stride_height = options_.stride_height;
      args.stride_width = options_.stride_width;
      args.outside = options_.maximum && !zeros_outside_ ? -__builtin_huge_valf() : 0.0f;
      args.columns = columns_.data();
      args.low = low_;
      args.high = high_;
      args.scratch = context.scratch + task * scratch_;
      (options_.maximum ? kernels_->pool.max : kernels_->pool.average)(args);
    });
  }
}

namespace {

constexpr int32_t kMaxWindow = 1 << 12;

std::string Claim(const Node& node) {
  const auto* params = node.params<TfLitePoolParams>();
  if (params == nullptr || node.input_count() != 1) return "it has no parameters";
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  if (!reason.empty()) return reason;
  if (DimsOf(node.input(0)).size() != 4) return "its input is not 4-dimensional";
  float low, high;
  if (!ActivationBounds(params->activation, &low, &high)) return "its fused activation is not a clamp";
  for (int v : {params->stride_height, params->stride_width, params->filter_height, params->filter_width}) {
    if (v < 1 || v > kMaxWindow) return "its window or strides are out of range";
  }
  if (params->padding != kTfLitePaddingSame && params->padding != kTfLitePaddingValid) return "its padding is unknown";
  return "";
}

template <bool kMaximum>
std::string Build(const Node& node, Builder* builder) {
  const auto* params = node.params<TfLitePoolParams>();
  graph::Graph& graph = builder->graph();
  const int input = graph.Planar(builder->Input(node, 0));
  const graph::Dims in = graph.value(input).dims;
  PoolOptions options;
  options.maximum = kMaximum;
  options.window_height = params->filter_height;
  options.window_width = params->filter_width;
  options.stride_height = params->stride_height;
  options.stride_width = params->stride_width;
  const bool same = params->padding == kTfLitePaddingSame;
  graph::Border border;
  if (in.size() != 4) return "a pooling operator's input is not 4-dimensional";
  graph::Dims out = {in[0], 0, 0, in[3]};
  if (!ConvExtent(in[1], options.window_height, options.stride_height, 1, same, &out[1], &border.top, &border.bottom) ||
      !ConvExtent(in[2], options.window_width, options.stride_width, 1, same, &out[2], &border.left, &border.right)) {
    return "a pooling operator's window is larger than the image";
  }
  float low, high;
  ActivationBounds(params->activation, &low, &high);
  const int output = graph.AddValue(out);
  graph.AddOp(std::make_unique<PoolOp>(input, output, options, border, low, high));
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kMaxPool2D, kAveragePool2D;
constexpr OpRegistration kMaxPool2D = {kTfLiteBuiltinMaxPool2d, nullptr, Claim, Build<true>};
constexpr OpRegistration kAveragePool2D = {kTfLiteBuiltinAveragePool2d, nullptr, Claim, Build<false>};

}  // namespace ops
}  // namespace block_sparse
