#include "tflite_delegate/ops/fully_connected.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/kernels/gemv_pack.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

// Multiply-adds below which handing work to another thread costs more than it saves.
constexpr int64_t kWorthATask = 1 << 15;
constexpr int kTasksAThread = 4;

// The number of pieces to cut `work` multiply-adds into.
int Tasks(int64_t work, int num_threads) {
  if (num_threads == 1) return 1;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(work / kWorthATask, num_threads * kTasksAThread)));
}

class FullyConnected : public graph::Op {
 public:
  FullyConnected(int input, int output, Weights weights, float low, float high)
      : Op({input}, output), weights_(std::move(weights)), low_(low), high_(high) {}

  bool FuseClamp(float low, float high) override {
    low_ = std::min(std::max(low_, low), high);
    high_ = std::max(low, std::min(high_, high));
    return true;
  }

 protected:
  bool SetBatch(const graph::Graph& graph) {
    const int64_t batch = graph::Count(graph.value(inputs[0]).dims) / weights_.columns;
    batch_ = static_cast<int32_t>(batch);
    return batch == batch_;
  }

  Weights weights_;
  float low_, high_;
  int32_t batch_ = 0;
};

// Reads the weights where the model has them: a copy would cost its time and memory and gain nothing.
class Dense : public FullyConnected {
 public:
  using FullyConnected::FullyConnected;
  const char* name() const override { return "fully_connected"; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override {
    if (!SetBatch(graph)) return false;
    kernel_ = kernels.gemv.dense;
    const int64_t work = static_cast<int64_t>(weights_.rows) * weights_.columns * batch_;
    const int tasks = Tasks(work, num_threads);
    // Whole tiles of rows.
    rows_ = ((weights_.rows + tasks - 1) / tasks + 7) / 8 * 8;
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    context.pool->For((weights_.rows + rows_ - 1) / rows_, [&](int task) {
      const int32_t first = task * rows_;
      kernels::GemvArgs args;
      args.weights = weights_.dense + static_cast<int64_t>(first) * weights_.columns;
      args.bias = weights_.bias == nullptr ? nullptr : weights_.bias + first;
      args.rows = std::min(rows_, weights_.rows - first);
      args.columns = weights_.columns;
      args.x = context.data[inputs[0]];
      args.x_stride = weights_.columns;
      args.y = context.data[output] + first;
      args.y_stride = weights_.rows;
      args.batch = batch_;
      args.low = low_;
      args.high = high_;
      kernel_(args);
    });
  }

 private:
  kernels::GemvKernel kernel_ = nullptr;
  int32_t rows_ = 0;  // a task
};

class Sparse : public FullyConnected {
 public:
  using FullyConnected::FullyConnected;
  const char* name() const override { return "sparse_fully_connected"; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override {
    if (!SetBatch(graph)) return false;
    kernels_ = &kernels.gemv;
    row_channel_ = std::move(weights_.sparse.row_channel);
    std::vector<float> bias;
    if (weights_.bias != nullptr) {
      bias.assign(weights_.bias, weights_.bias + weights_.rows);
      for (size_t r = 0; r < row_channel_.size(); r++) bias[r] = weights_.bias[row_channel_[r]];
    }
    const int64_t work = static_cast<int64_t>(weights_.sparse.weights()) * batch_;
    const bool packed = packed_.Pack(weights_.sparse, bias.empty() ? nullptr : bias.data(), Tasks(work, num_threads));
    weights_.sparse = LoweredMatrix();
    return packed;
  }

  size_t ScratchFloats() const override {
    return row_channel_.empty() ? 0 : static_cast<size_t>(batch_) * weights_.rows;
  }

  void Run(const graph::RunContext& context) const override {
    const bool reordered = !row_channel_.empty();
    float* y = context.data[output];
    float* rows = reordered ? context.scratch : y;
    context.pool->For(packed_.panels(), [&](int panel) {
      packed_.Run(*kernels_, panel, context.data[inputs[0]], weights_.columns, rows, weights_.rows, batch_, low_,
                  high_);
      if (!reordered) return;
      const int32_t first = packed_.first_row(panel);
      const int32_t last = panel + 1 < packed_.panels() ? packed_.first_row(panel + 1) : weights_.rows;
      for (int32_t n = 0; n < batch_; n++) {
        const int64_t at = static_cast<int64_t>(n) * weights_.rows;
        for (int32_t r = first; r < last; r++) y[at + row_channel_[r]] = rows[at + r];
      }
    });
  }

 private:
  const kernels::GemvKernels* kernels_ = nullptr;
  kernels::SparseGemvMatrix packed_;
  std::vector<int32_t> row_channel_;
};

// Works out the output's shape and adds the op.
std::string AddFullyConnected(const Node& node, Builder* builder, const char* name, Weights weights, bool keep_num_dims,
                              float low, float high) {
  graph::Graph& graph = builder->graph();
  const int input = graph.Interleaved(builder->Input(node, 0));
  const graph::Dims in = graph.value(input).dims;
  graph::Dims out = in;
  if (keep_num_dims) {
    if (in.empty() || in.back() != weights.columns) {
      return std::string(name) + ": the last dimension of the input is " +
             (in.empty() ? "missing" : std::to_string(in.back())) + ", but the weights have " +
             std::to_string(weights.columns) + " columns";
    }
    out.back() = weights.rows;
  } else {
    const int64_t count = graph::Count(in);
    if (count % weights.columns != 0) {
      return std::string(name) + ": the input has " + std::to_string(count) +
             " values, not a multiple of the weights' " + std::to_string(weights.columns) + " columns";
    }
    out = {static_cast<int32_t>(count / weights.columns), weights.rows};
  }
  const int output = graph.AddValue(out, true);
  graph.AddOp(MakeFullyConnected(input, output, std::move(weights), low, high));
  builder->SetOutput(node, output);
  return "";
}

std::string ClaimDense(const Node& node) {
  const auto* params = node.params<TfLiteFullyConnectedParams>();
  if (params == nullptr || node.input_count() < 2) return "it has no parameters";
  if (params->weights_format != kTfLiteFullyConnectedWeightsFormatDefault) return "its weights are shuffled";
  const std::string reason = CheckWeighted(node);
  if (!reason.empty()) return reason;
  const graph::Dims weights = DimsOf(node.input(1));
  if (weights.size() != 2) return "its weights are not 2-dimensional";
  if (node.input(2) != nullptr && graph::Count(DimsOf(node.input(2))) != weights[0]) return "its bias has another size";
  const graph::Dims input = DimsOf(node.input(0));
  if (params->keep_num_dims ? input.empty() || input.back() != weights[1] : graph::Count(input) % weights[1] != 0) {
    return "its input does not fit its weights";
  }
  float low, high;
  if (!ActivationBounds(params->activation, &low, &high)) return "its fused activation is not a clamp";
  return "";
}

std::string BuildDense(const Node& node, Builder* builder) {
  const auto* params = node.params<TfLiteFullyConnectedParams>();
  Weights weights;
  weights.dense = Floats(node.input(1));
  weights.rows = node.input(1)->dims->data[0];
  weights.columns = node.input(1)->dims->data[1];
  weights.bias = node.input(2) != nullptr ? Floats(node.input(2)) : nullptr;
  float low, high;
  ActivationBounds(params->activation, &low, &high);
  return AddFullyConnected(node, builder, "FULLY_CONNECTED", std::move(weights), params->keep_num_dims, low, high);
}

constexpr char kSparseName[] = "BlockSparseFullyConnected";

std::string ReadSparse(const Node& node, ReadTo to, BlockSparseOptions* options, LoweredMatrix* matrix) {
  std::string reason = CheckSparseInputs(node);
  if (!reason.empty()) return reason;
  const TfLiteTensor* values = node.input(1);
  if (!ReadBlockSparse(BlockSparseOp::kFullyConnected, to, node.custom_options(), node.custom_options_size(),
                       Floats(values), values->bytes / sizeof(float), options, matrix, &reason)) {
    return reason;
  }
  reason = CheckSparseBias(node, matrix->rows);
  if (!reason.empty()) return reason;
  const graph::Dims input = DimsOf(node.input(0));
  const int64_t count = options->keep_num_dims ? (input.empty() ? 0 : input.back()) : graph::Count(input);
  if (options->keep_num_dims ? count != matrix->columns : count % matrix->columns != 0) {
    return "`columns` is " + std::to_string(matrix->columns) + ", but the input has " + std::to_string(count) +
           (options->keep_num_dims ? " values in its last dimension" : " values, which is not a multiple of it");
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
  weights.columns = weights.sparse.columns;
  weights.bias = node.input(2) != nullptr ? Floats(node.input(2)) : nullptr;
  float low, high;
  ActivationBounds(options.activation, &low, &high);
  return AddFullyConnected(node, builder, kSparseName, std::move(weights), options.keep_num_dims, low, high);
}

}  // namespace

std::unique_ptr<graph::Op> MakeFullyConnected(int input, int output, Weights weights, float low, float high) {
  if (weights.dense != nullptr) return std::make_unique<Dense>(input, output, std::move(weights), low, high);
  return std::make_unique<Sparse>(input, output, std::move(weights), low, high);
}

extern const OpRegistration kFullyConnected, kBlockSparseFullyConnected;
constexpr OpRegistration kFullyConnected = {kTfLiteBuiltinFullyConnected, nullptr, ClaimDense, BuildDense};
constexpr OpRegistration kBlockSparseFullyConnected = {kTfLiteBuiltinCustom, kSparseName, ClaimSparse, BuildSparse};

}  // namespace ops
}  // namespace block_sparse
