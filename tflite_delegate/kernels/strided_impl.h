// The kernels behind strided.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_STRIDED_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_STRIDED_IMPL_H_

#include "tflite_delegate/kernels/strided.h"

namespace block_sparse {
namespace kernels {

template <class Simd, int kStep>
void CopyStrided(const float* x, int32_t count, float* y) {
  int32_t i = 0;
  // Before the last one there is always a whole stretch to load.
  for (; i + Simd::kLanes < count; i += Simd::kLanes) {
    Simd::Store(y + i, Simd::template LoadEvery<kStep>(x + i * kStep));
  }
  if (i > 0) {
    // The last of them at the stretch's end, which begins among those that are there already.
    i = count - Simd::kLanes;
    Simd::Store(y + i, Simd::template LoadEvery<kStep, kStep - 1>(x + i * kStep - (kStep - 1)));
    return;
  }
  for (; i < count; i++) y[i] = x[i * kStep];
}

template <class Simd>
constexpr StridedKernels MakeStridedKernels() {
  return {{nullptr, nullptr, CopyStrided<Simd, 2>, CopyStrided<Simd, 3>, nullptr, nullptr, CopyStrided<Simd, 6>}};
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_STRIDED_IMPL_H_
