// The keys that unaligned and aligned blocks have in common: `block`, and `positions` as gaps.
#ifndef TFLITE_DELEGATE_FORMAT_BLOCK_POSITIONS_H_
#define TFLITE_DELEGATE_FORMAT_BLOCK_POSITIONS_H_

#include <cstddef>
#include <cstdint>

#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

// Reads `block` (2 to 64, at most `rows`) and checks that the values are a whole number of blocks.
bool ReadBlock(const StructureInput& input, KeyReader* keys, int32_t* block);

// Says what is wrong with block i of `block` rows being at a slot, if anything is; then false.
using SlotCheck = bool (*)(const StructureInput& input, KeyReader* keys, int32_t block, size_t i, int32_t slot);

// The positions that a structure's blocks may have.
struct Slots {
  int32_t count, step;   // position = column * count + slot; the cursor moves `step` past each
  int32_t checked_from;  // slots from this one on are checked
  SlotCheck check;
};

// Decodes the gaps of key "positions", exactly one for each block of the values. Only to lower the matrix are columns
// and slots kept, in `blocks`.
bool ReadPositions(const StructureInput& input, KeyReader* keys, const Slots& slots, VerticalBlocks* blocks);

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_BLOCK_POSITIONS_H_
