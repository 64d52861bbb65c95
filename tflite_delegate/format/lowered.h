// The one form that every structure is turned into: vertical blocks of B weights in one column of W[rows, columns],
// sorted by the row they start at. Dense weights are its 0 % case.
#ifndef TFLITE_DELEGATE_FORMAT_LOWERED_H_
#define TFLITE_DELEGATE_FORMAT_LOWERED_H_

#include <cstdint>
#include <vector>

namespace block_sparse {

struct LoweredMatrix {
  int32_t rows = 0;
  int32_t columns = 0;
  // Rows a block covers. Blocks may start at any row in [0, rows); what a block holds past the last row is 0.
  int32_t block = 0;
  // True when every block starts at a multiple of `block`: a kernel may then finish `block` rows at once.
  bool aligned = false;
  // Lowered row r is output channel row_channel[r]; empty means r itself. (Filter reordering.)
  std::vector<int32_t> row_channel;
  // Blocks that start at row r are those in [row_begin[r], row_begin[r + 1]); within a row the columns ascend.
  std::vector<uint32_t> row_begin;    // rows + 1
  std::vector<int32_t> block_column;  // one a block
  std::vector<float> values;          // `block` a block, top row first
};

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_FORMAT_LOWERED_H_
