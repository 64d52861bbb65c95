// RESHAPE, SQUEEZE and EXPAND_DIMS: the same numbers under another shape.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/ops/int_constant.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

class Reshape : public graph::Op {
 public:
  Reshape(int input, int output) : Op({input}, output) {}
  const char* name() const override { return "reshape"; }
  int InPlaceInput() const override { return 0; }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable&, int) override {
    bytes_ = static_cast<size_t>(graph::Count(graph.value(output).dims)) * sizeof(float);
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    if (context.data[output] != context.data[inputs[0]]) memcpy(context.data[output], context.data[inputs[0]], bytes_);
  }

 private:
  size_t bytes_ = 0;
};

// The shape that the node asks for when its input is `in`; "" or what is wrong.
std::string ReshapedDims(const Node& node, const graph::Dims& in, graph::Dims* out) {
  if (node.input_count() > 1) {
    std::string reason = ReadInts(node.input(1), "the new shape", out);
    if (!reason.empty()) return reason;
  } else {
    const auto* params = node.params<TfLiteReshapeParams>();
    if (params == nullptr || params->num_dimensions < 0 ||
        params->num_dimensions > TFLITE_RESHAPE_PARAMS_MAX_DIMENSION_COUNT) {
      return "it has no new shape";
    }
    out->assign(params->shape, params->shape + params->num_dimensions);
    // How old converters wrote the shape of a scalar.
    if (params->num_dimensions == 1 && params->shape[0] == 0) out->clear();
  }
  int64_t known = 1;
  int32_t* open = nullptr;
  for (int32_t& d : *out) {
    if (d == -1 && open == nullptr) {
      open = &d;
    } else if (d <= 0 || __builtin_mul_overflow(known, static_cast<int64_t>(d), &known)) {
      return "its new shape has an empty or a second unknown dimension";
    }
  }
  const int64_t count = graph::Count(in);
  if (open != nullptr ? count % known != 0 : count != known) {
    return std::to_string(count) + " values do not fit its new shape";
  }
  if (open != nullptr) *open = static_cast<int32_t>(count / known);
  return "";
}

std::string SqueezedDims(const Node& node, const graph::Dims& in, graph::Dims* out) {
  const auto* params = node.params<TfLiteSqueezeParams>();
  if (params == nullptr || params->num_squeeze_dims < 0 || params->num_squeeze_dims > 8) return "it has no parameters";
  const int32_t rank = static_cast<int32_t>(in.size());
  std::vector<bool> drop(in.size(), false);
  for (int i = 0; i < params->num_squeeze_dims; i++) {
    int32_t axis = params->squeeze_dims[i];
    if (!NormalizeAxis(rank, &axis) || in[axis] != 1) return "it squeezes a dimension that is not 1";
    drop[axis] = true;
  }
  for (int32_t i = 0; i < rank; i++) {
    if (params->num_squeeze_dims == 0 ? in[i] != 1 : !drop[i]) out->push_back(in[i]);
  }
  return "";
}

std::string ExpandedDims(const Node& node, const graph::Dims& in, graph::Dims* out) {
  std::vector<int32_t> axis;
  std::string reason = ReadInts(node.input(1), "the axis", &axis);
  if (!reason.empty()) return reason;
  if (axis.size() != 1 || !NormalizeAxis(static_cast<int32_t>(in.size()) + 1, &axis[0])) return "it has no such axis";
  *out = in;
  out->insert(out->begin() + axis[0], 1);
  return "";
}

using NewDims = std::string (*)(const Node& node, const graph::Dims& in, graph::Dims* out);

template <NewDims kNewDims>
std::string Claim(const Node& node) {
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  graph::Dims dims;
  if (reason.empty()) reason = kNewDims(node, DimsOf(node.input(0)), &dims);
  return reason;
}

template <NewDims kNewDims>
std::string Build(const Node& node, Builder* builder) {
  graph::Graph& graph = builder->graph();
  const int input = graph.Interleaved(builder->Input(node, 0));
  graph::Dims dims;
  const std::string reason = kNewDims(node, graph.value(input).dims, &dims);
  if (!reason.empty()) return reason;
  const int output = graph.AddValue(dims, true);
  graph.AddOp(std::make_unique<Reshape>(input, output));
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kReshape, kSqueeze, kExpandDims;
constexpr OpRegistration kReshape = {kTfLiteBuiltinReshape, nullptr, Claim<ReshapedDims>, Build<ReshapedDims>};
constexpr OpRegistration kSqueeze = {kTfLiteBuiltinSqueeze, nullptr, Claim<SqueezedDims>, Build<SqueezedDims>};
constexpr OpRegistration kExpandDims = {kTfLiteBuiltinExpandDims, nullptr, Claim<ExpandedDims>, Build<ExpandedDims>};

}  // namespace ops
}  // namespace block_sparse
