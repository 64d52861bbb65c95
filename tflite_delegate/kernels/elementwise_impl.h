// The kernels behind elementwise.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_ELEMENTWISE_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_ELEMENTWISE_IMPL_H_
#include "tflite_delegate/kernels/elementwise.h"
namespace block_sparse {
namespace kernels {
template <class Simd>
constexpr ElementwiseKernels MakeElementwiseKernels() {
  return {};
}
}  // namespace kernels
}  // namespace block_sparse
#endif  // TFLITE_DELEGATE_KERNELS_ELEMENTWISE_IMPL_H_
