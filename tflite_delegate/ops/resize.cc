#include "tflite_delegate/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tflite_delegate/ops/image.h"
#include "tflite_delegate/ops/int_constant.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

// What an output row or column is made of: (1 - part) * input[lower] + part * input[upper].
struct Source {
  int32_t lower, upper;
  float part;
};

std::vector<Source> Sources(int32_t in, int32_t out, const ResizeOptions& options) {
  const bool align = options.align_corners && out > 1;
  const float scale = align ? static_cast<float>(in - 1) / static_cast<float>(out - 1)
                            : static_cast<float>(in) / static_cast<float>(out);
  const float half = options.half_pixel_centers ? 0.5f : 0.0f;
  std::vector<Source> sources;
  for (int32_t i = 0; i < out; i++) {
    Source source;
    if (options.bilinear) {
      const float at = (static_cast<float>(i) + half) * scale - half;
      source.lower = std::max(static_cast<int32_t>(std::floor(at)), 0);
      source.upper = std::min(static_cast<int32_t>(std::ceil(at)), in - 1);
      source.lower = std::min(source.lower, in - 1);
      source.upper = std::max(source.upper, source.lower);
      source.part = source.lower == source.upper ? 0.0f : at - static_cast<float>(source.lower);
    } else {
      const float at = (static_cast<float>(i) + half) * scale;
      const float nearest = options.align_corners ? std::round(at) : std::floor(at);
      source.lower = source.upper = std::max(0, std::min(static_cast<int32_t>(nearest), in - 1));
      source.part = 0.0f;
    }
    sources.push_back(source);
  }
  return sources;
}

class Resize : public graph::Op {
 public:
  Resize(int input, int op_output, const ResizeOptions& options) : Op({input}, op_output), options_(options) {}
  const char* name() const override { return options_.bilinear ? "resize_bilinear" : "resize_nearest"; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override {
    input_ = Image(graph.value(inputs[0]));
    output_ = Image(graph.value(output));
    lerp_ = kernels.elementwise.lerp;
    rows_ = Sources(input_.height, output_.height, options_);
    columns_ = Sources(input_.width, output_.width, options_);
    scratch_ = (static_cast<size_t>(input_.width) + kernels::kMaxLanes - 1) / kernels::kMaxLanes * kernels::kMaxLanes;
    tasks_ = num_threads == 1 ? 1 : std::min(output_.channels, 4 * num_threads);
    return true;
  }
  size_t ScratchFloats() const override { return scratch_ * tasks_; }

  void Run(const graph::RunContext& context) const override {
    const int32_t step = (output_.channels + tasks_ - 1) / tasks_;
    for (int32_t n = 0; n < output_.batch; n++) {
      context.pool->For((output_.channels + step - 1) / step, [&](int task) {
        const int32_t first = task * step, last = std::min(output_.channels, first + step);
        for (int32_t c = first; c < last; c++) {
          Plane(context.data[inputs[0]] + input_.Plane(n, c), context.data[output] + output_.Plane(n, c),
                context.scratch + task * scratch_);
        }
      });
    }
  }

 private:
  void Plane(const float* x, float* y, float* scratch) const {
    for (int32_t i = 0; i < output_.height; i++, y += output_.planes.row) {
      const Source& row = rows_[i];
      const float* from = x + static_cast<int64_t>(row.lower) * input_.planes.row;
      if (row.part != 0.0f) {
        lerp_(from, x + static_cast<int64_t>(row.upper) * input_.planes.row, row.part, scratch, input_.width);
        from = scratch;
      }
      for (int32_t j = 0; j < output_.width; j++) {
        const Source& column = columns_[j];
        y[j] = column.part == 0.0f ? from[column.lower]
                                   : from[column.lower] * (1.0f - column.part) + from[column.upper] * column.part;
      }
    }
  }

  ResizeOptions options_;
  Image input_, output_;
  void (*lerp_)(const float* a, const float* b, float t, float* y, int64_t n) = nullptr;
  std::vector<Source> rows_, columns_;
  size_t scratch_ = 0;
  int32_t tasks_ = 1;
};

}  // namespace

int AddResize(graph::Graph* graph, int input, const ResizeOptions& options) {
  input = graph->Planar(input);
  graph::Dims out = graph->value(input).dims;
  out[1] = options.height;
  out[2] = options.width;
  const int output = graph->AddValue(out);
  graph->AddOp(std::make_unique<Resize>(input, output, options));
  return output;
}

namespace {

std::string ReadOptions(const Node& node, ResizeOptions* options) {
  if (node.input_count() != 2) return "it does not have two inputs";
  std::vector<int32_t> size;
  const std::string reason = ReadInts(node.input(1), "its size", &size);
  if (!reason.empty()) return reason;
  if (size.size() != 2 || size[0] < 1 || size[1] < 1 || size[0] > (1 << 20) || size[1] > (1 << 20)) {
    return "its size is out of range";
  }
  options->height = size[0];
  options->width = size[1];
  if (node.builtin_code() == kTfLiteBuiltinResizeBilinear) {
    const auto* params = node.params<TfLiteResizeBilinearParams>();
    if (params == nullptr) return "it has no parameters";
    options->bilinear = true;
    options->align_corners = params->align_corners;
    options->half_pixel_centers = params->half_pixel_centers;
  } else {
    const auto* params = node.params<TfLiteResizeNearestNeighborParams>();
    if (params == nullptr) return "it has no parameters";
    options->align_corners = params->align_corners;
    options->half_pixel_centers = params->half_pixel_centers;
  }
  return "";
}

std::string Claim(const Node& node) {
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  if (reason.empty() && DimsOf(node.input(0)).size() != 4) reason = "its input is not 4-dimensional";
  ResizeOptions options;
  return reason.empty() ? ReadOptions(node, &options) : reason;
}

std::string Build(const Node& node, Builder* builder) {
  ResizeOptions options;
  const std::string reason = ReadOptions(node, &options);
  if (!reason.empty()) return "a resizing operator: " + reason;
  const int input = builder->Input(node, 0);
  const graph::Dims& in = builder->value(input).dims;
  if (in.size() != 4) return "a resizing operator's input is not 4-dimensional";
  if (static_cast<double>(in[0]) * in[3] * options.height * options.width > std::numeric_limits<int32_t>::max()) {
    return "a resizing operator's output is too large";
  }
  builder->SetOutput(node, AddResize(&builder->graph(), input, options));
  return "";
}

}  // namespace

extern const OpRegistration kResizeBilinear, kResizeNearestNeighbor;
constexpr OpRegistration kResizeBilinear = {kTfLiteBuiltinResizeBilinear, nullptr, Claim, Build};
constexpr OpRegistration kResizeNearestNeighbor = {kTfLiteBuiltinResizeNearestNeighbor, nullptr, Claim, Build};

}  // namespace ops
}  // namespace block_sparse
