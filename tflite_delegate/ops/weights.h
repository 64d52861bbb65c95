// The constant weights of an op: a matrix with its bias, dense or block-sparse.
#ifndef TFLITE_DELEGATE_OPS_WEIGHTS_H_
#define TFLITE_DELEGATE_OPS_WEIGHTS_H_

#include <cstdint>

#include "tflite_delegate/format/lowered.h"

namespace block_sparse {
namespace ops {

struct Weights {
  const float* dense = nullptr;  // [rows, columns], row-major; null: `sparse` holds them
  LoweredMatrix sparse;
  int32_t rows = 0, columns = 0;
  const float* bias = nullptr;  // one a row, or null
};

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_WEIGHTS_H_
