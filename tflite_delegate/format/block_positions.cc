#include "tflite_delegate/format/block_positions.h"

#include <string>

#include "tflite_delegate/format/gaps.h"

namespace block_sparse::format {

bool ReadBlock(const StructureInput& input, KeyReader* keys, int32_t* block) {
  if (!keys->Int("block", 2, 64, block)) return false;
  if (*block > input.rows) {
    return keys->Fail("block",
                      "is " + Decimal(*block) + "; expected at most the " + Decimal(input.rows) + " of key \"rows\"");
  }
  if (input.value_count % static_cast<size_t>(*block) != 0) {
    return keys->Fail("block", "is " + Decimal(*block) + ", which does not divide the values tensor's " +
                                   Decimal(input.value_count) + " elements; expected a whole number of blocks");
  }
  return true;
}

bool ReadPositions(const StructureInput& input, KeyReader* keys, const Slots& slots, VerticalBlocks* blocks) {
  constexpr char kKey[] = "positions";
  Bytes bytes;
  if (!keys->Blob(kKey, &bytes)) return false;
  const size_t count = input.value_count / static_cast<size_t>(blocks->block);
  const std::string expected = "; expected " + Decimal(count) + " gaps, one for each block of the values tensor";
  // A gap is at least a byte: nothing is allocated that the file does not hold.
  if (bytes.size < count) {
    return keys->Fail(kKey, "has only " + Decimal(bytes.size) + " bytes" + expected);
  }
  const bool keep = input.to == ReadTo::kLower;
  if (keep) {
    blocks->column.resize(count);
    blocks->start_row.resize(count);
  }
  const uint64_t slot_count = static_cast<uint64_t>(slots.count);
  const uint64_t end = static_cast<uint64_t>(input.columns) * slot_count;
  ByteGapReader gaps(bytes);
  // The position is taken apart as it grows: a division only where a column ends, as there are many blocks in most.
  uint64_t cursor = 0, first_slot = 0, at_column = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t gap;
    if (!gaps.Gap(&gap)) {
      return keys->Fail(kKey, "is truncated or has a gap of 2^32 or more at block " + Decimal(i) + expected);
    }
    const uint64_t position = cursor + gap;
    if (position >= end) {
      return keys->Fail(kKey, "puts block " + Decimal(i) + " at position " + Decimal(position) +
                                  "; expected positions below " + Decimal(end));
    }
    if (position - first_slot >= slot_count) {
      at_column = position / slot_count;
      first_slot = at_column * slot_count;
    }
    const int32_t slot = static_cast<int32_t>(position - first_slot);
    if (slot >= slots.checked_from && !slots.check(input, keys, blocks->block, i, slot)) return false;
    if (keep) {
      blocks->column[i] = static_cast<int32_t>(at_column);
      blocks->start_row[i] = slot;
    }
    cursor = position + static_cast<uint64_t>(slots.step);
  }
  if (!gaps.AtEnd()) return keys->Fail(kKey, "goes on after the last block" + expected);
  return true;
}

}  // namespace block_sparse::format
