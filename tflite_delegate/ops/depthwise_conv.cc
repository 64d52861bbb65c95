#include "tflite_delegate/ops/depthwise_conv.h"

#include <algorithm>
#include <memory>
#include <string>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

DepthwiseConv::DepthwiseConv(int input, int op_output, const DepthwiseOptions& options, const graph::Border& border,
                             const float* weights, const float* bias, float low, float high)
    : Op({input}, op_output),
      options_(options),
      border_(border),
      weights_(weights),
      bias_(bias),
      low_(low),
      high_(high) {}

bool DepthwiseConv::FuseClamp(float low, float high) {
  low_ = std::max(low_, low);
  high_ = std::max(low_, std::min(high_, high));
  return true;
}

bool DepthwiseConv::FuseZeroPad(const graph::Border& border) {
  border_.top += border.top;
  border_.left += border.left;
  border_.bottom += border.bottom;
  border_.right += border.right;
  return true;
}

// A fast kernel if one covers this shape.
kernels::DepthwiseKernel DepthwiseConv::Choose(const kernels::DepthwiseKernels& kernels) const {
  const DepthwiseOptions& o = options_;
  const int64_t reach_y = static_cast<int64_t>(o.kernel_height - 1) * o.dilation_height;
  const int64_t reach_x = static_cast<int64_t>(o.kernel_width - 1) * o.dilation_width;
  const int64_t below =
      static_cast<int64_t>(output_.height - 1) * o.stride_height + reach_y - border_.top - input_.height + 1;
  const int64_t right =
      static_cast<int64_t>(output_.width - 1) * o.stride_width + reach_x - border_.left - input_.width + 1;
  const bool square = o.kernel_height == o.kernel_width && o.stride_height == o.stride_width;
  if (!square || !input_.planar || (o.kernel_height != 3 && o.kernel_height != 5)) return kernels.any;
  if (reach_x > kernels::kDepthwiseMaxReach || border_.left > kernels::kDepthwiseMaxReach ||
      right > kernels::kDepthwiseMaxReach || border_.top > reach_y || below > reach_y) {
    return kernels.any;
  }
  if (o.stride_height == 1) return kernels.stride1[o.kernel_height / 2 - 1];
  if (o.stride_height == 2 && o.dilation_height * o.dilation_width == 1)
    return kernels.stride2[o.kernel_height / 2 - 1];
  return kernels.any;
}

bool DepthwiseConv::Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) {
  input_ = Image(graph.value(inputs[0]));
  output_ = Image(graph.value(output));
  kernel_ = Choose(kernels.depthwise);
  const bool in_strips = kernel_ != kernels.depthwise.any && options_.dilation_height * options_.dilation_width == 1;
  strip_rows_ = in_strips && SharesRows(output_.Run(), num_threads) ? kernels.depthwise.rows : 0;
  const int32_t taps = options_.kernel_height * options_.kernel_width;
  packed_.clear();
  packed_.reserve(static_cast<size_t>(output_.channels) * (taps + 1));
  for (int32_t c = 0; c < output_.channels; c++) {
    packed_.push_back(bias_ == nullptr ? 0.0f : bias_[c]);
    for (int32_t t = 0; t < taps; t++) packed_.push_back(weights_[static_cast<int64_t>(t) * output_.channels + c]);
  }
  inside_.assign(static_cast<size_t>(kernels::DepthwiseInside(output_.width, options_.stride_width)), 0);
  for (size_t i = 0; i < inside_.size(); i++) {
    const int64_t x = static_cast<int64_t>(i) - border_.left;
    if (x >= 0 && x < input_.width) inside_[i] = -1;
  }
  return true;
}

void DepthwiseConv::Constrain(graph::Planner* planner) { input_height_ = planner->value(inputs[0]).dims[1]; }

bool DepthwiseConv::InputRows(size_t, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const {
  const int32_t reach = (options_.kernel_height - 1) * options_.dilation_height + 1;
  *in_begin = std::max(0, begin * options_.stride_height - border_.top);
  *in_end = std::min(input_height_, (end - 1) * options_.stride_height - border_.top + reach);
  return true;
}

void DepthwiseConv::RunRows(const graph::RunContext& context, int32_t begin, int32_t end) const {
  kernels::DepthwiseArgs args;
  args.x_plane = input_.planes.plane;
  args.x_row = input_.planes.row;
  args.x_width = input_.width;
  args.y_plane = output_.planes.plane;
  args.y_row = output_.planes.row;
  args.y_width = output_.width;
  args.multiplier = options_.multiplier;
  args.pad_left = border_.left;
  args.kernel_height = options_.kernel_height;
  args.kernel_width = options_.kernel_width;
  args.stride_height = options_.stride_height;
  args.stride_width = options_.stride_width;
  args.dilation_height = options_.dilation_height;
  args.dilation_width = options_.dilation_width;
  args.weights = packed_.data();
  args.inside = inside_.data();
  args.low = low_;
  args.high = high_;
  const int64_t work =
      static_cast<int64_t>(end - begin) * output_.width * options_.kernel_height * options_.kernel_width;
  const int32_t parts = strip_rows_ > 0 ? context.pool->threads() : 1;
  const auto body = [&](int32_t n, int32_t index, int32_t first, int32_t count) {
    kernels::DepthwiseArgs part = args;
    part.first = first;
    part.count = count;
    // The rows of a run are an image of their own, cut out of the whole one.
    const auto run = [&](int32_t row, int32_t run_end) {
      const int32_t first_row = std::max(0, row * options_.stride_height - border_.top);
      part.x = context.data[inputs[0]] + input_.Plane(n, 0) + static_cast<int64_t>(first_row) * input_.planes.row;
      part.y = context.data[output] + output_.Plane(n, 0) + static_cast<int64_t>(row) * output_.planes.row;
      part.x_height = input_.height - first_row;
      part.y_height = run_end - row;
      // What follows the last row may be another run's.
      part.y_run =
          (run_end == output_.height ? output_.Run() : run_end * output_.planes.row) - row * output_.planes.row;
      part.pad_top = border_.top - row * options_.stride_height + first_row;
      kernel_(part);
    };
    int32_t row = CutAt(begin, end, index, parts);
    const int32_t part_end = CutAt(begin, end, index + 1, parts);
    for (int32_t run_end : run_ends_) {
      if (run_end <= row || run_end >= part_end) continue;
      run(row, run_end);
      row = run_end;
    }
    if (row < part_end) run(row, part_end);
  };
  ForEachPlane(context.pool, output_.batch, parts, output_.channels, work, body);
}

// Where part `index` of rows [begin, end) begins: at a strip, as otherwise the bits would be others.
int32_t DepthwiseConv::CutAt(int32_t begin, int32_t end, int32_t index, int32_t parts) const {
  if (index == 0) return begin;
  if (index == parts) return end;
  const int32_t row = begin + static_cast<int32_t>(static_cast<int64_t>(end - begin) * index / parts);
  const auto next = std::upper_bound(run_ends_.begin(), run_ends_.end(), row);
  const int32_t run_begin = next == run_ends_.begin() ? begin : std::max(begin, *(next - 1));
  const int32_t run_end = next == run_ends_.end() ? end : std::min(end, *next);
  const int32_t cut = run_begin + (row - run_begin + strip_rows_ / 2) / strip_rows_ * strip_rows_;
  return cut + 1 < run_end ? cut : run_end;
}

namespace {

constexpr int32_t kMaxKernel = 1 << 10;

std::string Claim(const Node& node) {
  const auto* params = node.params<TfLiteDepthwiseConvParams>();
  if (params == nullptr || node.input_count() < 2) return "it has no parameters";
  const std::string reason = CheckWeighted(node);
  if (!reason.empty()) return reason;
  const graph::Dims weights = DimsOf(node.input(1)), input = DimsOf(node.input(0));
  if (weights.size() != 4 || weights[0] != 1 || input.size() != 4) return "its input or weights are not 4-dimensional";
  if (weights[3] % input[3] != 0) return "its output channels are no multiple of its input channels";
  if (node.input(2) != nullptr && graph::Count(DimsOf(node.input(2))) != weights[3]) return "its bias has another size";
  return CheckKernel(*params, weights, kMaxKernel);
}

std::string Build(const Node& node, Builder* builder) {
  const auto* params = node.params<TfLiteDepthwiseConvParams>();
  const graph::Dims weights = DimsOf(node.input(1));
  graph::Graph& graph = builder->graph();
  const int input = graph.Planar(builder->Input(node, 0));
  const graph::Dims in = graph.value(input).dims;
  if (in.size() != 4 || weights[3] % in[3] != 0) {
    return "DEPTHWISE_CONV_2D: the weights have " + std::to_string(weights[3]) +
           " output channels, which is no multiple of the input's channels";
  }
  DepthwiseOptions options;
  options.kernel_height = weights[1];
  options.kernel_width = weights[2];
  options.stride_height = params->stride_height;
  options.stride_width = params->stride_width;
  options.dilation_height = params->dilation_height_factor;
  options.dilation_width = params->dilation_width_factor;
  options.multiplier = weights[3] / in[3];
  const bool same = params->padding == kTfLitePaddingSame;
  graph::Border border;
  graph::Dims out = {in[0], 0, 0, weights[3]};
  if (!ConvExtent(in[1], options.kernel_height, options.stride_height, options.dilation_height, same, &out[1],
                  &border.top, &border.bottom) ||
      !ConvExtent(in[2], options.kernel_width, options.stride_width, options.dilation_width, same, &out[2],
                  &border.left, &border.right)) {
    return "DEPTHWISE_CONV_2D: the kernel is larger than the image, or the padding out of range";
  }
  float low, high;
  ActivationBounds(params->activation, &low, &high);
  const int output = graph.AddValue(out);
  graph.AddOp(std::make_unique<DepthwiseConv>(input, output, options, border, Floats(node.input(1)),
                                              node.input(2) != nullptr ? Floats(node.input(2)) : nullptr, low, high));
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kDepthwiseConv2D;
constexpr OpRegistration kDepthwiseConv2D = {kTfLiteBuiltinDepthwiseConv2d, nullptr, Claim, Build};

}  // namespace ops
}  // namespace block_sparse
