// The kernels behind depthwise.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_
#include "tflite_delegate/kernels/depthwise.h"
namespace block_sparse {
namespace kernels {
template <class Simd>
constexpr DepthwiseKernels MakeDepthwiseKernels() {
  return {};
}
}  // namespace kernels
}  // namespace block_sparse
#endif  // TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_
