// The keys that unaligned and aligned blocks have in common: `block`, and `positions` as gaps.
#ifndef TFLITE_DELEGATE_FORMAT_BLOCK_POSITIONS_H_
#define TFLITE_DELEGATE_FORMAT_BLOCK_POSITIONS_H_

#include <cstdint>
#include <vector>

#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

// Reads `block` (2 to 64, at most `rows`) and checks that the values are a whole number of blocks.
bool ReadBlock(const StructureInput& input, KeyReader* keys, int32_t* block);

// Decodes the gaps of `key`: exactly `count` positions `column * slots + slot`, the cursor moving `step` past each.
bool ReadPositions(const StructureInput& input, KeyReader* keys, const char* key, size_t count, int32_t slots,
                   int32_t step, std::vector<int32_t>* column, std::vector<int32_t>* slot);

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_BLOCK_POSITIONS_H_
