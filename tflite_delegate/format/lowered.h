// The one form that every structure is turned into: vertical blocks of B weights in one column of W[rows, columns].
// Dense weights are its 0 % case.
#ifndef TFLITE_DELEGATE_FORMAT_LOWERED_H_
#define TFLITE_DELEGATE_FORMAT_LOWERED_H_

#include <cstddef>
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
  // Where each block starts. They may have any order in which the columns of those that start at one row ascend: that
  // of the file, so that whoever sorts them for good moves the weights once.
  std::vector<int32_t> block_row, block_column;
  // Block i's weights, top row first, are `block` from first_value[i] on; from i * block on if that is empty.
  std::vector<uint32_t> first_value;
  const float* source = nullptr;  // the file's, which outlives this; null: `values`
  std::vector<float> values;

  size_t blocks() const { return block_column.size(); }
  size_t weights() const { return blocks() * static_cast<size_t>(block); }
  const float* BlockValues(size_t i) const {
    const size_t first = first_value.empty() ? i * static_cast<size_t>(block) : first_value[i];
    return (source != nullptr ? source : values.data()) + first;
  }
  // Keeps the weights that `source` points to.
  void Keep(std::vector<float> weights) {
    if (source != nullptr) values.swap(weights);
    source = nullptr;
  }
};

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_FORMAT_LOWERED_H_
