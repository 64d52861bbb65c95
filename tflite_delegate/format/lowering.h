// Vertical blocks of any height, in any order of rows, to the lowered form.
#ifndef TFLITE_DELEGATE_FORMAT_LOWERING_H_
#define TFLITE_DELEGATE_FORMAT_LOWERING_H_

#include <cstdint>
#include <vector>

#include "tflite_delegate/format/lowered.h"

namespace block_sparse::format {

// The heights that the kernels have.
constexpr int32_t kKernelBlocks[] = {8, 4, 2, 1};

// What a block costs beside one multiply-add a row (the input's load, its address, the loop), in multiply-adds: fits
// the times measured for blocks of 4 and of 8 rows over the 1x1 layers of MobileNetV1.
constexpr double kBlockOverhead = 2.4;
// The same where a block meets one vector and not a run of pixels: fits the 1.2 and 1.7 ns of blocks of 4 and of 8 rows
// in recurrent kernels of 3072 x 1024; a row alone takes 2 ns.
constexpr double kVectorBlockOverhead = 12;

// Kernel block into which blocks of `block` rows are cut, the last piece padded with zeros: the height that costs
// least, and among equals the largest. 3 -> 4, 5 -> 8, 6 -> 8, 9 -> 4, 10 -> 4, 12 -> 4, 16 -> 8, 20 -> 8, 64 -> 8.
int32_t PieceHeight(int32_t block);

// Vertical blocks of `block` consecutive rows in one column. Blocks of a column do not overlap, and in the order given
// the columns of the blocks that start at a row ascend (so any column-major order will do).
struct VerticalBlocks {
  int32_t block = 1;
  std::vector<int32_t> start_row;
  std::vector<int32_t> column;
  // Where the block's values begin; empty: block i's begin at i * block.
  std::vector<uint32_t> first_value;
};

// Fills all of `matrix` but `row_channel`. A block has `block` floats of `values`; those past the last row must be 0.
// `matrix` refers to them unless blocks are padded.
void LowerBlocks(int32_t rows, int32_t columns, VerticalBlocks blocks, const float* values, LoweredMatrix* matrix);

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_LOWERING_H_
