// Sums, maxima and softmax of runs of numbers.
#ifndef TFLITE_DELEGATE_KERNELS_REDUCE_H_
#define TFLITE_DELEGATE_KERNELS_REDUCE_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

struct ReduceKernels {
  // Of `height` runs of `width` numbers each, `row` apart.
  float (*sum)(const float* x, int32_t height, int32_t width, int32_t row);
  float (*max)(const float* x, int32_t height, int32_t width, int32_t row);
  // Of `count` vectors of `width` numbers each, one after the other: y[i] = sum or maximum of x[k, i] over k.
  void (*sum_rows)(const float* x, int32_t count, int32_t width, float* y);
  void (*max_rows)(const float* x, int32_t count, int32_t width, float* y);
  // y[i] = exp(beta * x[i]) / sum of exp(beta * x[k]) over k, for a run of `count`. y may be x.
  void (*softmax)(const float* x, int32_t count, float beta, float* y);
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_REDUCE_H_
