// The blocks of a lowered matrix row by row.
#ifndef TFLITE_DELEGATE_KERNELS_BLOCKS_BY_ROW_H_
#define TFLITE_DELEGATE_KERNELS_BLOCKS_BY_ROW_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tflite_delegate/format/lowered.h"

namespace block_sparse {
namespace kernels {

class BlocksByRow {
 public:
  // The blocks of a row have the order that they have in the matrix.
  explicit BlocksByRow(const LoweredMatrix& matrix) : begin(static_cast<size_t>(matrix.rows) + 1, 0) {
    const std::vector<int32_t>& row = matrix.block_row;
    for (int32_t r : row) begin[r + 1]++;
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    if (std::is_sorted(row.begin(), row.end())) return;
    block_.resize(row.size());
    std::vector<uint32_t> next(begin.begin(), begin.end() - 1);
    for (size_t i = 0; i < row.size(); i++) block_[next[row[i]]++] = static_cast<uint32_t>(i);
  }

  // Those that start at row r are block(begin[r]) up to block(begin[r + 1] - 1).
  uint32_t block(uint32_t i) const { return block_.empty() ? i : block_[i]; }
  std::vector<uint32_t> begin;  // rows + 1

 private:
  std::vector<uint32_t> block_;  // empty: they are in that order
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_BLOCKS_BY_ROW_H_
