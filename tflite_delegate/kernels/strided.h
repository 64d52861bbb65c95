// Taking runs of numbers apart: how interleaved pixels become planes, and how a stride splits a plane.
#ifndef TFLITE_DELEGATE_KERNELS_STRIDED_H_
#define TFLITE_DELEGATE_KERNELS_STRIDED_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

constexpr int kStridedMaxStep = 6;  // an RGB image under stride 2

struct StridedKernels {
  // [step]: y[k][i] = x[i * step + k] for i < count and k < step, but where y[k] is null; null where there is none.
  // Touch nothing outside x[0, count * step).
  void (*split[kStridedMaxStep + 1])(const float* x, int32_t count, float* const* y);
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_STRIDED_H_
