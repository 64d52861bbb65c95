// What an op sees of a node of the runtime's graph, and the registry that maps node kinds to ops.
//
// Adding an op: one file ops/<op>.cc with a Claim and a Build function and a line in registry.cc.
#ifndef TFLITE_DELEGATE_OPS_NODE_H_
#define TFLITE_DELEGATE_OPS_NODE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tensorflow/lite/builtin_ops.h"
#include "tensorflow/lite/core/c/builtin_op_data.h"
#include "tensorflow/lite/core/c/common.h"
#include "tflite_delegate/format/options.h"
#include "tflite_delegate/graph/graph.h"

namespace block_sparse {
namespace ops {

// A node and its tensors, read only. It holds copies: the runtime lets a delegate look at nodes only while it claims
// them, and moves them afterwards. What the copied pointers point to stays for the life of the model.
class Node {
 public:
  Node(const TfLiteContext* context, const TfLiteNode* node, const TfLiteRegistration* registration)
      : context_(context),
        inputs_(node->inputs->data, node->inputs->data + node->inputs->size),
        outputs_(node->outputs->data, node->outputs->data + node->outputs->size),
        builtin_data_(node->builtin_data),
        custom_options_(static_cast<const uint8_t*>(node->custom_initial_data)),
        custom_options_size_(node->custom_initial_data_size > 0 ? node->custom_initial_data_size : 0),
        builtin_code_(registration->builtin_code),
        custom_name_(registration->custom_name) {}

  int input_count() const { return static_cast<int>(inputs_.size()); }
  int output_count() const { return static_cast<int>(outputs_.size()); }
  // Null when absent.
  const TfLiteTensor* input(int i) const {
    const int tensor = input_tensor(i);
    return tensor < 0 ? nullptr : &context_->tensors[tensor];
  }
  int input_tensor(int i) const { return i < input_count() ? inputs_[i] : -1; }
  int output_tensor(int i) const { return outputs_[i]; }
  const TfLiteTensor* output(int i) const { return &context_->tensors[outputs_[i]]; }

  template <class Params>
  const Params* params() const {
    return static_cast<const Params*>(builtin_data_);
  }
  const uint8_t* custom_options() const { return custom_options_; }
  size_t custom_options_size() const { return custom_options_size_; }
  int builtin_code() const { return builtin_code_; }
  const char* custom_name() const { return custom_name_; }

 private:
  const TfLiteContext* context_;
  std::vector<int> inputs_, outputs_;
  const void* builtin_data_;
  const uint8_t* custom_options_;
  size_t custom_options_size_;
  int builtin_code_;
  const char* custom_name_;
};

// --- Helpers for Claim: "" means yes, else the reason, such as "input 1 is not constant". ---
// fp32, not quantised, not sparse, of at most 5 dimensions, none of them unknown or 0.
std::string CheckFloat(const TfLiteTensor* tensor, const char* what);
std::string CheckConstant(const TfLiteTensor* tensor, const char* what);
// Of a builtin op with at least 2 inputs: input 0 and the output are as above, the weights and the bias, if any,
// constant too.
std::string CheckWeighted(const Node& node);
// The same for the block-sparse operators, whose messages stand behind the op's name: inputs 0 and 1 are fp32, the
// values constant and one-dimensional; a bias, if any, is constant and has `rows` entries.
std::string CheckSparseInputs(const Node& node);
std::string CheckSparseBias(const Node& node, int32_t rows);
inline const float* Floats(const TfLiteTensor* tensor) { return static_cast<const float*>(tensor->data.data); }
graph::Dims DimsOf(const TfLiteTensor* tensor);
// Fused activation of a builtin op -> clamp bounds; false if it is another kind.
bool ActivationBounds(TfLiteFusedActivation activation, float* low, float* high);
bool ActivationBounds(Activation activation, float* low, float* high);

// Strides and dilations.
constexpr int32_t kMaxStride = 1 << 12;
// Of a convolution, depthwise or not, with 4-dimensional weights: activation, strides, dilations, kernel and padding.
template <class Params>
std::string CheckKernel(const Params& params, const graph::Dims& weights, int32_t max_kernel) {
  float low, high;
  if (!ActivationBounds(params.activation, &low, &high)) return "its fused activation is not a clamp";
  if (params.stride_height < 1 || params.stride_width < 1 || params.dilation_height_factor < 1 ||
      params.dilation_width_factor < 1 || params.stride_height > kMaxStride || params.stride_width > kMaxStride ||
      params.dilation_height_factor > kMaxStride || params.dilation_width_factor > kMaxStride ||
      weights[1] > max_kernel || weights[2] > max_kernel) {
    return "its strides, dilations or kernel are out of range";
  }
  if (params.padding != kTfLitePaddingSame && params.padding != kTfLitePaddingValid) return "its padding is unknown";
  return "";
}

// What Build uses: values by the runtime's tensor index.
class Builder {
 public:
  Builder(graph::Graph* graph, std::vector<int>* value_of_tensor) : graph_(graph), value_of_tensor_(value_of_tensor) {}
  graph::Graph& graph() { return *graph_; }
  // Value of the node's input i as it is at hand: a constant, or in either layout (graph().Planar(v) converts).
  int Input(const Node& node, int i);
  const graph::Value& value(int id) { return graph_->value(id); }
  // Records that `value` is the node's output i.
  void SetOutput(const Node& node, int value, int i = 0) { (*value_of_tensor_)[node.output_tensor(i)] = value; }

 private:
  graph::Graph* graph_;
  std::vector<int>* value_of_tensor_;
};

struct OpRegistration {
  int builtin_code;         // or kTfLiteBuiltinCustom
  const char* custom_name;  // for custom ops
  // Looks at types, constants and parameters. Shapes of non-constant tensors are those in the file: ranks may be relied
  // upon, sizes may change later (resize_tensor_input), and an op must check those again in Build.
  std::string (*claim)(const Node& node);
  // Adds ops and the output value (whose dims it works out from its inputs' dims in the graph). Returns "" or what is
  // wrong, in which case loading the model fails with that message.
  std::string (*build)(const Node& node, Builder* builder);
};

// Null when no op is registered for the node.
const OpRegistration* FindOp(const Node& node);

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_NODE_H_
