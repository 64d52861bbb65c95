// Blocks of B rows in one column, at multiples of B; the last group of rows may be ragged.
#include <cstddef>
#include <cstring>

#include "tflite_delegate/format/block_positions.h"
#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

bool ReadAlignedBlock(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  VerticalBlocks blocks;
  if (!ReadBlock(input, keys, &blocks.block)) return false;
  const int32_t block = blocks.block;
  const size_t count = input.value_count / static_cast<size_t>(block);
  const int32_t groups = (input.rows - 1) / block + 1;
  std::vector<int32_t>& start_row = blocks.start_row;
  if (!ReadPositions(input, keys, "positions", count, groups, 1, &blocks.column, &start_row)) return false;
  for (size_t i = 0; i < count; ++i) {
    start_row[i] *= block;
    for (int32_t q = input.rows - start_row[i]; q < block; ++q) {
      if (input.values[i * static_cast<size_t>(block) + static_cast<size_t>(q)] != 0.0f) {
        return keys->Fail("positions", "has block " + Decimal(i) +
                                           " reach past the last row with a value that is not 0; expected 0 there");
      }
    }
  }
  if (input.to == ReadTo::kLower) LowerBlocks(input.rows, input.columns, blocks, input.values, matrix);
  return true;
}

}  // namespace block_sparse::format
