// Shapes and axes that a node takes as a constant tensor.
#ifndef TFLITE_DELEGATE_OPS_INT_CONSTANT_H_
#define TFLITE_DELEGATE_OPS_INT_CONSTANT_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

// Reads a constant int32 tensor of at most 8 values. "" or the reason why it cannot.
inline std::string ReadInts(const TfLiteTensor* tensor, const char* what, std::vector<int32_t>* values) {
  const std::string name(what);
  if (tensor == nullptr) return name + " is missing";
  if (tensor->type != kTfLiteInt32) return name + " is not int32";
  if (tensor->allocation_type != kTfLiteMmapRo || tensor->dims == nullptr) return name + " is not constant";
  int64_t count = 1;
  for (int i = 0; i < tensor->dims->size; i++) count *= tensor->dims->data[i];
  if (count < 0 || count > 8 || tensor->bytes != static_cast<size_t>(count) * sizeof(int32_t)) {
    return name + " does not have the size of its shape, or more than 8 values";
  }
  if (count > 0 && tensor->data.data == nullptr) return name + " is not constant";
  values->resize(static_cast<size_t>(count));
  if (count > 0) memcpy(values->data(), tensor->data.data, tensor->bytes);
  return "";
}

// Axis of a tensor of `rank` dimensions, counted from the end if negative; false if there is none such.
inline bool NormalizeAxis(int32_t rank, int32_t* axis) {
  if (*axis < 0) *axis += rank;
  return *axis >= 0 && *axis < rank;
}

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_INT_CONSTANT_H_
