#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

std::string CheckFloat(const TfLiteTensor* tensor, const char* what) {
  const std::string name(what);
  if (tensor == nullptr) return name + " is missing";
  if (tensor->type != kTfLiteFloat32) return name + " is not fp32";
  if (tensor->sparsity != nullptr) return name + " is stored in TFLite's own sparse form";
  if (tensor->dims == nullptr) return name + " has no shape";
  if (tensor->dims->size > 5) return name + " has more than 5 dimensions";
  int64_t count = 1;
  for (int i = 0; i < tensor->dims->size; i++) {
    if (tensor->dims->data[i] <= 0) return name + " has an empty or unknown dimension";
    if (__builtin_mul_overflow(count, static_cast<int64_t>(tensor->dims->data[i]), &count) || count > INT32_MAX) {
      return name + " is too large";
    }
  }
  return "";
}

std::string CheckConstant(const TfLiteTensor* tensor, const char* what) {
  std::string reason = CheckFloat(tensor, what);
  if (!reason.empty()) return reason;
  if (tensor->allocation_type != kTfLiteMmapRo || tensor->data.data == nullptr) {
    return std::string(what) + " is not constant";
  }
  if (tensor->bytes != static_cast<size_t>(graph::Count(DimsOf(tensor))) * sizeof(float)) {
    return std::string(what) + "'s data does not have the size of its shape";
  }
  return "";
}

std::string CheckWeighted(const Node& node) {
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckConstant(node.input(1), "the weights");
  if (reason.empty() && node.input(2) != nullptr) reason = CheckConstant(node.input(2), "the bias");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  return reason;
}

std::string CheckSparseInputs(const Node& node) {
  if (node.input_count() < 2 || node.input_count() > 3 || node.output_count() != 1) {
    return "it must have 2 or 3 inputs and 1 output";
  }
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckConstant(node.input(1), "the values tensor");
  if (reason.empty() && node.input(1)->dims->size != 1) reason = "the values tensor is not one-dimensional";
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  return reason;
}

std::string CheckSparseBias(const Node& node, int32_t rows) {
  if (node.input(2) == nullptr) return "";
  std::string reason = CheckConstant(node.input(2), "the bias");
  if (reason.empty() && graph::Count(DimsOf(node.input(2))) != rows) {
    reason = "the bias has " + std::to_string(graph::Count(DimsOf(node.input(2)))) + " values, but `rows` is " +
             std::to_string(rows);
  }
  return reason;
}

graph::Dims DimsOf(const TfLiteTensor* tensor) {
  return graph::Dims(tensor->dims->data, tensor->dims->data + tensor->dims->size);
}

bool ActivationBounds(TfLiteFusedActivation activation, float* low, float* high) {
  switch (activation) {
    case kTfLiteActNone:
      return ActivationBounds(Activation::kNone, low, high);
    case kTfLiteActRelu:
      return ActivationBounds(Activation::kRelu, low, high);
    case kTfLiteActReluN1To1:
      return ActivationBounds(Activation::kReluN1To1, low, high);
    case kTfLiteActRelu6:
      return ActivationBounds(Activation::kRelu6, low, high);
    default:
      return false;
  }
}

bool ActivationBounds(Activation activation, float* low, float* high) {
  *low = -__builtin_huge_valf();
  *high = __builtin_huge_valf();
  if (activation == Activation::kRelu || activation == Activation::kRelu6) *low = 0.0f;
  if (activation == Activation::kRelu6) *high = 6.0f;
  if (activation == Activation::kReluN1To1) {
    *low = -1.0f;
    *high = 1.0f;
  }
  return true;
}

int Builder::Input(const Node& node, int i) {
  const int tensor = node.input_tensor(i);
  if (tensor < 0) return -1;
  int& value = (*value_of_tensor_)[tensor];
  if (value < 0) {
    // Only constants are not there yet: inputs of the stretch were added before the first node.
    value = graph_->AddConstant(DimsOf(node.input(i)), Floats(node.input(i)));
  }
  return value;
}

}  // namespace ops
}  // namespace block_sparse
