// Taking runs of numbers apart: how interleaved pixels become planes, how a stride splits a plane, and which of its
// pixels a position of a kernel meets.
#ifndef TFLITE_DELEGATE_KERNELS_STRIDED_H_
#define TFLITE_DELEGATE_KERNELS_STRIDED_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

constexpr int kStridedMaxStep = 6;  // an RGB image under stride 2
constexpr int kGatherMaxStep = 2;

// y[c * y_plane + r * y_row + i] = x[c * x_plane + r * x_row + i * step] for c < channels, r < rows and i < columns, or
// 0 where mask[r * y_row + i] is 0 and not -1.
struct GatherArgs {
  const float* x;
  int64_t x_plane, x_row;
  const int32_t* mask;
  int32_t channels, rows, columns;
  float* y;
  int64_t y_plane, y_row;
};

struct StridedKernels {
  // [step]: y[k][i] = x[i * step + k] for i < count and k < step, but where y[k] is null; null where there is none.
  // Touch nothing outside x[0, count * step).
  void (*split[kStridedMaxStep + 1])(const float* x, int32_t count, float* const* y);
  // y[r * y_row + i] = x[r * x_row + 2 * i] for r < rows and i < count. May read two vectors past the last of each row,
  // and write anything between the rows.
  void (*pick)(const float* x, int64_t x_row, int32_t rows, int32_t count, float* y, int64_t y_row);
  // [step]: null where there is none. Columns up to a whole vector are read and written; those of a row are written
  // before the next one's.
  void (*gather[kGatherMaxStep + 1])(const GatherArgs& args);
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_STRIDED_H_
