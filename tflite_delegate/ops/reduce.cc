// MEAN, SUM and REDUCE_MAX over neighbouring dimensions; a planar image may be reduced to a value a channel in place.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/ops/int_constant.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

enum class Kind { kMean, kSum, kMax };

// [outer, count, inner] -> [outer, inner]; a planar input is [batch, pixels, channels].
class Reduce : public graph::Op {
 public:
  Reduce(int input, int output, Kind kind, int32_t outer, int32_t count, int32_t inner)
      : Op({input}, output), kind_(kind), outer_(outer), count_(count), inner_(inner) {}
  const char* name() const override {
    return kind_ == Kind::kMean ? "mean" : kind_ == Kind::kSum ? "sum" : "reduce_max";
  }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int) override {
    input_ = graph.value(inputs[0]);
    kernels_ = &kernels.reduce;
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    const float* x = context.data[inputs[0]];
    float* y = context.data[output];
    if (input_.layout == graph::Layout::kPlanar) {
      Planar(x, y, context.pool);
    } else {
      Interleaved(x, y, context.pool);
    }
  }

 private:
  // Values that one task reads: enough to make handing it out worth while.
  static constexpr int32_t kTask = 1 << 13;

  void Planar(const float* x, float* y, graph::ThreadPool* pool) const {
    const auto fold = kind_ == Kind::kMax ? kernels_->max : kernels_->sum;
    const int32_t channels = input_.channels(), height = input_.height(), width = input_.width();
    const int32_t step = std::min(channels, 1 + kTask / (height * width));
    const int32_t tasks = (channels + step - 1) / step;
    pool->For(tasks * input_.batch(), [&](int task) {
      const int32_t n = task / tasks, first = task % tasks * step, last = std::min(channels, first + step);
      const float* plane = x + n * input_.planes.batch + input_.planes.origin + first * int64_t{input_.planes.plane};
      float* to = y + static_cast<int64_t>(n) * channels;
      for (int32_t c = first; c < last; c++, plane += input_.planes.plane) {
        to[c] = Scaled(fold(plane, height, width, input_.planes.row));
      }
    });
  }

  void Interleaved(const float* x, float* y, graph::ThreadPool* pool) const {
    const int64_t size = static_cast<int64_t>(count_) * inner_;
    const int32_t step = static_cast<int32_t>(1 + kTask / size);
    pool->For((outer_ + step - 1) / step, [&](int task) {
      const int32_t last = std::min(outer_, (task + 1) * step);
      for (int32_t n = task * step; n < last; n++) {
        const float* from = x + n * size;
        float* to = y + static_cast<int64_t>(n) * inner_;
        if (inner_ == 1) {
          *to = (kind_ == Kind::kMax ? kernels_->max : kernels_->sum)(from, 1, count_, count_);
        } else {
          (kind_ == Kind::kMax ? kernels_->max_rows : kernels_->sum_rows)(from, count_, inner_, to);
        }
        for (int32_t i = 0; i < inner_; i++) to[i] = Scaled(to[i]);
      }
    });
  }

  float Scaled(float value) const { return kind_ == Kind::kMean ? value / static_cast<float>(count_) : value; }

  Kind kind_;
  int32_t outer_, count_, inner_;
  graph::Value input_;
  const kernels::ReduceKernels* kernels_ = nullptr;
};

// The neighbouring axes that the node reduces: `first` .. `last`; first > last if there are none.
std::string ReadAxes(const Node& node, int32_t rank, int32_t* first, int32_t* last) {
  std::vector<int32_t> axes;
  std::string reason = ReadInts(node.input(1), "the axes", &axes);
  if (!reason.empty()) return reason;
  std::vector<bool> reduced(static_cast<size_t>(rank), false);
  for (int32_t axis : axes) {
    if (!NormalizeAxis(rank, &axis)) return "it has no such axis";
    reduced[axis] = true;
  }
  *first = static_cast<int32_t>(std::find(reduced.begin(), reduced.end(), true) - reduced.begin());
  *last = rank - 1;
  while (*last >= 0 && !reduced[*last]) --*last;
  for (int32_t i = *first; i <= *last; i++) {
    if (!reduced[i]) return "the axes are not neighbours";
  }
  return "";
}

std::string Claim(const Node& node) {
  if (node.params<TfLiteReducerParams>() == nullptr) return "it has no parameters";
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  int32_t first, last;
  if (reason.empty()) reason = ReadAxes(node, node.input(0)->dims->size, &first, &last);
  return reason;
}

template <Kind kKind>
std::string Build(const Node& node, Builder* builder) {
  graph::Graph& graph = builder->graph();
  int input = builder->Input(node, 0);
  const graph::Dims in = graph.value(input).dims;
  const int32_t rank = static_cast<int32_t>(in.size());
  int32_t first, last;
  const std::string reason = ReadAxes(node, rank, &first, &last);
  if (!reason.empty()) return reason;
  if (!(rank == 4 && first == 1 && last == 2)) input = graph.Interleaved(input);
  const bool keep = node.params<TfLiteReducerParams>()->keep_dims;
  graph::Dims out;
  int32_t sizes[3] = {1, 1, 1};  // outer, count, inner
  for (int32_t i = 0; i < rank; i++) {
    const bool reduced = i >= first && i <= last;
    sizes[i < first || first > last ? 0 : reduced ? 1 : 2] *= in[i];
    if (!reduced || keep) out.push_back(reduced ? 1 : in[i]);
  }
  const int output = graph.AddValue(out, true);
  graph.AddOp(std::make_unique<Reduce>(input, output, kKind, sizes[0], sizes[1], sizes[2]));
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kMean, kSum, kReduceMax;
constexpr OpRegistration kMean = {kTfLiteBuiltinMean, nullptr, Claim, Build<Kind::kMean>};
constexpr OpRegistration kSum = {kTfLiteBuiltinSum, nullptr, Claim, Build<Kind::kSum>};
constexpr OpRegistration kReduceMax = {kTfLiteBuiltinReduceMax, nullptr, Claim, Build<Kind::kMax>};

}  // namespace ops
}  // namespace block_sparse
