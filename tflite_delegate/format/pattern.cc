// Kernels that keep the entries of one pattern out of a few, or nothing; stored filter by filter, pattern by pattern.
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "tflite_delegate/format/gaps.h"
#include "tflite_delegate/format/sparse_rows.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {
namespace {

// patterns[p] lists the kernel positions of pattern p, ascending.
bool ReadPatterns(const StructureInput& input, KeyReader* keys, std::vector<std::vector<int32_t>>* patterns) {
  Bytes set;
  if (!keys->Blob("patterns", &set)) return false;
  const size_t size = BytesForBits(static_cast<uint64_t>(input.positions));
  if (set.size == 0 || set.size % size != 0 || set.size / size > 255) {
    return keys->Fail("patterns",
                      "has " + Decimal(set.size) + " bytes; expected 1 to 255 patterns of " + Decimal(size));
  }
  patterns->resize(set.size / size);
  for (size_t p = 0; p < patterns->size(); ++p) {
    const Bytes pattern = {set.data + p * size, size};
    const std::string name = "holds pattern " + Decimal(p);
    for (int32_t k = 0; k < input.positions; ++k) {
      if (Bit(pattern, static_cast<uint64_t>(k))) (*patterns)[p].push_back(k);
    }
    if (!RestIsZero(pattern, static_cast<uint64_t>(input.positions))) {
      return keys->Fail("patterns", name + " with a bit past the last of " + Decimal(input.positions) +
                                        " kernel positions; expected 0 there");
    }
    if ((*patterns)[p].empty()) {
      return keys->Fail("patterns", name + ", which is empty; expected at least one kernel position");
    }
    for (size_t q = 0; q < p; ++q) {
      if (std::memcmp(set.data + q * size, pattern.data, size) == 0) {
        return keys->Fail("patterns", name + ", which equals pattern " + Decimal(q) + "; expected different patterns");
      }
    }
  }
  return true;
}

bool ReadFilterOrder(const StructureInput& input, KeyReader* keys, std::vector<int32_t>* order) {
  const size_t rows = static_cast<size_t>(input.rows);
  order->resize(rows);
  if (!keys->Has("filter_order")) {
    for (size_t i = 0; i < rows; ++i) (*order)[i] = static_cast<int32_t>(i);
    return true;
  }
  const size_t width = rows <= 1u << 8 ? 1 : rows <= 1u << 16 ? 2 : 4;
  Bytes bytes;
  if (!keys->Blob("filter_order", uint64_t{rows} * width, &bytes)) return false;
  std::vector<bool> seen(rows, false);
  for (size_t i = 0; i < rows; ++i) {
    uint32_t channel = 0;
    for (size_t b = 0; b < width; ++b) channel |= uint32_t{bytes.data[i * width + b]} << (8 * b);
    if (channel >= rows || seen[channel]) {
      return keys->Fail("filter_order", "has " + Decimal(channel) + (channel >= rows ? "" : " a second time") +
                                            " as element " + Decimal(i) + "; expected each of the " +
                                            Decimal(input.rows) + " rows once");
    }
    seen[channel] = true;
    (*order)[i] = static_cast<int32_t>(channel);
  }
  return true;
}

// The stream of remainders and the number of kernels, which is at most the number of values: all is checked before
// anything is allocated for it.
bool ReadGaps(const StructureInput& input, KeyReader* keys, Bytes* high, Bytes* low, int32_t* low_bits,
              uint64_t* kernels) {
  if (!keys->Int("gap_bits", 0, 31, low_bits) || !keys->Blob("gaps_high", high)) return false;
  if (high->size != 0 && high->data[high->size - 1] == 0) {
    return keys->Fail("gaps_high", "ends with a byte that is 0; expected a bit that is 1 in the last byte");
  }
  *kernels = 0;
  for (size_t i = 0; i < high->size; ++i) {
    for (uint8_t byte = high->data[i]; byte != 0; byte = static_cast<uint8_t>(byte & (byte - 1))) ++*kernels;
  }
  if (*kernels > input.value_count) {
    return keys->Fail("gaps_high", "has " + Decimal(*kernels) + " kernels; expected no more than the values tensor's " +
                                       Decimal(input.value_count) + " elements");
  }
  const uint64_t bits = *kernels * static_cast<uint64_t>(*low_bits);
  if (!keys->Blob("gaps_low", BytesForBits(bits), low)) return false;
  return RestIsZero(*low, bits) || keys->Fail("gaps_low", "has a bit after the last remainder; expected 0 there");
}

}  // namespace

bool ReadPattern(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix) {
  std::vector<std::vector<int32_t>> patterns;
  std::vector<int32_t> order;
  Bytes high, low;
  int32_t low_bits = 0;
  uint64_t kernels = 0;
  if (!ReadPatterns(input, keys, &patterns) || !ReadFilterOrder(input, keys, &order) ||
      !ReadGaps(input, keys, &high, &low, &low_bits, &kernels)) {
    return false;
  }
  const uint64_t channels = static_cast<uint64_t>(input.channels);
  const uint64_t end = static_cast<uint64_t>(input.rows) * patterns.size() * channels;  // below 2^39
  BitGapReader gaps(high, low, low_bits);
  const bool check_only = input.to == ReadTo::kCheck;
  const size_t stored = check_only ? 0 : input.value_count;
  std::vector<int32_t> entry_row(stored), entry_column(stored);
  size_t entries = 0;
  std::vector<int32_t> last_filter(channels, -1);
  // The position is taken apart as it grows: divisions only where the pattern or the filter changes.
  uint64_t cursor = 0, first_channel = 0;
  const std::vector<int32_t>* pattern = patterns.data();
  int32_t filter = 0;
  for (uint64_t i = 0; i < kernels; ++i) {
    uint64_t gap;
    if (!gaps.Gap(end - cursor, &gap)) {
      return keys->Fail("gaps_high", "puts kernel " + Decimal(i) + " past the last of " + Decimal(end) + " positions");
    }
    const uint64_t position = cursor + gap;
    cursor = position + 1;
    if (position - first_channel >= channels) {
      const uint64_t run = position / channels;
      first_channel = run * channels;
      pattern = &patterns[static_cast<size_t>(run % patterns.size())];
      filter = static_cast<int32_t>(run / patterns.size());
    }
    const size_t channel = static_cast<size_t>(position - first_channel);
    if (last_filter[channel] == filter) {
      return keys->Fail("gaps_high", "gives kernel " + Decimal(i) + " a second pattern for stored filter " +
                                         Decimal(filter) + " and channel " + Decimal(channel) +
                                         "; expected one at most");
    }
    last_filter[channel] = filter;
    if (pattern->size() > input.value_count - entries) {
      return keys->Fail("gaps_high",
                        "has kernels of more entries than the values tensor's " + Decimal(input.value_count));
    }
    if (check_only) {
      entries += pattern->size();
      continue;
    }
    for (int32_t k : *pattern) {
      entry_row[entries] = order[static_cast<size_t>(filter)];
      entry_column[entries++] = k * input.channels + static_cast<int32_t>(channel);
    }
  }
  if (entries != input.value_count) {
    return keys->Fail("gaps_high", "has kernels of " + Decimal(entries) + " entries; expected the values tensor's " +
                                       Decimal(input.value_count));
  }
  if (!keys->Has("filter_order")) order.clear();
  if (check_only) return true;
  LowerSparseRows(SortEntries(input.rows, input.columns, entry_row, entry_column, input.values), order, matrix,
                  BlockOverhead(input.op));
  return true;
}

}  // namespace block_sparse::format
