// The kernels behind gemv.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_
#include "tflite_delegate/kernels/gemv.h"
namespace block_sparse {
namespace kernels {
template <class Simd>
constexpr GemvKernels MakeGemvKernels() {
  return {};
}
}  // namespace kernels
}  // namespace block_sparse
#endif  // TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_
