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
  // y[r * y_row + i] = x[r * x_row + 2 * i] for r < rows and i < count. May read two vectors past the last of each row,
  // and write anything between the rows.
  void (*pick)(const float* x, int64_t x_row, int32_t rows, int32_t count, float* y, int64_t y_row);
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_STRIDED_H_
