// Blocks of B consecutive rows in one column, at any row, disjoint.
#include <cstddef>

#include "tflite_delegate/format/block_positions.h"
#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

bool ReadUnalignedBlock(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  VerticalBlocks blocks;
  if (!ReadBlock(input, keys, &blocks.block)) return false;
  const size_t count = input.value_count / static_cast<size_t>(blocks.block);
  // The cursor moves a whole block on, so blocks cannot overlap.
  if (!ReadPositions(input, keys, "positions", count, input.rows, blocks.block, &blocks.column, &blocks.start_row)) {
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    if (blocks.start_row[i] > input.rows - blocks.block) {
      return keys->Fail("positions", "starts block " + Decimal(i) + " at row " + Decimal(blocks.start_row[i]) +
                                         "; expected at most row " + Decimal(input.rows - blocks.block) + ", where " +
                                         Decimal(blocks.block) + " rows still fit");
    }
  }
  if (input.to == ReadTo::kLower) LowerBlocks(input.rows, input.columns, blocks, input.values, matrix);
  return true;
}

}  // namespace block_sparse::format
