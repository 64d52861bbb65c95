// Blocks of B consecutive rows in one column, at any row, disjoint.
#include <cstddef>
#include <utility>

#include "tflite_delegate/format/block_positions.h"
#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {
namespace {

bool TooLow(const StructureInput& input, KeyReader* keys, int32_t block, size_t i, int32_t row) {
  return keys->Fail("positions", "starts block " + Decimal(i) + " at row " + Decimal(row) + "; expected at most row " +
                                     Decimal(input.rows - block) + ", where " + Decimal(block) + " rows still fit");
}

}  // namespace

bool ReadUnalignedBlock(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  VerticalBlocks blocks;
  if (!ReadBlock(input, keys, &blocks.block)) return false;
  // The cursor moves a whole block on, so blocks cannot overlap.
  const Slots rows = {input.rows, blocks.block, input.rows - blocks.block + 1, TooLow};
  if (!ReadPositions(input, keys, rows, &blocks)) return false;
  if (input.to == ReadTo::kLower) {
    LowerBlocks(input.rows, input.columns, std::move(blocks), input.values, matrix);
  }
  return true;
}

}  // namespace block_sparse::format
