// Block-sparse GRU and LSTM layers. The input's part of all steps is one matrix product ahead of the loop; a step is
// then a product with the state, all gates at once, and the gates themselves.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tflite_delegate/format/recurrent.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/layout_ops.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/fully_connected.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

// The node's inputs; a CANDIDATE is there in a GRU without reset_after only, a CELL in an LSTM only. A mask, if there
// is one, stands behind the others.
enum Slot { kInput, kKernel, kRecurrentKernel, kCandidateKernel, kBias, kRecurrentBias, kState, kCell };
constexpr int InputCount(RecurrentOp op) { return op == RecurrentOp::kLstm ? kCell + 1 : kState + 1; }
bool IsMasked(const Node& node, RecurrentOp op) { return node.input_count() > InputCount(op); }

constexpr float kInfinity = __builtin_huge_valf();

// A product of a matrix and a few vectors as a part of another op.
class Product {
 public:
  bool Prepare(int32_t batch, Weights weights, const kernels::KernelTable& kernels, int num_threads) {
    graph::Graph graph;
    const int32_t rows = weights.rows;
    const int input = graph.AddInput({batch, weights.columns});
    const int output = graph.AddValue({batch, rows}, true);
    op_ = MakeFullyConnected(input, output, std::move(weights), -kInfinity, kInfinity);
    return op_->Prepare(graph, kernels, num_threads);
  }
  size_t ScratchFloats() const { return op_->ScratchFloats(); }
  void Run(const float* x, float* y, float* scratch, graph::ThreadPool* pool) const {
    float* const data[] = {const_cast<float*>(x), y};
    op_->Run({data, scratch, pool});
  }

 private:
  std::unique_ptr<graph::Op> op_;
};

// inputs: the input's part of all gates [steps, batch, gates * units], the state [batch, units], in an LSTM the cell
// and, if the layer is masked, the mask [steps, batch, 1]. The output is the state after every step, or after the last
// one alone; behind it, the state after the last step if the layer is masked, and the cell after the last step.
//
// Where the mask is 0, states stay as they are, and so does what the layer puts out, which is zero at first.
class Recurrent : public graph::Op {
 public:
  Recurrent(std::vector<int> op_inputs, int op_output, const RecurrentOptions& options, int32_t steps, int32_t batch,
            bool masked, Weights recurrent, Weights candidate)
      : Op(std::move(op_inputs), op_output),
        gates_(options.gates),
        stored_gates_(options.reset_after ? options.gates : 2),
        return_sequences_(options.return_sequences),
        masked_(masked),
        zero_output_for_mask_(options.zero_output_for_mask),
        units_(options.units),
        steps_(steps),
        batch_(batch),
        recurrent_weights_(std::move(recurrent)),
        candidate_weights_(std::move(candidate)) {}

  const char* name() const override { return gates_ == 3 ? "gru" : "lstm"; }

  bool Prepare(const graph::Graph&, const kernels::KernelTable& kernels, int num_threads) override {
    kernels_ = &kernels.recurrent;
    // Below this the work of the gates is not worth a round of the threads.
    tasks_ = static_cast<int64_t>(batch_) * units_ < 2048 ? 1 : num_threads;
    return recurrent_.Prepare(batch_, std::move(recurrent_weights_), kernels, num_threads) &&
           (stored_gates_ == gates_ || candidate_.Prepare(batch_, std::move(candidate_weights_), kernels, num_threads));
  }

  size_t ScratchFloats() const override {
    const size_t state = static_cast<size_t>(batch_) * units_;
    const size_t products = state * (stored_gates_ == gates_ ? gates_ : gates_ + 1);
    size_t inner = recurrent_.ScratchFloats();
    if (stored_gates_ < gates_) inner = std::max(inner, candidate_.ScratchFloats());
    return products + inner;
  }

  void Run(const graph::RunContext& context) const override {
    const int64_t state = static_cast<int64_t>(batch_) * units_;
    float* const products = context.scratch;  // [batch, stored gates, units], then a GRU's reset state and candidate
    float* const inner = products + state * (stored_gates_ == gates_ ? gates_ : gates_ + 1);
    const float* h = context.data[inputs[1]];
    float* next = context.data[output];
    float* const last = next + state * (return_sequences_ ? steps_ : 1);
    float* const cell = masked_ ? last + state : last;
    const float* c = gates_ == 4 ? context.data[inputs[2]] : nullptr;
    const float* const mask = masked_ ? context.data[inputs.back()] : nullptr;
    for (int32_t t = 0; t < steps_; t++) {
      const float* input = context.data[inputs[0]] + static_cast<int64_t>(t) * state * gates_;
      const float* const counts = masked_ ? mask + static_cast<int64_t>(t) * batch_ : nullptr;
      if (masked_ && std::all_of(counts, counts + batch_, [](float m) { return m == 0.0f; })) {
        Keep(h, next, state);
        if (gates_ == 4) Keep(c, cell, state);
        h = next;
        c = cell;
        if (return_sequences_) next += state;
        continue;
      }
      recurrent_.Run(h, products, inner, context.pool);
      if (gates_ == 4) {
        ForEachUnit(context.pool, [&](int32_t n, int32_t first, int32_t count) {
          const float *in[4], *part[4];
          Gates<4>(input, n, first, in);
          Gates<4>(products, n, first, part);
          const int64_t at = static_cast<int64_t>(n) * units_ + first;
          if (masked_ && counts[n] == 0.0f) {
            Keep(h + at, next + at, count);
            Keep(c + at, cell + at, count);
            return;
          }
          kernels_->lstm(in, part, c + at, cell + at, next + at, count);
        });
        c = cell;
      } else if (stored_gates_ == 3) {
        ForEachUnit(context.pool, [&](int32_t n, int32_t first, int32_t count) {
          const float *in[3], *part[3];
          Gates<3>(input, n, first, in);
          Gates<3>(products, n, first, part);
          const int64_t at = static_cast<int64_t>(n) * units_ + first;
          if (masked_ && counts[n] == 0.0f) return Keep(h + at, next + at, count);
          kernels_->gru(in, part, h + at, next + at, count);
        });
      } else {
        float *const reset = products + 2 * state, *const candidate = reset + state;
        ForEachUnit(context.pool, [&](int32_t n, int32_t first, int32_t count) {
          const float *in[3], *part[2];
          Gates<3>(input, n, first, in);
          Gates<2>(products, n, first, part);
          const int64_t at = static_cast<int64_t>(n) * units_ + first;
          kernels_->reset(in[1], part[1], h + at, reset + at, count);
        });
        candidate_.Run(reset, candidate, inner, context.pool);
        ForEachUnit(context.pool, [&](int32_t n, int32_t first, int32_t count) {
          const float *in[3], *part[2];
          Gates<3>(input, n, first, in);
          Gates<2>(products, n, first, part);
          const int64_t at = static_cast<int64_t>(n) * units_ + first;
          if (masked_ && counts[n] == 0.0f) return Keep(h + at, next + at, count);
          kernels_->update(in, part[0], candidate + at, h + at, next + at, count);
        });
      }
      h = next;
      if (return_sequences_) next += state;
    }
    if (!masked_) return;
    Keep(h, last, state);
    ZeroMaskedOutputs(mask, context.data[output]);
  }

 private:
  static void Keep(const float* from, float* to, int64_t count) {
    if (from != to) std::copy_n(from, count, to);
  }

  // The outputs that masked steps have, where they are zero and not what came before.
  void ZeroMaskedOutputs(const float* mask, float* sequence) const {
    for (int32_t n = 0; n < batch_; n++) {
      bool begun = false;
      for (int32_t t = 0; t < steps_; t++) {
        const int64_t at = static_cast<int64_t>(t) * batch_ + n;
        begun = begun || mask[at] != 0.0f;
        if (mask[at] != 0.0f || (begun && !zero_output_for_mask_)) continue;
        if (return_sequences_ || t == steps_ - 1) {
          std::fill_n(sequence + (return_sequences_ ? at : n) * units_, units_, 0.0f);
        }
      }
    }
  }

  // Where gate g of vector n stands in [batch, gates, units].
  template <int kGates>
  void Gates(const float* all, int32_t n, int32_t first, const float** gate) const {
    for (int g = 0; g < kGates; g++) gate[g] = all + (static_cast<int64_t>(n) * kGates + g) * units_ + first;
  }

  // fn(n, first, count) for runs of units, spread over the threads.
  template <class Fn>
  void ForEachUnit(graph::ThreadPool* pool, const Fn& fn) const {
    pool->For(tasks_, [&](int task) {
      const int64_t all = static_cast<int64_t>(batch_) * units_;
      const int64_t end = Bound(all, task + 1);
      for (int64_t at = Bound(all, task); at < end;) {
        const int32_t n = static_cast<int32_t>(at / units_), first = static_cast<int32_t>(at % units_);
        const int32_t count = static_cast<int32_t>(std::min<int64_t>(units_ - first, end - at));
        fn(n, first, count);
        at += count;
      }
    });
  }
  // Where a task begins; at a cache line, so that no two tasks write to one.
  int64_t Bound(int64_t all, int task) const { return task == tasks_ ? all : all * task / tasks_ / 16 * 16; }

  int gates_, stored_gates_;  // without reset_after the candidate has a matrix of its own
  bool return_sequences_, masked_, zero_output_for_mask_;
  int32_t units_, steps_, batch_;
  Weights recurrent_weights_, candidate_weights_;  // until Prepare
  Product recurrent_, candidate_;
  const kernels::RecurrentKernels* kernels_ = nullptr;
  int tasks_ = 1;
};

std::string Size(int64_t a, int64_t b) { return std::to_string(a) + " x " + std::to_string(b); }

// Reads a matrix: dense, or block-sparse by its own options, which stand under `key`.
std::string ReadMatrix(const Node& node, ReadTo to, Slot slot, const char* key, format::Bytes options, int32_t rows,
                       int32_t columns, Weights* weights) {
  const TfLiteTensor* tensor = node.input(slot);
  const std::string name = "key \"" + std::string(key) + "\"";
  std::string reason = CheckConstant(tensor, (std::string("the tensor of ") + key).c_str());
  if (!reason.empty()) return reason;
  const graph::Dims dims = DimsOf(tensor);
  if (options.data == nullptr) {
    if (dims.size() != 2) return name + " is missing, and its tensor is no dense matrix";
    weights->dense = Floats(tensor);
    weights->rows = dims[0];
    weights->columns = dims[1];
  } else {
    if (dims.size() != 1) return "the tensor of " + std::string(key) + " is not one-dimensional";
    BlockSparseOptions parsed;
    if (!ReadBlockSparse(BlockSparseOp::kFullyConnected, to, options.data, options.size, Floats(tensor),
                         tensor->bytes / sizeof(float), &parsed, &weights->sparse, &reason)) {
      return name + ": " + reason;
    }
    if (parsed.activation != Activation::kNone) return name + ": key \"activation\" is not \"none\"";
    weights->rows = weights->sparse.rows;
    weights->columns = weights->sparse.columns;
  }
  if (weights->rows != rows || weights->columns != columns) {
    return name + ": the matrix is " + Size(weights->rows, weights->columns) + "; expected " + Size(rows, columns);
  }
  return "";
}

std::string ReadBias(const Node& node, Slot slot, const char* what, int32_t rows, const float** bias) {
  *bias = nullptr;
  if (node.input(slot) == nullptr) return "";
  std::string reason = CheckConstant(node.input(slot), what);
  if (reason.empty() && graph::Count(DimsOf(node.input(slot))) != rows) {
    reason = std::string(what) + " has " + std::to_string(graph::Count(DimsOf(node.input(slot)))) +
             " values; expected gates * units = " + std::to_string(rows);
  }
  *bias = Floats(node.input(slot));
  return reason;
}

struct Layer {
  RecurrentOptions options;
  Weights kernel, recurrent, candidate;
};

// Everything that does not depend on the sizes of the input and of the state, but for the input's last one.
std::string ReadLayer(const Node& node, ReadTo to, RecurrentOp op, Layer* layer) {
  const bool lstm = op == RecurrentOp::kLstm;
  const int inputs = InputCount(op), outputs = lstm ? 3 : 2;
  if (node.input_count() < inputs || node.input_count() > inputs + 1 || node.output_count() != outputs) {
    return "it must have " + std::to_string(inputs) + " inputs, or a mask behind them, and " + std::to_string(outputs) +
           " outputs";
  }
  std::string reason = CheckFloat(node.input(kInput), "the input");
  if (reason.empty()) reason = CheckFloat(node.input(kState), "the state");
  if (reason.empty() && lstm) reason = CheckFloat(node.input(kCell), "the cell state");
  if (reason.empty() && IsMasked(node, op)) reason = CheckFloat(node.input(inputs), "the mask");
  for (int i = 0; i < outputs && reason.empty(); i++) reason = CheckFloat(node.output(i), "an output");
  if (!reason.empty()) return reason;
  RecurrentOptions& options = layer->options;
  if (!ReadRecurrent(op, node.custom_options(), node.custom_options_size(), &options, &reason)) return reason;
  const graph::Dims input = DimsOf(node.input(kInput));
  if (input.size() != 3) return "the input has " + std::to_string(input.size()) + " dimensions; expected 3";
  const int32_t rows = options.gates * options.units;  // at most 2^24
  const int32_t stored = options.reset_after ? rows : 2 * options.units;
  reason = ReadMatrix(node, to, kKernel, "kernel", options.kernel, rows, input[2], &layer->kernel);
  if (reason.empty()) {
    reason = ReadMatrix(node, to, kRecurrentKernel, "recurrent_kernel", options.recurrent_kernel, stored, options.units,
                        &layer->recurrent);
  }
  if (reason.empty() && options.reset_after && node.input(kCandidateKernel) != nullptr) {
    reason = "it has a candidate kernel, which only a GRU without \"reset_after\" may have";
  }
  if (reason.empty() && !options.reset_after) {
    reason = ReadMatrix(node, to, kCandidateKernel, "candidate_kernel", options.candidate_kernel, options.units,
                        options.units, &layer->candidate);
  }
  if (reason.empty()) reason = ReadBias(node, kBias, "the bias", rows, &layer->kernel.bias);
  if (reason.empty()) reason = ReadBias(node, kRecurrentBias, "the recurrent bias", stored, &layer->recurrent.bias);
  return reason;
}

// Holds the sizes of input and states against each other and against the layer.
std::string CheckSizes(const Layer& layer, const graph::Dims& input, const graph::Dims& state) {
  const int64_t units = layer.options.units;
  if (input.size() != 3 || input[2] != layer.kernel.columns) {
    return "the input's last dimension does not fit the kernel's " + std::to_string(layer.kernel.columns) + " columns";
  }
  if (state.size() != 2 || state[0] != input[1] || state[1] != units) {
    return "a state has the shape " + (state.size() == 2 ? Size(state[0], state[1]) : "of another rank") +
           "; expected " + Size(input[1], units);
  }
  const int64_t vectors = static_cast<int64_t>(input[0]) * input[1];
  // With the state that an LSTM keeps beside the sequence.
  if (vectors > INT32_MAX || (vectors + input[1]) > INT32_MAX / (units * layer.options.gates)) {
    return "steps * batch * gates * units is 2^31 or more";
  }
  return "";
}

std::string CheckMask(const graph::Dims& input, const graph::Dims& mask) {
  if (mask == graph::Dims{input[0], input[1], 1}) return "";
  return "the mask is not " + Size(input[0], input[1]) + " x 1, as the input's steps and batch";
}

template <RecurrentOp kOp>
std::string Claim(const Node& node) {
  Layer layer;
  std::string reason = ReadLayer(node, ReadTo::kCheck, kOp, &layer);
  if (reason.empty()) reason = CheckSizes(layer, DimsOf(node.input(kInput)), DimsOf(node.input(kState)));
  if (reason.empty() && kOp == RecurrentOp::kLstm) {
    reason = CheckSizes(layer, DimsOf(node.input(kInput)), DimsOf(node.input(kCell)));
  }
  if (reason.empty() && IsMasked(node, kOp)) {
    reason = CheckMask(DimsOf(node.input(kInput)), DimsOf(node.input(InputCount(kOp))));
  }
  return reason;
}

// Vectors from which on the input's part is computed on planes, a block's weights meeting a run of vectors.
constexpr int32_t kWorthPlanes = 8;

// Adds the product of the kernel and all the input's vectors; returns its value [steps, batch, gates * units].
int AddInputProduct(graph::Graph* graph, int input, Weights kernel) {
  const graph::Dims in = graph->value(input).dims;
  const int32_t vectors = in[0] * in[1], rows = kernel.rows;
  if (vectors < kWorthPlanes) {
    const int output = graph->AddValue({in[0], in[1], rows}, true);
    graph->AddOp(MakeFullyConnected(input, output, std::move(kernel), -kInfinity, kInfinity));
    return output;
  }
  const int planes = graph->AddValue({1, 1, vectors, in[2]}), product = graph->AddValue({1, 1, vectors, rows});
  const int output = graph->AddValue({in[0], in[1], rows}, true);
  graph->AddOp(graph::MakeToPlanar(input, planes));
  graph->AddOp(std::make_unique<Conv>(planes, product, ConvOptions(), graph::Border(), std::move(kernel), -kInfinity,
                                      kInfinity));
  graph->AddOp(graph::MakeToInterleaved(product, output));
  return output;
}

template <RecurrentOp kOp>
std::string Build(const Node& node, Builder* builder) {
  const char* name = kOp == RecurrentOp::kGru ? "BlockSparseGRU" : "BlockSparseLSTM";
  graph::Graph& graph = builder->graph();
  Layer layer;
  std::string reason = ReadLayer(node, ReadTo::kLower, kOp, &layer);
  if (!reason.empty()) return std::string(name) + ": " + reason;
  const int input = graph.Interleaved(builder->Input(node, kInput));
  std::vector<int> inputs = {-1, graph.Interleaved(builder->Input(node, kState))};
  if (kOp == RecurrentOp::kLstm) inputs.push_back(graph.Interleaved(builder->Input(node, kCell)));
  const graph::Dims in = graph.value(input).dims;
  for (size_t i = 1; i < inputs.size() && reason.empty(); i++) {
    reason = CheckSizes(layer, in, graph.value(inputs[i]).dims);
  }
  const bool masked = IsMasked(node, kOp);
  if (masked) inputs.push_back(graph.Interleaved(builder->Input(node, InputCount(kOp))));
  if (masked && reason.empty()) reason = CheckMask(in, graph.value(inputs.back()).dims);
  if (!reason.empty()) return std::string(name) + ": " + reason;

  const RecurrentOptions& options = layer.options;
  const int32_t steps = in[0], batch = in[1], kept = options.return_sequences ? steps : 1;
  const graph::Dims sequence = {kept, batch, options.units}, state = {batch, options.units};
  inputs[0] = AddInputProduct(&graph, input, std::move(layer.kernel));
  const int64_t floats = graph::Count(state);
  const auto part = [&](int value, const graph::Dims& dims, int64_t first) {
    const int output = graph.AddValue(dims, true);
    graph.AddOp(graph::MakeCopy(value, output, first));
    return output;
  };
  graph::Dims all = sequence;
  all[0] += (kOp == RecurrentOp::kLstm) + masked;
  const int value = graph.AddValue(all, true);
  graph.AddOp(std::make_unique<Recurrent>(std::move(inputs), value, options, steps, batch, masked,
                                          std::move(layer.recurrent), std::move(layer.candidate)));
  builder->SetOutput(node, all == sequence ? value : part(value, sequence, 0), 0);
  builder->SetOutput(node, part(value, state, floats * (masked ? kept : kept - 1)), 1);
  if (kOp == RecurrentOp::kLstm) builder->SetOutput(node, part(value, state, floats * (all[0] - 1)), 2);
  return "";
}

}  // namespace

extern const OpRegistration kBlockSparseGru, kBlockSparseLstm;
constexpr OpRegistration kBlockSparseGru = {kTfLiteBuiltinCustom, "BlockSparseGRU", Claim<RecurrentOp::kGru>,
                                            Build<RecurrentOp::kGru>};
constexpr OpRegistration kBlockSparseLstm = {kTfLiteBuiltinCustom, "BlockSparseLSTM", Claim<RecurrentOp::kLstm>,
                                             Build<RecurrentOp::kLstm>};

}  // namespace ops
}  // namespace block_sparse
