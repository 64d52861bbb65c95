// Blocks of B rows in one column, at multiples of B; the last group of rows may be ragged.
#include <cstddef>
#include <utility>

#include "tflite_delegate/format/block_positions.h"
#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {
namespace {

bool EndsInZeros(const StructureInput& input, KeyReader* keys, int32_t block, size_t i, int32_t group) {
  for (int32_t q = input.rows - group * block; q < block; ++q) {
    if (input.values[i * static_cast<size_t>(block) + static_cast<size_t>(q)] != 0.0f) {
      return keys->Fail("positions", "has block " + Decimal(i) +
                                         " reach past the last row with a value that is not 0; expected 0 there");
    }
  }
  return true;
}

}  // namespace

bool ReadAlignedBlock(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  VerticalBlocks blocks;
  if (!ReadBlock(input, keys, &blocks.block)) return false;
  const Slots groups = {(input.rows - 1) / blocks.block + 1, 1, input.rows / blocks.block, EndsInZeros};
  if (!ReadPositions(input, keys, groups, &blocks)) return false;
  if (input.to == ReadTo::kCheck) return true;
  for (int32_t& row : blocks.start_row) row *= blocks.block;
  LowerBlocks(input.rows, input.columns, std::move(blocks), input.values, matrix);
  return true;
}

}  // namespace block_sparse::format
