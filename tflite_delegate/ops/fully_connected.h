// Matrix times vector, dense or block-sparse.
#ifndef TFLITE_DELEGATE_OPS_FULLY_CONNECTED_H_
#define TFLITE_DELEGATE_OPS_FULLY_CONNECTED_H_

#include <memory>

#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/ops/weights.h"

namespace block_sparse {
namespace ops {

// output[..., rows] = clamp(weights * input[..., columns] + bias). Both values are interleaved; the input holds a whole
// number of vectors of weights.columns.
std::unique_ptr<graph::Op> MakeFullyConnected(int input, int output, Weights weights, float low, float high);

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_FULLY_CONNECTED_H_
