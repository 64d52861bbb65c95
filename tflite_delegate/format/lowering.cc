#include "tflite_delegate/format/lowering.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace block_sparse::format {

int32_t PieceHeight(int32_t block) {
  int32_t best = 0;
  double best_cost = 0;
  for (int32_t height : kKernelBlocks) {  // descending
    const double cost = (block + height - 1) / height * (height + kBlockOverhead);
    if (best == 0 || cost < best_cost) {
      best = height;
      best_cost = cost;
    }
  }
  return best;
}

void LowerBlocks(int32_t rows, int32_t columns, VerticalBlocks blocks, const float* values, LoweredMatrix* matrix) {
  const int32_t height = PieceHeight(blocks.block);
  matrix->rows = rows;
  matrix->columns = columns;
  matrix->block = height;
  matrix->source = values;
  if (height == blocks.block) {
    matrix->block_row = std::move(blocks.start_row);
    matrix->block_column = std::move(blocks.column);
    matrix->first_value = std::move(blocks.first_value);
  } else {
    const bool padded = blocks.block % height != 0;
    if (padded) matrix->source = nullptr;
    for (size_t i = 0; i < blocks.column.size(); ++i) {
      const size_t first = blocks.first_value.empty() ? i * static_cast<size_t>(blocks.block) : blocks.first_value[i];
      for (int32_t top = 0; top < blocks.block; top += height) {
        const int32_t row = blocks.start_row[i] + top;
        if (row >= rows) break;  // a ragged block's rest, all zeros
        matrix->block_row.push_back(row);
        matrix->block_column.push_back(blocks.column[i]);
        const size_t at = first + static_cast<size_t>(top);
        if (padded) {
          const size_t end = at + static_cast<size_t>(std::min(height, blocks.block - top));
          matrix->values.insert(matrix->values.end(), values + at, values + end);
          matrix->values.resize(matrix->weights(), 0.0f);
        } else {
          matrix->first_value.push_back(static_cast<uint32_t>(at));
        }
      }
    }
  }
  int32_t in_block = 0;  // the bits of all rows; a height is a power of two
  for (int32_t row : matrix->block_row) in_block |= row & (height - 1);
  matrix->aligned = in_block == 0;
}

}  // namespace block_sparse::format
