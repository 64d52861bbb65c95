#include "tflite_delegate/format/lowering.h"

#include <cstddef>
#include <cstring>

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

void LowerBlocks(int32_t rows, int32_t columns, const VerticalBlocks& blocks, const float* values,
                 LoweredMatrix* matrix) {
  const int32_t height = PieceHeight(blocks.block);
  const size_t count = blocks.start_row.size();
  matrix->rows = rows;
  matrix->columns = columns;
  matrix->block = height;

  // row_begin[r + 1] counts the pieces of row r, then is summed, then serves as the cursor of row r - 1's successor.
  std::vector<uint32_t>& begin = matrix->row_begin;
  begin.assign(static_cast<size_t>(rows) + 1, 0);
  int32_t in_block = 0;  // the bits of all rows; a height is a power of two
  for (size_t i = 0; i < count; ++i) {
    for (int32_t top = 0; top < blocks.block; top += height) {
      const int32_t row = blocks.start_row[i] + top;
      if (row >= rows) break;  // a ragged block's rest, all zeros
      ++begin[static_cast<size_t>(row) + 1];
      in_block |= row & (height - 1);
    }
  }
  matrix->aligned = in_block == 0;
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) begin[r + 1] += begin[r];

  const size_t pieces = begin[static_cast<size_t>(rows)];
  matrix->block_column.assign(pieces, 0);
  matrix->values.assign(pieces * static_cast<size_t>(height), 0.0f);
  std::vector<uint32_t> cursor(begin.begin(), begin.end() - 1);
  for (size_t i = 0; i < count; ++i) {
    const float* source =
        values + (blocks.first_value.empty() ? i * static_cast<size_t>(blocks.block) : blocks.first_value[i]);
    for (int32_t top = 0; top < blocks.block; top += height) {
      const int32_t row = blocks.start_row[i] + top;
      if (row >= rows) break;
      const size_t piece = cursor[static_cast<size_t>(row)]++;
      matrix->block_column[piece] = blocks.column[i];
      const int32_t filled = blocks.block - top < height ? blocks.block - top : height;
      float* to = matrix->values.data() + piece * static_cast<size_t>(height);
      if (filled == 4) {
        std::memcpy(to, source + top, 4 * sizeof(float));  // the usual size: no call
      } else {
        std::memcpy(to, source + top, static_cast<size_t>(filled) * sizeof(float));
      }
    }
  }
}

}  // namespace block_sparse::format
