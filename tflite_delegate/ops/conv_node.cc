// CONV_2D and BlockSparseConv2D: what is taken of them, and how they become a convolution of the graph.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/fully_connected.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

constexpr int32_t kMaxKernel = 1 << 12;

// Works out the geometry for the image at hand and adds the op. `name` is for messages.
std::string AddConv(const Node& node, Builder* builder, const char* name, const ConvOptions& options, Weights weights,
                    float low, float high) {
  graph::Graph& graph = builder->graph();
  int input = builder->Input(node, 0);
  const graph::Dims in = graph.value(input).dims;
  if (in.size() != 4) return std::string(name) + ": the input has " + std::to_string(in.size()) + " dimensions, not 4";
  if (static_cast<int64_t>(options.kernel_height) * options.kernel_width * in[3] != weights.columns) {
    return std::string(name) + ": `columns` is " + std::to_string(weights.columns) + ", but the input has " +
           std::to_string(in[3]) + " channels and the kernel is " + std::to_string(options.kernel_height) + " x " +
           std::to_string(options.kernel_width);
  }
  graph::Border border;
  graph::Dims out = {in[0], 0, 0, weights.rows};
  if (!ConvExtent(in[1], options.kernel_height, options.stride_height, options.dilation_height, options.padding_same,
                  &out[1], &border.top, &border.bottom) ||
      !ConvExtent(in[2], options.kernel_width, options.stride_width, options.dilation_width, options.padding_same,
                  &out[2], &border.left, &border.right)) {
    return std::string(name) + ": the kernel is larger than the image, or the padding out of range";
  }
  const bool one_output = out[1] * static_cast<int64_t>(out[2]) == 1;
  if (one_output && in[1] == options.kernel_height && in[2] == options.kernel_width && !border.any()) {
    // All pixels against all weights, in the same order: a matrix-vector product.
    const int output = graph.AddValue(out);
    graph.AddOp(MakeFullyConnected(graph.Interleaved(input), output, std::move(weights), low, high));
    builder->SetOutput(node, output);
    return "";
  }
  if (options.kernel_height * options.kernel_width == 1 && options.stride_height * options.stride_width == 1) {
    input = graph.Planar(input);
  }
  const int output = one_output ? graph.AddPlanarValue(out) : graph.AddValue(out);
  graph.AddOp(std::make_unique<Conv>(input, output, options, border, std::move(weights), low, high));
  builder->SetOutput(node, one_output ? graph.Interleaved(output) : output);
  return "";
}

std::string ClaimDense(const Node& node) {
  const auto* params = node.params<TfLiteConvParams>();
  if (params == nullptr || node.input_count() < 2) return "it has no parameters";
  const std::string reason = CheckWeighted(node);
  if (!reason.empty()) return reason;
  const graph::Dims weights = DimsOf(node.input(1)), input = DimsOf(node.input(0));
  if (weights.size() != 4 || input.size() != 4) return "its input or weights are not 4-dimensional";
  if (weights[3] != input[3]) return "it is a grouped convolution";
  if (node.input(2) != nullptr && graph::Count(DimsOf(node.input(2))) != weights[0]) return "its bias has another size";
  return CheckKernel(*params, weights, kMaxKernel);
}

std::string BuildDense(const Node& node, Builder* builder) {
  const auto* params = node.params<TfLiteConvParams>();
  const graph::Dims dims = DimsOf(node.input(1));
  ConvOptions options;
  options.kernel_height = dims[1];
  options.kernel_width = dims[2];
  options.stride_height = params->stride_height;
  options.stride_width = params->stride_width;
  options.dilation_height = params->dilation_height_factor;
  options.dilation_width = params->dilation_width_factor;
  options.padding_same = params->padding == kTfLitePaddingSame;
  Weights weights;
  weights.dense = Floats(node.input(1));
  weights.rows = dims[0];
  weights.columns = dims[1] * dims[2] * dims[3];
  weights.bias = node.input(2) != nullptr ? Floats(node.input(2)) : nullptr;
  float low, high;
  ActivationBounds(params->activation, &low, &high);
  return AddConv(node, builder, "CONV_2D", options, std::move(weights), low, high);
}

constexpr char kSparseName[] = "BlockSparseConv2D";

std::string ReadSparse(const Node& node, ReadTo to, BlockSparseOptions* options, LoweredMatrix* matrix) {
  std::string reason = CheckSparseInputs(node);
  if (!reason.empty()) return reason;
  const TfLiteTensor* values = node.input(1);
  if (!ReadBlockSparse(BlockSparseOp::kConv2D, to, node.custom_options(), node.custom_options_size(), Floats(values),
                       values->bytes / sizeof(float), options, matrix, &reason)) {
    return reason;
  }
  reason = CheckSparseBias(node, matrix->rows);
  if (!reason.empty()) return reason;
  const ConvOptions& conv = options->conv;
  if (conv.kernel_height > kMaxKernel || conv.kernel_width > kMaxKernel || conv.stride_height > kMaxStride ||
      conv.stride_width > kMaxStride || conv.dilation_height > kMaxStride || conv.dilation_width > kMaxStride) {
    return "kernel, strides or dilations above " + std::to_string(kMaxKernel) + " are not supported";
  }
  const graph::Dims input = DimsOf(node.input(0));
  if (input.size() != 4) return "the input has " + std::to_string(input.size()) + " dimensions, not 4";
  if (static_cast<int64_t>(conv.kernel_height) * conv.kernel_width * input[3] != matrix->columns) {
    return "`columns` is " + std::to_string(matrix->columns) +
           ", but kernel_height * kernel_width * input channels is " +
           std::to_string(static_cast<int64_t>(conv.kernel_height) * conv.kernel_width * input[3]);
  }
  return "";
}

std::string ClaimSparse(const Node& node) {
  BlockSparseOptions options;
  LoweredMatrix matrix;
  return ReadSparse(node, ReadTo::kCheck, &options, &matrix);
}

std::string BuildSparse(const Node& node, Builder* builder) {
  BlockSparseOptions options;
  Weights weights;
  const std::string reason = ReadSparse(node, ReadTo::kLower, &options, &weights.sparse);
  if (!reason.empty()) return std::string(kSparseName) + ": " + reason;
  weights.rows = weights.sparse.rows;
  weights.bias = node.input(2) != nullptr ? Floats(node.input(2)) : nullptr;
  weights.columns = weights.sparse.columns;
  float low, high;
  ActivationBounds(options.activation, &low, &high);
  return AddConv(node, builder, kSparseName, options.conv, std::move(weights), low, high);
}

}  // namespace

extern const OpRegistration kConv2D, kBlockSparseConv2D;
constexpr OpRegistration kConv2D = {kTfLiteBuiltinConv2d, nullptr, ClaimDense, BuildDense};
constexpr OpRegistration kBlockSparseConv2D = {kTfLiteBuiltinCustom, kSparseName, ClaimSparse, BuildSparse};

}  // namespace ops
}  // namespace block_sparse
