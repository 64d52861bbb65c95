// Blocks of m rows and n channels whose kernels all keep the same positions: vertical blocks of m rows at multiples of
// m.
#include <cstddef>
#include <utility>
#include <vector>

#include "tflite_delegate/format/gaps.h"
#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/sparse_rows.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

bool ReadBlockPunched(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  VerticalBlocks blocks;
  int32_t width;
  if (!keys->Int("block", 1, input.rows < 64 ? input.rows : 64, &blocks.block) ||
      !keys->Int("block_channels", 1, input.channels, &width)) {
    return false;
  }
  const int32_t block = blocks.block;
  const int32_t row_groups = (input.rows - 1) / block + 1;
  const int32_t channel_groups = (input.channels - 1) / width + 1;
  const uint64_t positions = static_cast<uint64_t>(input.positions);
  const uint64_t units_a_group = static_cast<uint64_t>(channel_groups) * positions;
  const uint64_t units = static_cast<uint64_t>(row_groups) * units_a_group;
  Bytes kept;
  if (!keys->Blob("kept", BytesForBits(units), &kept)) return false;
  if (!RestIsZero(kept, units)) {
    return keys->Fail("kept", "has a bit past the last of " + Decimal(units) + " units; expected 0 there");
  }
  const auto width_of = [&](int32_t group) {
    return group + 1 < channel_groups ? width : input.channels - group * width;
  };

  uint64_t values = 0;
  for (uint64_t unit = 0; unit < units; ++unit) {
    if (!Bit(kept, unit)) continue;
    const int32_t group = static_cast<int32_t>(unit / positions % static_cast<uint64_t>(channel_groups));
    values += static_cast<uint64_t>(width_of(group)) * static_cast<uint64_t>(block);
  }
  if (values != input.value_count) {
    return keys->Fail("kept", "keeps " + Decimal(values) + " weights; expected the values tensor's " +
                                  Decimal(input.value_count) + " elements");
  }

  blocks.start_row.reserve(values / static_cast<uint64_t>(block));
  blocks.column.reserve(values / static_cast<uint64_t>(block));
  blocks.first_value.reserve(values / static_cast<uint64_t>(block));
  // Units of a row group lie channel group by channel group, the columns position by position.
  std::vector<uint32_t> first_value(units_a_group);
  uint32_t next_value = 0;
  for (int32_t g = 0; g < row_groups; ++g) {
    const uint64_t first_unit = static_cast<uint64_t>(g) * units_a_group;
    for (uint64_t u = 0; u < units_a_group; ++u) {
      first_value[u] = next_value;
      if (!Bit(kept, first_unit + u)) continue;
      next_value += static_cast<uint32_t>(width_of(static_cast<int32_t>(u / positions)) * block);
    }
    for (uint64_t k = 0; k < positions; ++k) {
      for (int32_t h = 0; h < channel_groups; ++h) {
        const uint64_t u = static_cast<uint64_t>(h) * positions + k;
        if (!Bit(kept, first_unit + u)) continue;
        for (int32_t j = 0; j < width_of(h); ++j) {
          blocks.start_row.push_back(g * block);
          blocks.column.push_back(static_cast<int32_t>(k) * input.channels + h * width + j);
          blocks.first_value.push_back(first_value[u] + static_cast<uint32_t>(j * block));
        }
      }
    }
  }
  // What a ragged group holds past the last row is 0.
  for (size_t i = blocks.column.size(); i > 0 && blocks.start_row[i - 1] > input.rows - block; --i) {
    for (int32_t q = input.rows - blocks.start_row[i - 1]; q < block; ++q) {
      if (input.values[blocks.first_value[i - 1] + static_cast<uint32_t>(q)] != 0.0f) {
        return keys->Fail("kept",
                          "keeps a unit of the last row group, whose values past the last row are not all 0; "
                          "expected 0 there");
      }
    }
  }

  if (input.to == ReadTo::kCheck) return true;
  if (block == 1) {
    // Rows of their own may still share columns with their neighbours.
    std::vector<float> ordered(blocks.column.size());
    for (size_t i = 0; i < ordered.size(); ++i) ordered[i] = input.values[blocks.first_value[i]];
    LowerSparseRows(SortEntries(input.rows, input.columns, blocks.start_row, blocks.column, ordered.data()), {}, matrix,
                    BlockOverhead(input.op));
  } else {
    LowerBlocks(input.rows, input.columns, std::move(blocks), input.values, matrix);
  }
  return true;
}

}  // namespace block_sparse::format
