// Single entries to the lowered form: which rows to put beside each other, and how many of them a block should span.
#ifndef TFLITE_DELEGATE_FORMAT_SPARSE_ROWS_H_
#define TFLITE_DELEGATE_FORMAT_SPARSE_ROWS_H_

#include <cstdint>
#include <vector>

#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/format/lowering.h"

namespace block_sparse::format {

// Entries of row r are [begin[r], begin[r + 1]); within a row the columns ascend strictly.
struct SparseRows {
  int32_t rows = 0;
  int32_t columns = 0;
  std::vector<uint32_t> begin;  // rows + 1
  std::vector<int32_t> column;
  std::vector<float> value;
};

// Sorts entries given in any order, no two at the same place.
SparseRows SortEntries(int32_t rows, int32_t columns, const std::vector<int32_t>& entry_row,
                       const std::vector<int32_t>& entry_column, const float* values);

// Where neighbouring rows have entries in the same columns, one block of 2, 4 or 8 rows serves several entries with one
// load; where they do not, it multiplies by zeros. So a few ways are counted and the cheapest is built: heights
// 1, 2, 4 and 8; blocks at any row or at multiples of the height; rows in their own order, in `stored_order` (a
// permutation, or empty) or reordered here so that similar ones meet; `row_channel` is set accordingly. Reordering
// chooses each row among a fixed number of candidates: time is linear in the entries but for a sort of the rows. Large
// layers are counted by a sample of their columns.
// `block_overhead`: what a block costs beside its rows, in multiply-adds.
void LowerSparseRows(SparseRows entries, const std::vector<int32_t>& stored_order, LoweredMatrix* matrix,
                     double block_overhead = kBlockOverhead);

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_SPARSE_ROWS_H_
