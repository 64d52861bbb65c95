#include "tflite_delegate/ops/concat.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/image.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

class PlanarConcat : public graph::Op {
 public:
  PlanarConcat(std::vector<int> op_inputs, int op_output, int axis)
      : Op(std::move(op_inputs), op_output), axis_(axis) {}
  const char* name() const override { return "concat"; }
  bool ConcatenatesChannels() const override { return axis_ == 3; }
  void Constrain(graph::Planner* planner) override {
    if (axis_ != 3) return;
    for (int v : inputs) planner->SamePlanes(v, output);
  }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable&, int) override {
    for (int v : inputs) parts_.push_back(Image(graph.value(v)));
    whole_ = Image(graph.value(output));
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    int32_t at[4] = {0, 0, 0, 0};  // batch, row, column and channel of the whole where the part starts
    for (size_t i = 0; i < parts_.size(); i++) {
      const Image& part = parts_[i];
      Copy(context.data[inputs[i]], part, at, context.data[output], context.pool);
      const int32_t size[4] = {part.batch, part.height, part.width, part.channels};
      at[axis_] += size[axis_];
    }
  }

 private:
  void Copy(const float* from, const Image& part, const int32_t (&at)[4], float* to, graph::ThreadPool* pool) const {
    const int64_t first = static_cast<int64_t>(at[1]) * whole_.planes.row + at[2];
    if (from + part.Plane(0, 0) == to + whole_.Plane(at[0], at[3]) + first) return;  // produced in its place
    const int64_t work = static_cast<int64_t>(part.height) * part.width;
    const bool one_run = axis_ == 3 && part.planes.row == whole_.planes.row;
    ForEachPlane(pool, part.batch, part.channels, work, [&](int32_t n, int32_t channel, int32_t count) {
      for (int32_t c = channel; c < channel + count; c++) {
        const float* source = from + part.Plane(n, c);
        float* target = to + whole_.Plane(at[0] + n, at[3] + c) + first;
        if (one_run) {
          memcpy(target, source, part.Run() * sizeof(float));
          continue;
        }
        for (int32_t y = 0; y < part.height; y++) {
          memcpy(target, source, part.width * sizeof(float));
          source += part.planes.row;
          target += whole_.planes.row;
        }
      }
    });
  }

  int axis_;
  std::vector<Image> parts_;
  Image whole_;
};

// In `outer` steps, `inner[i]` numbers of each input in turn.
class InterleavedConcat : public graph::Op {
 public:
  InterleavedConcat(std::vector<int> op_inputs, int op_output, int axis)
      : Op(std::move(op_inputs), op_output), axis_(axis) {}
  const char* name() const override { return "concat"; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable&, int) override {
    const graph::Dims& out = graph.value(output).dims;
    outer_ = graph::Count(graph::Dims(out.begin(), out.begin() + axis_));
    step_ = 0;
    for (int v : inputs) {
      inner_.push_back(graph::Count(graph.value(v).dims) / outer_);
      step_ += inner_.back();
    }
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    int64_t at = 0;
    for (size_t i = 0; i < inputs.size(); i++) {
      const float* from = context.data[inputs[i]];
      for (int64_t o = 0; o < outer_; o++) {
        memcpy(context.data[output] + o * step_ + at, from + o * inner_[i], inner_[i] * sizeof(float));
      }
      at += inner_[i];
    }
  }

 private:
  int axis_;
  int64_t outer_ = 1, step_ = 0;
  std::vector<int64_t> inner_;
};

}  // namespace

int AddConcat(graph::Graph* graph, std::vector<int> inputs, int axis) {
  graph::Dims out = graph->value(inputs[0]).dims;
  const int rank = static_cast<int>(out.size());
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return -1;
  bool planar = false;
  int64_t total = 0;
  for (int v : inputs) {
    graph::Dims dims = graph->value(v).dims;
    if (dims.size() != out.size()) return -1;
    planar |= graph->value(v).layout == graph::Layout::kPlanar;
    total += dims[axis];
    dims[axis] = out[axis];
    if (dims != out) return -1;
  }
  if (total > std::numeric_limits<int32_t>::max()) return -1;
  out[axis] = static_cast<int32_t>(total);
  if (planar) {
    for (int& v : inputs) v = graph->Planar(v);
    const int output = graph->AddValue(out);
    graph->AddOp(std::make_unique<PlanarConcat>(std::move(inputs), output, axis));
    return output;
  }
  const int output = graph->AddValue(out, true);
  graph->AddOp(std::make_unique<InterleavedConcat>(std::move(inputs), output, axis));
  return output;
}

namespace {

std::string Claim(const Node& node) {
  const auto* params = node.params<TfLiteConcatenationParams>();
  if (params == nullptr || node.input_count() < 1) return "it has no parameters or inputs";
  if (params->activation != kTfLiteActNone) return "it has a fused activation";
  for (int i = 0; i < node.input_count(); i++) {
    const std::string name = "input " + std::to_string(i);
    const std::string reason = CheckFloat(node.input(i), name.c_str());
    if (!reason.empty()) return reason;
  }
  return CheckFloat(node.output(0), "the output");
}

std::string Build(const Node& node, Builder* builder) {
  std::vector<int> inputs;
  for (int i = 0; i < node.input_count(); i++) inputs.push_back(builder->Input(node, i));
  const int output = AddConcat(&builder->graph(), std::move(inputs), node.params<TfLiteConcatenationParams>()->axis);
  if (output < 0) return "CONCATENATION: the inputs' shapes do not fit";
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kConcatenation;
constexpr OpRegistration kConcatenation = {kTfLiteBuiltinConcatenation, nullptr, Claim, Build};

}  // namespace ops
}  // namespace block_sparse
