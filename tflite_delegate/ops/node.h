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

// A node and its tensors, read only.
class Node {
 public:
  Node(TfLiteContext* context, const TfLiteNode* node, const TfLiteRegistration* registration)
      : context_(context), node_(node), registration_(registration) {}

  int input_count() const { return node_->inputs->size; }
  int output_count() const { return node_->outputs->size; }
  // Null when absent.
  const TfLiteTensor* input(int i) const {
    if (i >= input_count() || node_->inputs->data[i] < 0) return nullptr;
    return &context_->tensors[node_->inputs->data[i]];
  }
  int input_tensor(int i) const { return i < input_count() ? node_->inputs->data[i] : -1; }
  int output_tensor(int i) const { return node_->outputs->data[i]; }
  const TfLiteTensor* output(int i) const { return &context_->tensors[node_->outputs->data[i]]; }

  template <class Params>
  const Params* params() const {
    return static_cast<const Params*>(node_->builtin_data);
  }
  const uint8_t* custom_options() const { return static_cast<const uint8_t*>(node_->custom_initial_data); }
  size_t custom_options_size() const {
    return node_->custom_initial_data_size > 0 ? static_cast<size_t>(node_->custom_initial_data_size) : 0;
  }
  int builtin_code() const { return registration_->builtin_code; }
  const char* custom_name() const { return registration_->custom_name; }

 private:
  TfLiteContext* context_;
  const TfLiteNode* node_;
  const TfLiteRegistration* registration_;
};

// --- Helpers for Claim: "" means yes, else the reason, such as "input 1 is not constant". ---
// fp32, not quantised, not sparse, of at most 5 dimensions, none of them unknown or 0.
std::string CheckFloat(const TfLiteTensor* tensor, const char* what);
std::string CheckConstant(const TfLiteTensor* tensor, const char* what);
// The same for the block-sparse operators, whose messages stand behind the op's name: inputs 0 and 1 are fp32, the values
// constant and one-dimensional; a bias, if any, is constant and has `rows` entries.
std::string CheckSparseInputs(const Node& node);
std::string CheckSparseBias(const Node& node, int32_t rows);
inline const float* Floats(const TfLiteTensor* tensor) { return static_cast<const float*>(tensor->data.data); }
graph::Dims DimsOf(const TfLiteTensor* tensor);
// Fused activation of a builtin op -> clamp bounds; false if it is another kind.
bool ActivationBounds(TfLiteFusedActivation activation, float* low, float* high);
bool ActivationBounds(Activation activation, float* low, float* high);

// What Build uses: values by the runtime's tensor index.
class Builder {
 public:
  Builder(graph::Graph* graph, std::vector<int>* value_of_tensor) : graph_(graph), value_of_tensor_(value_of_tensor) {}
  graph::Graph& graph() { return *graph_; }
  // Value of the node's input i as it is at hand: a constant, or in either layout (graph().Planar(v) converts).
  int Input(const Node& node, int i);
  const graph::Value& value(int id) { return graph_->value(id); }
  // Records that `value` is the node's output 0.
  void SetOutput(const Node& node, int value) { (*value_of_tensor_)[node.output_tensor(0)] = value; }

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
