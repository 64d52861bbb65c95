// Vertical blocks of any height, in any order of rows, to the lowered form.
#ifndef TFLITE_DELEGATE_FORMAT_LOWERING_H_
#define TFLITE_DELEGATE_FORMAT_LOWERING_H_

#include <cstdint>
#include <vector>

#include "tflite_delegate/format/lowered.h"

namespace block_sparse::format {

// The heights that the kernels have.
constexpr int32_t kKernelBlocks[] = {8, 4, 2, 1};

// Kernel block into which blocks of `block` rows are cut, the last piece padded with zeros. A kernel's work for a piece
// of p rows is p multiply-adds and one load of the input a vector, so the p that makes ceil(block / p) * (p + 1) least
// is taken; among equals first one that divides `block` (no padding), then the largest (fewest pieces).
// 3 -> 4, 5 -> 8, 6 -> 2, 7 -> 8, 9 -> 4, 10 -> 2, 12 -> 4, 16 -> 8, 20 -> 4, 64 -> 8.
int32_t PieceHeight(int32_t block);

// Vertical blocks of `block` consecutive rows in one column. Blocks of a column do not overlap, and in the order given
// the columns of the blocks that start at a row ascend (so any column-major order will do).
struct VerticalBlocks {
  int32_t block = 1;
  std::vector<int32_t> start_row;
  std::vector<int32_t> column;
};

// Fills all of `matrix` but `row_channel`. `values` holds `block` floats a block; those past the last row must be 0.
// Time and memory are linear in rows and values: a stable counting sort by start row.
void LowerBlocks(int32_t rows, int32_t columns, const VerticalBlocks& blocks, const float* values,
                 LoweredMatrix* matrix);

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_LOWERING_H_
