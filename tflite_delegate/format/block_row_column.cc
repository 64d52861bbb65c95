// Blocks of the matrix that have lost whole rows and whole columns, each its own.
#include <cstddef>
#include <vector>

#include "tflite_delegate/format/gaps.h"
#include "tflite_delegate/format/sparse_rows.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {
namespace {

// Lines (rows or columns) of the `length` from `first` on that are kept. False if one of the block's `size` bits from
// `bit` on is set for a line that the matrix has not.
bool KeptLines(Bytes kept, uint64_t bit, int32_t size, int32_t first, int32_t length, std::vector<int32_t>* lines) {
  lines->clear();
  for (int32_t i = 0; i < size; ++i) {
    if (!Bit(kept, bit + static_cast<uint64_t>(i))) continue;
    if (i >= length - first) return false;
    lines->push_back(first + i);
  }
  return true;
}

bool ReadKept(KeyReader* keys, const char* key, uint64_t bits, Bytes* kept) {
  if (!keys->Blob(key, BytesForBits(bits), kept)) return false;
  return RestIsZero(*kept, bits) || keys->Fail(key, "has a bit past the last block; expected 0 there");
}

}  // namespace

bool ReadBlockRowColumn(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  constexpr int32_t kMaxBlock = 1 << 16;
  int32_t height, width;
  if (!keys->Int("block_rows", 1, input.rows < kMaxBlock ? input.rows : kMaxBlock, &height) ||
      !keys->Int("block_columns", 1, input.columns < kMaxBlock ? input.columns : kMaxBlock, &width)) {
    return false;
  }
  const int32_t down = (input.rows - 1) / height + 1, across = (input.columns - 1) / width + 1;
  const uint64_t blocks = static_cast<uint64_t>(down) * static_cast<uint64_t>(across);
  Bytes kept_rows, kept_columns;
  if (!ReadKept(keys, "kept_rows", blocks * static_cast<uint64_t>(height), &kept_rows) ||
      !ReadKept(keys, "kept_columns", blocks * static_cast<uint64_t>(width), &kept_columns)) {
    return false;
  }
  std::vector<int32_t> entry_row, entry_column, rows, columns;
  entry_row.reserve(input.value_count);
  entry_column.reserve(input.value_count);
  for (uint64_t block = 0; block < blocks; ++block) {
    const int32_t first_row = static_cast<int32_t>(block / static_cast<uint64_t>(across)) * height;
    const int32_t first_column = static_cast<int32_t>(block % static_cast<uint64_t>(across)) * width;
    if (!KeptLines(kept_rows, block * static_cast<uint64_t>(height), height, first_row, input.rows, &rows)) {
      return keys->Fail("kept_rows", "keeps a row past the last in block " + Decimal(block) + "; expected 0 there");
    }
    if (!KeptLines(kept_columns, block * static_cast<uint64_t>(width), width, first_column, input.columns, &columns)) {
      return keys->Fail("kept_columns",
                        "keeps a column past the last in block " + Decimal(block) + "; expected 0 there");
    }
    if (rows.empty() != columns.empty()) {
      return keys->Fail("kept_columns", "keeps " + Decimal(columns.size()) + " columns of block " + Decimal(block) +
                                            ", which keeps " + Decimal(rows.size()) +
                                            " rows; expected both or neither");
    }
    if (static_cast<uint64_t>(rows.size()) * columns.size() > input.value_count - entry_row.size()) {
      return keys->Fail("kept_columns", "and key \"kept_rows\" keep more weights than the values tensor's " +
                                            Decimal(input.value_count));
    }
    for (int32_t column : columns) {
      for (int32_t row : rows) {
        entry_row.push_back(row);
        entry_column.push_back(column);
      }
    }
  }
  if (entry_row.size() != input.value_count) {
    return keys->Fail("kept_columns", "and key \"kept_rows\" keep " + Decimal(entry_row.size()) +
                                          " weights; expected the values tensor's " + Decimal(input.value_count));
  }
  if (input.to == ReadTo::kCheck) return true;
  LowerSparseRows(SortEntries(input.rows, input.columns, entry_row, entry_column, input.values), {}, matrix,
                  BlockOverhead(input.op));
  return true;
}

}  // namespace block_sparse::format
