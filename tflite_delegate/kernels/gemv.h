// Matrix times vector, and times a few vectors at once: y[n, row] = clamp(bias[row] + sum W[row, column] * x[n,
// column]).
//
// At batch 1 the limit is how fast the weights can be read, so they are read once, in order, and in as few bytes as
// possible. A row's sum runs in the same order however the rows are split into calls.
#ifndef TFLITE_DELEGATE_KERNELS_GEMV_H_
#define TFLITE_DELEGATE_KERNELS_GEMV_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

// Dense weights as TFLite stores them: row-major, without gaps.
struct GemvArgs {
  const float* weights;
  const float* bias;  // or null
  int32_t rows, columns;
  const float* x;
  int64_t x_stride;  // floats from one vector of the batch to the next
  float* y;
  int64_t y_stride;
  int32_t batch;
  float low, high;
};

// Rows of a packed block-sparse matrix (gemv_pack.h). A *step* is one row in the unaligned kernels and one group of B
// rows in the aligned ones.
struct SparseGemvArgs {
  const float* weights;    // B a block; in the unaligned kernels rotated, so that row r is at r mod B
  const void* columns;     // one a block: uint16_t or uint32_t; then kMaxBlockStep more that are read but not used
  const uint32_t* counts;  // blocks a step, `rows` rounded up to whole groups of B
  const float* bias;       // one a row, rounded up to whole groups
  int32_t rows;
  int32_t skipped_rows;  // the first rows are not stored: 0 or B
  const float* x;
  int64_t x_stride;
  float* y;  // row 0, even if it is not stored
  int64_t y_stride;
  int32_t batch;
  float low, high;
};

using GemvKernel = void (*)(const GemvArgs&);
using SparseGemvKernel = void (*)(const SparseGemvArgs&);

constexpr int kGemvBlocks = 4;  // blocks of 1, 2, 4, 8 rows, indexed by log2

struct GemvKernels {
  GemvKernel dense;
  // [bytes of a column index / 4][log2(block)]
  SparseGemvKernel aligned[2][kGemvBlocks];
  SparseGemvKernel unaligned[2][kGemvBlocks];
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_GEMV_H_
