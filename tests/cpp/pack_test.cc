// The streams of pack.h, decoded by what spmm.h says of them, against the matrix that they came from.
#include "tflite_delegate/kernels/pack.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/format/lowered.h"

namespace block_sparse {
namespace testing {
namespace {

using kernels::PackDense;
using kernels::PackedMatrix;
using kernels::PackLowered;

constexpr int32_t kStride = 1000;  // channel stride
constexpr float kUnset = -123.0f;

// Offsets that say which column they are, in no order that could be guessed.
std::vector<int32_t> Offsets(int32_t columns) {
  std::vector<int32_t> offsets(columns);
  for (int32_t c = 0; c < columns; c++) offsets[c] = 7 * ((c * 31) % 101) + 10000 * ((c * 7 + 3) % columns) - 5000;
  if (columns % 7 == 0) std::iota(offsets.begin(), offsets.end(), -3);
  return offsets;
}

// The columns in the order in which a row's are added up: by offset, slice by slice.
std::vector<int32_t> Sorted(std::vector<int32_t> columns, const std::vector<int32_t>& offsets) {
  std::sort(columns.begin(), columns.end(), [&](int32_t a, int32_t b) { return offsets[a] < offsets[b]; });
  return columns;
}
int32_t SliceOf(int32_t column, const std::vector<int32_t>& offsets, int32_t slice_bytes) {
  return slice_bytes == 0 ? 0 : (offsets[column] - *std::min_element(offsets.begin(), offsets.end())) / slice_bytes;
}

struct Decoded {
  std::vector<double> weights;     // [channel][column]
  std::vector<float> bias;         // by channel
  std::vector<uint64_t> work;      // by panel: blocks and rows
  std::vector<int> times_written;  // by channel, by the panels' first slices
  // By channel: the columns whose products are added, in the order they are.
  std::vector<std::vector<int32_t>> order;
};

// Walks the streams as a kernel does, with the names of weights in place of sums.
Decoded Decode(const PackedMatrix& packed, int32_t rows, int32_t columns, const std::vector<int32_t>& offsets) {
  const int32_t block = 1 << packed.log2_block;
  Decoded result;
  result.weights.assign(static_cast<size_t>(rows) * columns, 0.0);
  result.bias.assign(rows, kUnset);
  result.times_written.assign(rows, 0);
  result.order.resize(rows);
  size_t weights_end = 0, offsets_end = 0, counts_end = 0, row_end = 0;
  for (size_t p = 0; p < packed.panels.size(); p++) {
    const PackedMatrix::Panel& panel = packed.panels[p];
    const kernels::SpmmArgs args = packed.Args(p);
    EXPECT_EQ(args.rows, panel.rows);
    EXPECT_EQ(panel.rows % block, 0);
    EXPECT_GT(panel.rows, 0);
    // Panels follow each other without overlapping.
    EXPECT_EQ(panel.weights, weights_end);
    EXPECT_EQ(panel.offsets, offsets_end);
    EXPECT_EQ(panel.counts, counts_end);
    EXPECT_EQ(panel.row, row_end);

    struct Term {
      int32_t column;
      float weight;
    };
    std::vector<std::vector<Term>> set(block);  // what each register set holds
    const float* weight = args.weights;
    const int32_t* offset = args.offsets;
    const auto take = [&](uint32_t count) {
      for (; count > 0; count--, weight += block, offset++) {
        const auto found = std::find(offsets.begin(), offsets.end(), *offset);
        EXPECT_NE(found, offsets.end()) << "offset " << *offset;
        for (int32_t q = 0; q < block; q++) {
          set[q].push_back({static_cast<int32_t>(found - offsets.begin()), weight[q]});
        }
      }
    };
    const auto finish = [&](int32_t row) {
      std::vector<Term>& terms = set[row % block];
      const int32_t out = args.row_out[row];
      if (out >= 0) {
        EXPECT_EQ(out % kStride, 0);
        const int32_t channel = out / kStride;
        EXPECT_LT(channel, rows);
        if (channel >= rows) return;
        if (p % packed.slices == 0) {
          result.times_written[channel]++;
          result.bias[channel] = args.bias[row];
        } else {
          EXPECT_EQ(args.bias[row], 0.0f) << "added once more";
          EXPECT_EQ(out, packed.Args(p - 1).row_out[row]) << "slices of a panel have the same rows";
        }
        for (const Term& term : terms) {
          result.weights[static_cast<size_t>(channel) * columns + term.column] += term.weight;
          result.order[channel].push_back(term.column);
        }
      }
      terms.clear();
    };
    const uint32_t* count = args.counts;
    for (int32_t row = 0; row < panel.rows; row += block) {
      if (packed.aligned) take(*count++);
      for (int32_t q = 0; q < block; q++) {
        if (!packed.aligned) take(*count++);
        finish(row + q);
      }
    }
    EXPECT_EQ(offset - args.offsets, static_cast<int64_t>(panel.blocks));
    result.work.push_back(panel.blocks + static_cast<uint64_t>(panel.rows));
    weights_end += panel.blocks * block;
    offsets_end += panel.blocks;
    counts_end += packed.aligned ? panel.rows / block : panel.rows;
    row_end += panel.rows + block;  // the kernels read the bias of that many more rows
  }
  EXPECT_EQ(packed.weights.size(), weights_end);
  EXPECT_EQ(packed.offsets.size(), offsets_end + kernels::kSpmmAhead);
  EXPECT_EQ(packed.counts.size(), counts_end);
  EXPECT_EQ(packed.bias.size(), row_end);
  EXPECT_EQ(packed.row_out.size(), row_end);
  return result;
}

void CheckLowered(const LoweredMatrix& matrix, const std::vector<float>* bias, int panels, int32_t slice_bytes = 0) {
  SCOPED_TRACE(::testing::Message() << matrix.rows << " x " << matrix.columns << " block " << matrix.block
                                    << (matrix.aligned ? " aligned" : " unaligned") << ", "
                                    << matrix.block_column.size() << " blocks, " << panels << " panels, slices of "
                                    << slice_bytes);
  const std::vector<int32_t> offsets = Offsets(matrix.columns);
  const PackedMatrix packed =
      PackLowered(matrix, bias != nullptr ? bias->data() : nullptr, offsets.data(), kStride, panels, slice_bytes);
  for (bool descending : {false, true}) {
    Random random(8);
    std::vector<float> weights;
    const PackedMatrix from_file =
        PackLowered(AsInFile(matrix, descending, &random, &weights), bias != nullptr ? bias->data() : nullptr,
                    offsets.data(), kStride, panels, slice_bytes);
    EXPECT_EQ(from_file.weights, packed.weights);
    EXPECT_EQ(from_file.offsets, packed.offsets);
    EXPECT_EQ(from_file.counts, packed.counts);
  }
  ASSERT_EQ(1 << packed.log2_block, matrix.block);
  if (matrix.aligned) {
    ASSERT_TRUE(packed.aligned);
  }
  int32_t slices = 0;
  for (int32_t c = 0; c < matrix.columns; c++) slices = std::max(slices, SliceOf(c, offsets, slice_bytes) + 1);
  ASSERT_EQ(packed.slices, slices);
  ASSERT_GE(packed.panels.size(), static_cast<size_t>(slices));
  ASSERT_LE(packed.panels.size(), static_cast<size_t>(panels) * slices);
  ASSERT_EQ(packed.panels.size() % slices, 0u);
  const Decoded decoded = Decode(packed, matrix.rows, matrix.columns, offsets);
  EXPECT_EQ(decoded.weights, DenseOf(matrix));
  EXPECT_EQ(decoded.times_written, std::vector<int>(matrix.rows, 1));
  EXPECT_EQ(decoded.bias, bias != nullptr ? *bias : std::vector<float>(matrix.rows, 0.0f));
  const std::vector<uint32_t> row_begin = RowBegin(matrix);
  for (int32_t row = 0; row < matrix.rows; row++) {
    std::vector<int32_t> order;  // blocks by slice and the row they start at, however the matrix is cut into panels
    for (int32_t slice = 0; slice < slices; slice++) {
      for (int32_t first = std::max(0, row - matrix.block + 1); first <= row; first++) {
        for (int32_t column : Sorted(
                 {matrix.block_column.begin() + row_begin[first], matrix.block_column.begin() + row_begin[first + 1]},
                 offsets)) {
          if (SliceOf(column, offsets, slice_bytes) == slice) order.push_back(column);
        }
      }
    }
    EXPECT_EQ(decoded.order[ChannelOf(matrix, row)], order) << "row " << row;
  }
}

TEST(PackLowered, KeepsEveryWeightOnce) {
  Random random(1);
  for (int32_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 16, 23, 64}) {
    for (int32_t columns : {1, 2, 9, 40}) {
      for (int32_t block : {1, 2, 4, 8}) {
        for (bool aligned : {false, true}) {
          for (double density : {0.0, 0.1, 1.0}) {
            LoweredMatrix matrix = RandomMatrix(rows, columns, block, aligned, density, &random);
            const std::vector<float> bias = random.Floats(rows);
            CheckLowered(matrix, &bias, 1);
            matrix.row_channel = random.Permutation(rows);
            CheckLowered(matrix, rows % 2 == 0 ? &bias : nullptr, 1 + random.Below(8));
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

TEST(PackLowered, EveryNumberOfPanels) {
  Random random(2);
  for (int32_t block : {1, 2, 4, 8}) {
    for (bool aligned : {false, true}) {
      const LoweredMatrix matrix = RandomMatrix(45, 12, block, aligned, 0.3, &random);
      const std::vector<float> bias = random.Floats(45);
      for (int panels = 1; panels <= 50; panels++) CheckLowered(matrix, &bias, panels);
      if (HasFailure()) return;
    }
  }
}

TEST(PackLowered, Slices) {
  Random random(5);
  for (int32_t block : {1, 2, 4, 8}) {
    for (bool aligned : {false, true}) {
      for (int32_t columns : {1, 12, 21}) {
        const LoweredMatrix matrix = RandomMatrix(29, columns, block, aligned, 0.4, &random);
        const std::vector<float> bias = random.Floats(29);
        // Of one column each, of some, with none in between, and one of all.
        for (int32_t slice_bytes : {1, 10, 9000, 25000, 1 << 30}) {
          if (slice_bytes < 9000 && columns == 12) continue;  // thousands of slices
          for (int panels : {1, 3, 8}) CheckLowered(matrix, &bias, panels, slice_bytes);
        }
        if (HasFailure()) return;
      }
    }
  }
}

// Of n weights one below the other, every second is the upper one of a pair.
TEST(PackImageRows, PairsAreCountedAndPacked) {
  Random random(6);
  constexpr int32_t kSide = 5, kRow = 64, kPlane = 1000;
  for (int32_t channels : {1, 3, 8}) {
    for (double density : {0.0, 0.3, 0.8, 1.0}) {
      const LoweredMatrix matrix = RandomMatrix(7, kSide * kSide * channels, 1, true, density, &random);
      std::vector<int32_t> offsets;
      for (int32_t k = 0; k < kSide * kSide; k++) {
        for (int32_t c = 0; c < channels; c++) offsets.push_back((c * kPlane + k / kSide * kRow + k % kSide) * 4);
      }
      const std::vector<double> dense = DenseOf(matrix);
      uint64_t expected = 0, expected_in_third_rows = 0, blocks_in_third_rows = 0;
      for (int32_t i = 0; i < matrix.rows * kSide * channels; i++) {
        const int32_t row = i / (kSide * channels), column = i % (kSide * channels);
        int32_t run = 0;
        for (int32_t ky = 0; ky <= kSide; ky++) {
          const bool there = ky < kSide && dense[row * matrix.columns + ky * kSide * channels + column] != 0.0;
          if (!there) expected += run / 2;
          if (row % 3 == 0) {
            blocks_in_third_rows += there;
            if (!there) expected_in_third_rows += run / 2;
          }
          run = there ? run + 1 : 0;
        }
      }
      const auto share = [](uint64_t pairs, uint64_t blocks) {
        return 2.0 * static_cast<double>(pairs) / static_cast<double>(std::max<uint64_t>(1, blocks));
      };
      EXPECT_DOUBLE_EQ(kernels::ShareInPairs(matrix, offsets.data(), kRow * 4, 1),
                       share(expected, matrix.values.size()));
      EXPECT_DOUBLE_EQ(kernels::ShareInPairs(matrix, offsets.data(), kRow * 4, 3),
                       share(expected_in_third_rows, blocks_in_third_rows));
      const PackedMatrix packed =
          kernels::PackImageRows(matrix, nullptr, offsets.data(), kStride, 3, 0, {kRow * 4, true});
      uint64_t pairs = 0, others = 0;
      for (size_t i = 0; i < packed.counts.size(); i++) {
        (i % kernels::kSpmmKinds == kernels::kSpmmPairs ? pairs : others) += packed.counts[i];
      }
      EXPECT_EQ(pairs, expected);
      EXPECT_EQ(2 * pairs + others, matrix.values.size());
      EXPECT_EQ(packed.weights.size(), matrix.values.size());
      EXPECT_EQ(packed.offsets.size(), pairs + others);
      std::vector<float> weights;
      const LoweredMatrix in_file = AsInFile(matrix, true, &random, &weights);
      EXPECT_DOUBLE_EQ(kernels::ShareInPairs(in_file, offsets.data(), kRow * 4, 1),
                       share(expected, matrix.values.size()));
      const PackedMatrix again =
          kernels::PackImageRows(in_file, nullptr, offsets.data(), kStride, 3, 0, {kRow * 4, true});
      EXPECT_EQ(again.weights, packed.weights);
      EXPECT_EQ(again.offsets, packed.offsets);
      EXPECT_EQ(again.counts, packed.counts);
    }
  }
}

TEST(PackLowered, PanelsShareTheWork) {
  Random random(3);
  for (bool aligned : {false, true}) {
    const LoweredMatrix matrix = RandomMatrix(512, 64, 4, aligned, 0.2, &random);
    const PackedMatrix packed = PackLowered(matrix, nullptr, Offsets(64).data(), kStride, 8, 0);
    ASSERT_EQ(packed.panels.size(), 8u);
    const Decoded decoded = Decode(packed, 512, 64, Offsets(64));
    const auto [least, most] = std::minmax_element(decoded.work.begin(), decoded.work.end());
    EXPECT_LT(static_cast<double>(*most), 1.25 * static_cast<double>(*least));
  }
}

TEST(PackLowered, WorkInOneCornerIsCutToo) {
  // All blocks start in the first or in the last rows of 256.
  for (bool at_end : {false, true}) {
    LoweredMatrix matrix;
    matrix.rows = 256;
    matrix.columns = 100;
    matrix.block = 4;
    for (int32_t row = 0; row < 256; row++) {
      for (int32_t c = 0; c < 100 && (at_end ? row >= 224 && row <= 252 : row < 32); c++) {
        matrix.block_row.push_back(row);
        matrix.block_column.push_back(c);
        matrix.values.insert(matrix.values.end(), 4, static_cast<float>(row + c));
      }
    }
    for (int panels : {2, 3, 5, 8}) CheckLowered(matrix, nullptr, panels);
    const PackedMatrix packed = PackLowered(matrix, nullptr, Offsets(100).data(), kStride, 4, 0);
    const Decoded decoded = Decode(packed, 256, 100, Offsets(100));
    EXPECT_LT(*std::max_element(decoded.work.begin(), decoded.work.end()), 1600u) << "of 3456";
  }
}

TEST(PackDense, IsTheMatrixInAlignedBlocks) {
  Random random(4);
  for (int32_t rows : {1, 2, 3, 4, 5, 8, 11, 32, 37}) {
    for (int32_t columns : {1, 3, 27, 64}) {
      for (int block : {1, 2, 4, 8}) {
        for (int panels : {1, 2, 3, 8}) {
          const int32_t slice_bytes = panels == 2 ? 30000 : 0;
          SCOPED_TRACE(::testing::Message() << rows << " x " << columns << " block " << block << ", " << panels);
          const std::vector<float> weights = random.Floats(static_cast<size_t>(rows) * columns);
          const std::vector<float> bias = random.Floats(rows);
          const std::vector<int32_t> offsets = Offsets(columns);
          const bool with_bias = rows % 2 == 1;
          const PackedMatrix packed = PackDense(weights.data(), rows, columns, block, with_bias ? bias.data() : nullptr,
                                                offsets.data(), kStride, panels, slice_bytes);
          ASSERT_EQ(1 << packed.log2_block, block);
          ASSERT_TRUE(packed.aligned);
          ASSERT_LE(packed.panels.size(), static_cast<size_t>(panels) * packed.slices);
          const Decoded decoded = Decode(packed, rows, columns, offsets);
          EXPECT_EQ(decoded.weights, std::vector<double>(weights.begin(), weights.end()));
          const auto padding = static_cast<std::ptrdiff_t>(packed.weights.size() - weights.size());
          EXPECT_GE(std::count(packed.weights.begin(), packed.weights.end(), 0.0f), padding);
          EXPECT_EQ(decoded.times_written, std::vector<int>(rows, 1));
          EXPECT_EQ(decoded.bias, with_bias ? bias : std::vector<float>(rows, 0.0f));
          std::vector<int32_t> in_order(columns);
          std::iota(in_order.begin(), in_order.end(), 0);
          for (const auto& order : decoded.order) EXPECT_EQ(order, Sorted(in_order, offsets));
          if (HasFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
