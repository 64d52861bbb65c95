// Values around an image or any other tensor of up to 4 dimensions.
#ifndef TFLITE_DELEGATE_OPS_PAD_H_
#define TFLITE_DELEGATE_OPS_PAD_H_

#include <array>
#include <cstdint>

#include "tflite_delegate/graph/graph.h"

namespace block_sparse {
namespace ops {

// For each of 4 dimensions, those that the tensor lacks first: values before and after.
using Padding = std::array<std::array<int32_t, 2>, 4>;

// Adds the op; returns its output, of the input's layout, or -1 if it would be too large.
int AddPad(graph::Graph* graph, int input, const Padding& padding, float value);

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_PAD_H_
