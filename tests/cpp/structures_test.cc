// The structures that are not made of vertical blocks in the file: each encoded here, apart from the code under test.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/flexbuffer_builder.h"
#include "tests/cpp/format_testing.h"
#include "tflite_delegate/format/options.h"

namespace block_sparse {
namespace {

using testing::ConvolutionOptions;
using testing::Expand;
using testing::FlexMapBuilder;
using testing::FullyConnectedOptions;
using testing::MutateOptions;
using testing::Read;
using testing::ReadResult;

constexpr BlockSparseOp kConv = BlockSparseOp::kConv2D;
constexpr BlockSparseOp kDense = BlockSparseOp::kFullyConnected;

class BitWriter {
 public:
  void Put(bool bit) {
    if (count_ % 8 == 0) bytes_.push_back(0);
    if (bit) bytes_.back() = static_cast<uint8_t>(bytes_.back() | 1 << count_ % 8);
    ++count_;
  }
  void Put(uint64_t value, int bits) {
    for (int i = 0; i < bits; ++i) Put((value >> i & 1) != 0);
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t count_ = 0;
};

struct Shape {
  int32_t rows, channels, kernel_height = 1, kernel_width = 1;
  int32_t positions() const { return kernel_height * kernel_width; }
  int32_t columns() const { return positions() * channels; }
};

// An encoded matrix and what it stands for, W[row][ky][kx][channel].
struct Encoded {
  FlexMapBuilder options;
  std::vector<float> values;
  std::vector<float> dense;
};

FlexMapBuilder Common(const std::string& structure, const Shape& shape) {
  return ConvolutionOptions(structure, shape.rows, shape.columns(), shape.kernel_height, shape.kernel_width);
}

float Weight(std::mt19937* random) {
  const float value = static_cast<float>(static_cast<int>((*random)() % 4001) - 2000) / 128.0f;
  return value == 0.0f ? 0.5f : value;
}

void ExpectDense(const Encoded& encoded, const Shape& shape, BlockSparseOp op = kConv) {
  const ReadResult result = Read(op, encoded.options.Finish(), encoded.values);
  if (encoded.values.empty()) {
    EXPECT_EQ(result.error, "values tensor: it has 0 elements; expected at least 1 and fewer than 2^31");
    return;
  }
  ASSERT_TRUE(result.ok) << result.error;
  EXPECT_EQ(result.matrix.rows, shape.rows);
  EXPECT_EQ(result.matrix.columns, shape.columns());
  EXPECT_EQ(Expand(result.matrix), encoded.dense);
}

struct Refusal {
  const char* what;
  std::function<void(FlexMapBuilder*)> change;
  const char* message;
};

void ExpectRefused(const Encoded& good, const std::vector<Refusal>& cases) {
  ASSERT_TRUE(Read(kConv, good.options.Finish(), good.values).ok);
  for (const Refusal& c : cases) {
    FlexMapBuilder options = good.options;
    c.change(&options);
    const ReadResult result = Read(kConv, options.Finish(), good.values);
    EXPECT_FALSE(result.ok) << c.what;
    EXPECT_NE(result.error.find(c.message), std::string::npos) << c.what << ": " << result.error;
  }
}

// ---- pattern

// kernels[filter][channel]: index of the pattern, or -1; filter counts output channels.
Encoded EncodePattern(const Shape& shape, const std::vector<std::vector<int32_t>>& patterns,
                      const std::vector<std::vector<int>>& kernels, const std::vector<int32_t>& order, int gap_bits,
                      uint32_t seed) {
  std::mt19937 random(seed);
  Encoded out;
  out.dense.assign(static_cast<size_t>(shape.rows) * static_cast<size_t>(shape.columns()), 0.0f);
  BitWriter low, high;
  uint64_t cursor = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t row = static_cast<size_t>(order[i]);
    for (size_t p = 0; p < patterns.size(); ++p) {
      for (size_t c = 0; c < static_cast<size_t>(shape.channels); ++c) {
        if (kernels[row][c] != static_cast<int>(p)) continue;
        const uint64_t position = (i * patterns.size() + p) * static_cast<uint64_t>(shape.channels) + c;
        const uint64_t gap = position - cursor;
        cursor = position + 1;
        for (uint64_t q = gap >> gap_bits; q > 0; --q) high.Put(false);
        high.Put(true);
        low.Put(gap, gap_bits);
        for (int32_t k : patterns[p]) {
          out.values.push_back(Weight(&random));
          out.dense[row * static_cast<size_t>(shape.columns()) +
                    static_cast<size_t>(k) * static_cast<size_t>(shape.channels) + c] = out.values.back();
        }
      }
    }
  }
  std::vector<uint8_t> set, order_bytes;
  for (const std::vector<int32_t>& pattern : patterns) {
    BitWriter bits;
    for (int32_t k = 0; k < shape.positions(); ++k) {
      bits.Put(std::find(pattern.begin(), pattern.end(), k) != pattern.end());
    }
    set.insert(set.end(), bits.bytes().begin(), bits.bytes().end());
  }
  const int width = shape.rows <= 256 ? 1 : shape.rows <= 65536 ? 2 : 4;
  for (int32_t channel : order) {
    for (int b = 0; b < width; ++b) order_bytes.push_back(static_cast<uint8_t>(channel >> 8 * b));
  }
  out.options = Common("pattern", shape)
                    .Blob("patterns", set)
                    .Int("gap_bits", gap_bits)
                    .Blob("gaps_low", low.bytes())
                    .Blob("gaps_high", high.bytes());
  if (!std::is_sorted(order.begin(), order.end())) out.options.Blob("filter_order", order_bytes);
  return out;
}

std::vector<int32_t> Shuffled(int32_t rows, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

// `count` different patterns of 1 to `most` positions.
std::vector<std::vector<int32_t>> RandomPatterns(int32_t positions, size_t count, int32_t most, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<int32_t>> patterns;
  while (patterns.size() < count) {
    std::vector<int32_t> pattern = Shuffled(positions, static_cast<uint32_t>(random()));
    pattern.resize(1 + random() % static_cast<uint32_t>(std::min(most, positions)));
    std::sort(pattern.begin(), pattern.end());
    if (std::find(patterns.begin(), patterns.end(), pattern) == patterns.end()) patterns.push_back(pattern);
  }
  return patterns;
}

std::vector<std::vector<int>> RandomKernels(const Shape& shape, size_t patterns, int percent, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<int>> kernels(static_cast<size_t>(shape.rows));
  for (std::vector<int>& filter : kernels) {
    for (int32_t c = 0; c < shape.channels; ++c) {
      const bool kept = static_cast<int>(random() % 100) < percent;
      filter.push_back(kept ? static_cast<int>(random() % static_cast<uint32_t>(patterns)) : -1);
    }
  }
  return kernels;
}

TEST(Pattern, RandomSetsAndShapes) {
  uint32_t seed = 1;
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{7, 5, 3, 3}, Shape{16, 13, 3, 3}, Shape{33, 9, 2, 4},
                             Shape{10, 3, 5, 5}, Shape{65, 31, 1, 1}, Shape{300, 4, 1, 7}}) {
    for (size_t count : {1u, 8u, 12u}) {
      if (shape.positions() == 1 && count > 1) continue;
      for (int percent : {0, 3, 30, 100}) {
        for (bool shuffled : {false, true}) {
          SCOPED_TRACE(::testing::Message() << shape.rows << " rows, " << count << " patterns, " << percent << " %");
          const auto patterns = RandomPatterns(shape.positions(), count, 4, seed);
          const auto kernels = RandomKernels(shape, count, percent, seed + 1);
          std::vector<int32_t> order = Shuffled(shape.rows, seed + 2);
          if (!shuffled) std::sort(order.begin(), order.end());
          ExpectDense(EncodePattern(shape, patterns, kernels, order, static_cast<int>(seed % 7), seed + 3), shape);
          if (HasFatalFailure()) return;
          seed += 4;
        }
      }
    }
  }
}

TEST(Pattern, EveryRemainderWidthAndTheLargestSet) {
  const Shape shape{11, 6, 3, 3};
  const auto patterns = RandomPatterns(9, 255, 9, 5);
  const auto kernels = RandomKernels(shape, 255, 50, 6);
  for (int gap_bits = 0; gap_bits <= 31; ++gap_bits) {
    ExpectDense(EncodePattern(shape, patterns, kernels, Shuffled(11, 7), gap_bits, 8), shape);
  }
}

TEST(Pattern, WideFilterOrder) {
  // More than 2^16 rows: four bytes an element.
  const Shape shape{65539, 2, 1, 1};
  ExpectDense(EncodePattern(shape, {{0}}, RandomKernels(shape, 1, 10, 1), Shuffled(shape.rows, 2), 2, 3), shape);
}

TEST(Pattern, FullyConnectedLayersKeepSingleWeights) {
  const Shape shape{20, 37, 1, 1};
  Encoded encoded = EncodePattern(shape, {{0}}, RandomKernels(shape, 1, 20, 1), Shuffled(20, 2), 1, 3);
  encoded.options.Bool("keep_num_dims", true);
  ExpectDense(encoded, shape, kDense);
}

TEST(Pattern, FiltersAlikeShareBlocks) {
  // Groups of 8 filters have the same kernels, the filters being scattered and the stored order bringing them together.
  const Shape shape{64, 32, 3, 3};
  const auto patterns = RandomPatterns(9, 8, 4, 1);
  const auto groups = RandomKernels({8, 32, 3, 3}, 8, 30, 2);
  const std::vector<int32_t> order = Shuffled(64, 3);
  std::vector<std::vector<int>> kernels(64);
  for (size_t i = 0; i < 64; ++i) kernels[static_cast<size_t>(order[i])] = groups[i / 8];
  const Encoded encoded = EncodePattern(shape, patterns, kernels, order, 3, 4);
  const ReadResult result = Read(kConv, encoded.options.Finish(), encoded.values);
  ASSERT_TRUE(result.ok) << result.error;
  EXPECT_EQ(result.matrix.block, 8);
  EXPECT_TRUE(result.matrix.aligned);
  EXPECT_EQ(result.matrix.block_column.size() * 8, encoded.values.size());
  EXPECT_EQ(result.matrix.row_channel.size(), 64u);
  EXPECT_EQ(Expand(result.matrix), encoded.dense);
}

Encoded SmallPattern() {
  // 3 filters, 2 channels; stored order 2, 0, 1; 12 positions, of which 0, 3, 5, 6 and 11 are taken: gaps 0, 2, 1,
  // 0, 4.
  const Shape shape{3, 2, 3, 3};
  return EncodePattern(shape, {{0, 4}, {1, 4, 8}}, {{1, 0}, {-1, 1}, {0, 1}}, {2, 0, 1}, 1, 1);
}

TEST(Pattern, RefusalsSayWhatAndWhy) {
  using M = FlexMapBuilder*;
  const Encoded good = SmallPattern();
  ASSERT_EQ(good.values.size(), 13u);
  ExpectRefused(
      good,
      {
          {"no patterns", [](M m) { m->Blob("patterns", {}); },
           "key \"patterns\" has 0 bytes; expected 1 to 255 patterns of 2"},
          {"half a pattern", [](M m) { m->Blob("patterns", {17, 0, 18}); }, "key \"patterns\" has 3 bytes; expected"},
          {"256 patterns", [](M m) { m->Blob("patterns", std::vector<uint8_t>(512, 1)); },
           "key \"patterns\" has 512 bytes; expected 1 to 255 patterns of 2"},
          {"empty pattern", [](M m) { m->Blob("patterns", {17, 0, 0, 0}); },
           "key \"patterns\" holds pattern 1, which is empty"},
          {"equal patterns", [](M m) { m->Blob("patterns", {17, 0, 17, 0}); },
           "key \"patterns\" holds pattern 1, which equals pattern 0"},
          {"bit past the kernel", [](M m) { m->Blob("patterns", {17, 0, 18, 3}); },
           "key \"patterns\" holds pattern 1 with a bit past the last of 9 kernel positions"},
          {"larger patterns", [](M m) { m->Blob("patterns", {17, 1, 18, 1}); },
           "key \"gaps_high\" has kernels of more entries than the values tensor's 13"},
          {"smaller patterns", [](M m) { m->Blob("patterns", {1, 0, 18, 1}); },
           "key \"gaps_high\" has kernels of 11 entries; expected the values tensor's 13"},
          {"short order", [](M m) { m->Blob("filter_order", {2, 0}); }, "key \"filter_order\" has 2 bytes; expected 3"},
          {"no row", [](M m) { m->Blob("filter_order", {2, 0, 3}); },
           "key \"filter_order\" has 3 as element 2; expected each of the 3 rows once"},
          {"row twice", [](M m) { m->Blob("filter_order", {2, 0, 2}); },
           "key \"filter_order\" has 2 a second time as element 2; expected each of the 3 rows once"},
          {"gap_bits 32", [](M m) { m->Int("gap_bits", 32); },
           "key \"gap_bits\" is 32; expected an integer from 0 to 31"},
          {"gap_bits -1", [](M m) { m->Int("gap_bits", -1); }, "key \"gap_bits\" is -1;"},
          {"gap_bits 9", [](M m) { m->Int("gap_bits", 9); }, "key \"gaps_low\" has 1 bytes; expected 6"},
          {"no kernel", [](M m) { m->Blob("gaps_high", {}); }, "key \"gaps_low\" has 1 bytes; expected 0"},
          {"open end", [](M m) { m->Blob("gaps_high", {0xff, 0}); },
           "key \"gaps_high\" ends with a byte that is 0; expected a bit that is 1 in the last byte"},
          {"too many kernels", [](M m) { m->Blob("gaps_high", {0xff, 0xff}); },
           "key \"gaps_high\" has 16 kernels; expected no more than the values tensor's 13 elements"},
          {"rest of remainders", [](M m) { m->Blob("gaps_low", {0x80}); },
           "key \"gaps_low\" has a bit after the last remainder; expected 0 there"},
          {"long remainders", [](M m) { m->Blob("gaps_low", {0, 0}); }, "key \"gaps_low\" has 2 bytes; expected 1"},
          {"past the end", [](M m) { m->Blob("gaps_high", {0x1d, 0x80}); },
           "key \"gaps_high\" puts kernel 4 past the last of 12 positions"},
          {"two patterns for a kernel",
           [](M m) { m->Blob("gaps_high", {0x0f, 0x02}).Int("gap_bits", 0).Blob("gaps_low", {}); },
           "key \"gaps_high\" gives kernel 2 a second pattern for stored filter 0 and channel 0; expected one at most"},
      });
  // A quotient so long that shifting it would overflow 64 bits needs more zeros than a test can hold; the largest
  // remainders with a short one must do.
  Encoded bad = good;
  bad.options.Int("gap_bits", 31).Blob("gaps_high", {0, 0, 0, 0x80}).Blob("gaps_low", {0xff, 0xff, 0xff, 0x7f});
  EXPECT_NE(Read(kConv, bad.options.Finish(), bad.values).error.find("puts kernel 0 past the last of 12 positions"),
            std::string::npos);
}

// ---- block_punched

Encoded EncodePunched(const Shape& shape, int32_t block, int32_t width, int percent, uint32_t seed) {
  std::mt19937 random(seed);
  Encoded out;
  out.dense.assign(static_cast<size_t>(shape.rows) * static_cast<size_t>(shape.columns()), 0.0f);
  BitWriter kept;
  for (int32_t row = 0; row < shape.rows; row += block) {
    for (int32_t channel = 0; channel < shape.channels; channel += width) {
      for (int32_t k = 0; k < shape.positions(); ++k) {
        const bool keep = static_cast<int>(random() % 100) < percent;
        kept.Put(keep);
        if (!keep) continue;
        for (int32_t c = channel; c < std::min(channel + width, shape.channels); ++c) {
          for (int32_t r = row; r < row + block; ++r) {
            out.values.push_back(r < shape.rows ? Weight(&random) : 0.0f);
            if (r < shape.rows) {
              out.dense[static_cast<size_t>(r) * static_cast<size_t>(shape.columns()) +
                        static_cast<size_t>(k * shape.channels + c)] = out.values.back();
            }
          }
        }
      }
    }
  }
  out.options =
      Common("block_punched", shape).Int("block", block).Int("block_channels", width).Blob("kept", kept.bytes());
  return out;
}

TEST(BlockPunched, EveryHeightAndRaggedEdges) {
  uint32_t seed = 1;
  for (int32_t block = 1; block <= 64; ++block) {
    for (const Shape& shape :
         {Shape{block, 4, 3, 3}, Shape{2 * block + 1, 7, 3, 3}, Shape{3 * block - 1 + (block == 1), 9, 1, 2}}) {
      for (int32_t width : {1, 4, shape.channels}) {
        SCOPED_TRACE(::testing::Message() << block << " x " << width << " in " << shape.rows);
        ExpectDense(EncodePunched(shape, block, width, 30, seed++), shape);
        if (HasFatalFailure()) return;
      }
    }
  }
  for (int percent : {0, 100}) ExpectDense(EncodePunched({19, 11, 3, 3}, 8, 4, percent, 1), {19, 11, 3, 3});
  const Shape dense{40, 50, 1, 1};
  Encoded encoded = EncodePunched(dense, 4, 8, 40, 2);
  encoded.options.Bool("keep_num_dims", true);
  ExpectDense(encoded, dense, kDense);
}

TEST(BlockPunched, FiltersOfABlockShareKernelBlocks) {
  for (int32_t block : {2, 4, 8}) {
    const Encoded encoded = EncodePunched({30, 12, 3, 3}, block, 4, 30, 3);
    const ReadResult result = Read(kConv, encoded.options.Finish(), encoded.values);
    ASSERT_TRUE(result.ok) << result.error;
    EXPECT_EQ(result.matrix.block, block);
    EXPECT_TRUE(result.matrix.aligned);
    EXPECT_EQ(result.matrix.weights(), encoded.values.size());
    EXPECT_TRUE(result.matrix.row_channel.empty());
  }
}

TEST(BlockPunched, RefusalsSayWhatAndWhy) {
  using M = FlexMapBuilder*;
  // 5 x 3 channels, 2 x 2 kernels; blocks of 4 x 2: 2 x 2 groups of 4 positions.
  const Encoded good = EncodePunched({5, 3, 2, 2}, 4, 2, 100, 1);
  ASSERT_EQ(good.values.size(), 96u);
  ExpectRefused(
      good,
      {
          {"block 0", [](M m) { m->Int("block", 0); }, "key \"block\" is 0; expected an integer from 1 to 5"},
          {"block > rows", [](M m) { m->Int("block", 6); }, "key \"block\" is 6; expected an integer from 1 to 5"},
          {"channels 0", [](M m) { m->Int("block_channels", 0); },
           "key \"block_channels\" is 0; expected an integer from 1 to 3"},
          {"channels > C", [](M m) { m->Int("block_channels", 4); }, "key \"block_channels\" is 4; expected"},
          {"short", [](M m) { m->Blob("kept", {255}); }, "key \"kept\" has 1 bytes; expected 2"},
          {"long", [](M m) { m->Blob("kept", {255, 255, 0}); }, "key \"kept\" has 3 bytes; expected 2"},
          {"fewer", [](M m) { m->Blob("kept", {255, 127}); },
           "key \"kept\" keeps 92 weights; expected the values tensor's 96 elements"},
          {"other groups", [](M m) { m->Int("block", 5).Blob("kept", {255}); },
           "key \"kept\" keeps 60 weights; expected the values tensor's 96 elements"},
      });
  // Nine positions and two groups: 18 units, six bits to spare.
  const Encoded spare = EncodePunched({2, 2, 3, 3}, 2, 1, 100, 1);
  ExpectRefused(spare, {{"spare bits", [](M m) { m->Blob("kept", {255, 255, 7}); },
                         "key \"kept\" has a bit past the last of 18 units; expected 0 there"}});
  for (float value : {1.0f, std::numeric_limits<float>::quiet_NaN()}) {
    Encoded bad = good;
    bad.values.back() = value;
    EXPECT_NE(Read(kConv, bad.options.Finish(), bad.values).error.find("values past the last row are not all 0"),
              std::string::npos);
  }
  ExpectRefused(
      EncodePunched({100, 1, 1, 1}, 64, 1, 100, 1),
      {{"block 65", [](M m) { m->Int("block", 65); }, "key \"block\" is 65; expected an integer from 1 to 64"}});
}

// ---- block_row_column

Encoded EncodeRowColumn(const Shape& shape, int32_t height, int32_t width, int percent, uint32_t seed) {
  std::mt19937 random(seed);
  Encoded out;
  out.dense.assign(static_cast<size_t>(shape.rows) * static_cast<size_t>(shape.columns()), 0.0f);
  BitWriter kept_rows, kept_columns;
  for (int32_t row = 0; row < shape.rows; row += height) {
    for (int32_t column = 0; column < shape.columns(); column += width) {
      std::vector<int32_t> rows, columns;
      for (int32_t r = row; r < std::min(row + height, shape.rows); ++r) {
        if (static_cast<int>(random() % 100) < percent) rows.push_back(r);
      }
      for (int32_t c = column; c < std::min(column + width, shape.columns()); ++c) {
        if (static_cast<int>(random() % 100) < percent) columns.push_back(c);
      }
      if (rows.empty() || columns.empty()) {
        rows.clear();
        columns.clear();
      }
      for (int32_t r = row; r < row + height; ++r) kept_rows.Put(std::find(rows.begin(), rows.end(), r) != rows.end());
      for (int32_t c = column; c < column + width; ++c) {
        kept_columns.Put(std::find(columns.begin(), columns.end(), c) != columns.end());
      }
      for (int32_t c : columns) {
        for (int32_t r : rows) {
          out.values.push_back(Weight(&random));
          out.dense[static_cast<size_t>(r) * static_cast<size_t>(shape.columns()) + static_cast<size_t>(c)] =
              out.values.back();
        }
      }
    }
  }
  out.options = Common("block_row_column", shape)
                    .Int("block_rows", height)
                    .Int("block_columns", width)
                    .Blob("kept_rows", kept_rows.bytes())
                    .Blob("kept_columns", kept_columns.bytes());
  return out;
}

TEST(BlockRowColumn, BlocksAndRaggedEdges) {
  uint32_t seed = 1;
  for (const Shape& shape : {Shape{1, 1}, Shape{16, 32}, Shape{17, 33}, Shape{31, 7, 3, 3}, Shape{64, 100}}) {
    for (int32_t height : {1, 3, 8, 16, 64}) {
      for (int32_t width : {1, 5, 16, 100}) {
        if (height > shape.rows || width > shape.columns()) continue;
        for (int percent : {5, 50, 100}) {
          SCOPED_TRACE(::testing::Message()
                       << height << " x " << width << " in " << shape.rows << " x " << shape.columns());
          ExpectDense(EncodeRowColumn(shape, height, width, percent, seed++), shape);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  const Shape dense{48, 80};
  Encoded encoded = EncodeRowColumn(dense, 16, 16, 45, 2);
  encoded.options.Bool("keep_num_dims", true);
  ExpectDense(encoded, dense, kDense);
}

TEST(BlockRowColumn, RefusalsSayWhatAndWhy) {
  using M = FlexMapBuilder*;
  // 5 x 6 in blocks of 4 x 4: 2 x 2 of them, all kept. Rows 1111 1111 1000 1000, columns 1111 1100 1111 1100.
  const Encoded good = EncodeRowColumn({5, 6}, 4, 4, 100, 1);
  ASSERT_EQ(good.values.size(), 30u);
  ExpectRefused(
      good,
      {
          {"rows 0", [](M m) { m->Int("block_rows", 0); }, "key \"block_rows\" is 0; expected an integer from 1 to 5"},
          {"rows 6", [](M m) { m->Int("block_rows", 6); }, "key \"block_rows\" is 6;"},
          {"columns 7", [](M m) { m->Int("block_columns", 7); },
           "key \"block_columns\" is 7; expected an integer from 1 to 6"},
          {"short rows", [](M m) { m->Blob("kept_rows", {255}); }, "key \"kept_rows\" has 1 bytes; expected 2"},
          {"long columns", [](M m) { m->Blob("kept_columns", {63, 63, 0}); },
           "key \"kept_columns\" has 3 bytes; expected 2"},
          {"row outside", [](M m) { m->Blob("kept_rows", {255, 0x13}); },
           "key \"kept_rows\" keeps a row past the last in block 2; expected 0 there"},
          {"column outside", [](M m) { m->Blob("kept_columns", {0x7f, 0x3f}); },
           "key \"kept_columns\" keeps a column past the last in block 1; expected 0 there"},
          {"rows alone", [](M m) { m->Blob("kept_columns", {63, 0x30}); },
           "key \"kept_columns\" keeps 0 columns of block 2, which keeps 1 rows; expected both or neither"},
          {"columns alone", [](M m) { m->Blob("kept_rows", {0xf0, 0x11}); },
           "key \"kept_columns\" keeps 4 columns of block 0, which keeps 0 rows; expected both or neither"},
          {"fewer", [](M m) { m->Blob("kept_rows", {0xf7, 0x11}); },
           "key \"kept_columns\" and key \"kept_rows\" keep 26 weights; expected the values tensor's 30"},
      });
  Encoded more = good;
  more.values.pop_back();
  EXPECT_EQ(Read(kConv, more.options.Finish(), more.values).error,
            "key \"kept_columns\" and key \"kept_rows\" keep more weights than the values tensor's 29");
  // Blocks of 3 x 5 in 6 x 5: 6 bits of rows, 10 of columns, the rest to spare.
  const Encoded spare = EncodeRowColumn({6, 5}, 3, 5, 100, 1);
  ExpectRefused(spare, {
                           {"spare row bits", [](M m) { m->Blob("kept_rows", {0x7f}); },
                            "key \"kept_rows\" has a bit past the last block; expected 0 there"},
                           {"spare column bits", [](M m) { m->Blob("kept_columns", {0xff, 0x83}); },
                            "key \"kept_columns\" has a bit past the last block; expected 0 there"},
                       });
}

// ---- all of them

TEST(Structures, EveryKeyIsNamedWhenMissingOrOfAnotherType) {
  const struct {
    Encoded good;
    std::vector<std::string> keys;
  } cases[] = {
      {SmallPattern(), {"patterns", "gap_bits", "gaps_low", "gaps_high"}},
      {EncodePunched({8, 4, 3, 3}, 4, 2, 50, 1), {"block", "block_channels", "kept"}},
      {EncodeRowColumn({8, 8}, 4, 4, 60, 1), {"block_rows", "block_columns", "kept_rows", "kept_columns"}},
  };
  for (const auto& c : cases) {
    for (const std::string& key : c.keys) {
      const std::string missing = Read(kConv, FlexMapBuilder(c.good.options).Remove(key).Finish(), c.good.values).error;
      EXPECT_EQ(missing.rfind("key \"" + key + "\" is missing; expected ", 0), 0u) << missing;
      const std::string type =
          Read(kConv, FlexMapBuilder(c.good.options).String(key, "x").Finish(), c.good.values).error;
      EXPECT_EQ(type.rfind("key \"" + key + "\" is a string; expected ", 0), 0u) << type;
    }
  }
  const Encoded pattern = SmallPattern();
  EXPECT_EQ(Read(kConv, FlexMapBuilder(pattern.options).Int("filter_order", 1).Finish(), pattern.values).error,
            "key \"filter_order\" is an integer; expected a blob");
}

TEST(StructuresFuzz, EveryByteAndEveryTruncation) {
  for (const Encoded& good :
       {SmallPattern(), EncodePunched({13, 5, 3, 3}, 4, 2, 30, 1), EncodeRowColumn({13, 21}, 4, 8, 50, 1)}) {
    MutateOptions(kConv, good.options.Finish(1), good.values, 255);
    MutateOptions(kConv, good.options.Finish(2), good.values, 8);
    if (HasFatalFailure()) return;
  }
}

TEST(StructuresFuzz, SeveralBytesAtOnce) {
  std::mt19937 random(7);
  const Shape shape{24, 10, 3, 3};
  const Encoded pattern =
      EncodePattern(shape, RandomPatterns(9, 6, 4, 1), RandomKernels(shape, 6, 30, 2), Shuffled(24, 3), 2, 4);
  for (const Encoded& good : {pattern, EncodePunched(shape, 8, 4, 30, 1), EncodeRowColumn({24, 40}, 8, 8, 50, 1)}) {
    const std::vector<uint8_t> bytes = good.options.Finish();
    for (int round = 0; round < 5000; ++round) {
      std::vector<uint8_t> bad = bytes;
      for (uint32_t c = 0, changes = 2 + random() % 6; c < changes; ++c) {
        bad[random() % bad.size()] = static_cast<uint8_t>(random());
      }
      const ReadResult result = Read(kConv, bad, good.values);
      if (result.ok) testing::CheckLowered(result.matrix);
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace block_sparse
