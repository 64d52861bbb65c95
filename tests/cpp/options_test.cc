// Options that all structures share, and the two kinds of vertical blocks.
#include "tflite_delegate/format/options.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/flexbuffer_builder.h"
#include "tests/cpp/format_testing.h"
#include "tflite_delegate/format/lowered.h"

namespace block_sparse {
namespace {

#include "tests/cpp/flexbuffer_fixtures.inc"

using testing::AppendGap;
using testing::ConvolutionOptions;
using testing::Expand;
using testing::FlexMapBuilder;
using testing::FullyConnectedOptions;
using testing::MutateOptions;
using testing::Read;
using testing::ReadResult;

constexpr BlockSparseOp kConv = BlockSparseOp::kConv2D;
constexpr BlockSparseOp kDense = BlockSparseOp::kFullyConnected;

// A matrix made of vertical blocks, held as the list of blocks and as dense weights.
struct BlockMatrix {
  int32_t rows, columns, block;
  bool aligned;
  std::vector<uint8_t> positions;
  std::vector<float> values;
  std::vector<float> dense;  // rows x columns
};

// Random blocks; `density` of them in a thousand of the places where one could start.
BlockMatrix RandomBlocks(int32_t rows, int32_t columns, int32_t block, bool aligned, int density, uint32_t seed) {
  std::mt19937 random(seed);
  BlockMatrix m{rows, columns, block, aligned, {}, {}, {}};
  m.dense.assign(static_cast<size_t>(rows) * static_cast<size_t>(columns), 0.0f);
  int64_t cursor = 0;
  for (int32_t column = 0; column < columns; ++column) {
    int32_t row = 0;
    while (aligned ? row < rows : row + block <= rows) {
      const bool take = static_cast<int>(random() % 1000) < density;
      if (take) {
        const int32_t groups = (rows + block - 1) / block;
        const int64_t position = aligned ? int64_t{column} * groups + row / block : int64_t{column} * rows + row;
        AppendGap(static_cast<uint64_t>(position - cursor), &m.positions);
        cursor = position + (aligned ? 1 : block);
        for (int32_t q = 0; q < block; ++q) {
          const bool inside = row + q < rows;
          const float value = inside ? static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 64.0f : 0.0f;
          m.values.push_back(value);
          if (inside) m.dense[static_cast<size_t>(row + q) * static_cast<size_t>(columns) + column] = value;
        }
      }
      row += aligned || take ? block : 1;
    }
  }
  return m;
}

FlexMapBuilder Options(const BlockMatrix& m) {
  return FullyConnectedOptions(m.aligned ? "aligned_block" : "unaligned_block", m.rows, m.columns)
      .Int("block", m.block)
      .Blob("positions", m.positions);
}

void ExpectDense(const BlockMatrix& m) {
  if (m.values.empty()) return;  // the format wants one value at least
  const ReadResult result = Read(kDense, Options(m).Finish(), m.values);
  ASSERT_TRUE(result.ok) << result.error;
  EXPECT_EQ(result.matrix.rows, m.rows);
  EXPECT_EQ(result.matrix.columns, m.columns);
  EXPECT_TRUE(result.matrix.row_channel.empty());
  EXPECT_EQ(Expand(result.matrix), m.dense);
  if (m.aligned && m.block % result.matrix.block == 0) {
    EXPECT_TRUE(result.matrix.aligned);
  }
}

TEST(Blocks, EveryHeightAndRaggedEdges) {
  uint32_t seed = 1;
  for (bool aligned : {false, true}) {
    for (int32_t block = 2; block <= 64; ++block) {
      for (int32_t rows : {block, block + 1, 2 * block - 1, 3 * block + 2}) {
        for (int density : {50, 300, 1000}) {
          SCOPED_TRACE(::testing::Message() << aligned << " " << block << " " << rows << " " << density);
          ExpectDense(RandomBlocks(rows, 5, block, aligned, density, seed++));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Blocks, LongAndWideMatrices) {
  for (bool aligned : {false, true}) {
    for (int32_t block : {2, 3, 4, 8}) {
      ExpectDense(RandomBlocks(1031, 67, block, aligned, 50, 7));
      ExpectDense(RandomBlocks(block + 3, 4099, block, aligned, 200, 8));
      // So sparse that gaps take several bytes.
      ExpectDense(RandomBlocks(4099, 257, block, aligned, 1, 9));
    }
  }
}

TEST(Blocks, GapsOfManyBytes) {
  // One block in the last place of a matrix with nearly 2^31 elements: a gap of five bytes.
  const int32_t rows = (1 << 21) - 1, columns = 1024;
  BlockMatrix m{rows, columns, 4, false, {}, {1, 2, 3, 4}, {}};
  AppendGap(static_cast<uint64_t>(rows) * columns - 4, &m.positions);
  ASSERT_EQ(m.positions.size(), 5u);
  const ReadResult result = Read(kDense, Options(m).Finish(), m.values);
  ASSERT_TRUE(result.ok) << result.error;
  ASSERT_EQ(result.matrix.block_column.size(), 1u);
  EXPECT_EQ(result.matrix.block_column[0], columns - 1);
  EXPECT_EQ(result.matrix.block_row[0], rows - 4);
  EXPECT_TRUE(std::equal(m.values.begin(), m.values.end(), result.matrix.BlockValues(0)));
}

TEST(Blocks, KernelHeights) {
  const struct {
    int32_t block, lowered;
  } cases[] = {{2, 2}, {3, 4},  {4, 4},  {5, 8},  {6, 8},  {7, 8},  {8, 8},
               {9, 4}, {10, 4}, {12, 4}, {16, 8}, {20, 8}, {63, 8}, {64, 8}};
  for (const auto& c : cases) {
    const BlockMatrix m = RandomBlocks(3 * c.block, 3, c.block, false, 500, 1);
    EXPECT_EQ(Read(kDense, Options(m).Finish(), m.values).matrix.block, c.lowered) << c.block;
  }
}

TEST(Blocks, AlignedIsNoticedWhateverTheStructureIsCalled) {
  BlockMatrix m{8, 2, 4, false, {4, 4}, {1, 2, 3, 4, 5, 6, 7, 8}, {}};  // rows 4.. of column 0, rows 4.. of column 1
  EXPECT_TRUE(Read(kDense, Options(m).Finish(), m.values).matrix.aligned);
  m.positions = {4, 3};
  EXPECT_FALSE(Read(kDense, Options(m).Finish(), m.values).matrix.aligned);
}

TEST(Options, ReferenceWriterAtEachWidth) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  std::vector<float> dense(5 * 18, 0.0f);
  dense[3 * 18 + 0] = 1;
  dense[4 * 18 + 0] = 2;
  dense[1 * 18 + 1] = 3;
  dense[2 * 18 + 1] = 4;
  dense[2 * 18 + 17] = 5;
  dense[3 * 18 + 17] = 6;
  const std::vector<std::vector<uint8_t>> files = {
      {std::begin(kUnalignedConvolution8), std::end(kUnalignedConvolution8)},
      {std::begin(kUnalignedConvolution16), std::end(kUnalignedConvolution16)},
      {std::begin(kUnalignedConvolution32), std::end(kUnalignedConvolution32)},
      {std::begin(kUnalignedConvolution64), std::end(kUnalignedConvolution64)}};
  for (const std::vector<uint8_t>& file : files) {
    const ReadResult result = Read(kConv, file, values);
    ASSERT_TRUE(result.ok) << result.error;
    EXPECT_EQ(Expand(result.matrix), dense);
    EXPECT_EQ(result.options.activation, Activation::kRelu6);
    const ConvOptions& conv = result.options.conv;
    EXPECT_EQ(conv.kernel_height, 3);
    EXPECT_EQ(conv.kernel_width, 3);
    EXPECT_EQ(conv.stride_height, 2);
    EXPECT_EQ(conv.stride_width, 1);
    EXPECT_EQ(conv.dilation_height, 1);
    EXPECT_EQ(conv.dilation_width, 2);
    EXPECT_TRUE(conv.padding_same);
  }
  const std::vector<uint8_t> other(std::begin(kEveryType), std::end(kEveryType));
  EXPECT_EQ(Read(kConv, other, values).error, "key \"version\" is missing; expected the integer 1");
}

FlexMapBuilder GoodConvolution() {
  return ConvolutionOptions("unaligned_block", 8, 12, 2, 3).Int("block", 4).Blob("positions", {1, 7});
}
FlexMapBuilder GoodDense() {
  return FullyConnectedOptions("unaligned_block", 8, 12).Int("block", 4).Blob("positions", {1, 7});
}
const std::vector<float>& GoodValues() {
  static const std::vector<float>* values = new std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8};
  return *values;
}

TEST(Options, AllValuesOfEnumerations) {
  const struct {
    const char* name;
    Activation activation;
  } cases[] = {{"none", Activation::kNone},
               {"relu", Activation::kRelu},
               {"relu_n1_to_1", Activation::kReluN1To1},
               {"relu6", Activation::kRelu6}};
  for (const auto& c : cases) {
    EXPECT_EQ(Read(kConv, GoodConvolution().String("activation", c.name).Finish(), GoodValues()).options.activation,
              c.activation);
    EXPECT_EQ(Read(kDense, GoodDense().String("activation", c.name).Finish(), GoodValues()).options.activation,
              c.activation);
  }
  for (bool keep : {false, true}) {
    EXPECT_EQ(Read(kDense, GoodDense().Bool("keep_num_dims", keep).Finish(), GoodValues()).options.keep_num_dims, keep);
  }
  for (bool same : {false, true}) {
    const auto options = GoodConvolution().String("padding", same ? "same" : "valid").Finish();
    EXPECT_EQ(Read(kConv, options, GoodValues()).options.conv.padding_same, same);
  }
}

TEST(Options, UnknownKeysAreIgnored) {
  const auto options = GoodDense().String("author", "x").Null("zzz").Int("kernel_height", -4).Finish();
  EXPECT_TRUE(Read(kDense, options, GoodValues()).ok);
  EXPECT_TRUE(Read(kDense, GoodDense().Blob("negative_zero_rows", {255}).Finish(), GoodValues()).ok);
  EXPECT_TRUE(Read(kDense, GoodDense().Int("dense_opcode", 3).Finish(), GoodValues()).ok);
}

TEST(Options, EveryKeyIsNamedWhenMissingOrOfAnotherType) {
  for (BlockSparseOp op : {kConv, kDense}) {
    std::vector<std::string> keys = {"version", "structure", "rows", "columns", "activation", "block", "positions"};
    const std::vector<std::string> own =
        op == kConv ? std::vector<std::string>{"kernel_height",   "kernel_width",   "stride_height", "stride_width",
                                               "dilation_height", "dilation_width", "padding"}
                    : std::vector<std::string>{"keep_num_dims"};
    keys.insert(keys.end(), own.begin(), own.end());
    for (const std::string& key : keys) {
      const FlexMapBuilder good = op == kConv ? GoodConvolution() : GoodDense();
      ASSERT_TRUE(Read(op, good.Finish(), GoodValues()).ok);
      const std::string missing = Read(op, FlexMapBuilder(good).Remove(key).Finish(), GoodValues()).error;
      EXPECT_EQ(missing.rfind("key \"" + key + "\" is missing; expected ", 0), 0u) << missing;
      const std::string null = Read(op, FlexMapBuilder(good).Null(key).Finish(), GoodValues()).error;
      EXPECT_EQ(null.rfind("key \"" + key + "\" is null; expected ", 0), 0u) << null;
      const bool is_blob = key == "positions";
      const FlexMapBuilder other =
          is_blob ? FlexMapBuilder(good).String(key, "ab") : FlexMapBuilder(good).Blob(key, {1, 2});
      const std::string type = Read(op, other.Finish(), GoodValues()).error;
      EXPECT_EQ(type.rfind("key \"" + key + "\" is a " + (is_blob ? "string" : "blob") + "; expected ", 0), 0u) << type;
    }
  }
}

struct Refusal {
  const char* what;
  std::function<void(FlexMapBuilder*)> change;
  const char* message;
};

TEST(Options, RefusalsSayWhatAndWhy) {
  const int64_t big = std::numeric_limits<int64_t>::max();
  const std::vector<Refusal> cases = {
      {"version", [](auto* m) { m->Int("version", 2); }, "key \"version\" is 2; expected the integer 1"},
      {"structure", [](auto* m) { m->String("structure", "blo\nck\"s"); },
       "key \"structure\" is \"blo?ck?s\"; expected one of the strings \"unaligned_block\""},
      {"long structure", [](auto* m) { m->String("structure", std::string(500, 'x')); }, "xxx...\"; expected one of"},
      {"structure prefix", [](auto* m) { m->String("structure", "unaligned_bloc"); }, "key \"structure\" is"},
      {"structure with a zero", [](auto* m) { m->String("structure", std::string("unaligned_block\0", 16)); },
       "key \"structure\" is \"unaligned_block?\""},
      {"rows 0", [](auto* m) { m->Int("rows", 0); }, "key \"rows\" is 0; expected an integer from 1 to 16777216"},
      {"rows < 0", [](auto* m) { m->Int("rows", -8); }, "key \"rows\" is -8; expected"},
      {"rows 2^32 + 8", [](auto* m) { m->Int("rows", (int64_t{1} << 32) + 8); }, "key \"rows\" is 4294967304;"},
      {"rows max", [big](auto* m) { m->Int("rows", big); }, "key \"rows\" is 9223372036854775807;"},
      {"rows min", [big](auto* m) { m->Int("rows", -big - 1); }, "key \"rows\" is -9223372036854775808;"},
      {"rows 2^64 - 1", [](auto* m) { m->UInt("rows", ~uint64_t{0}); }, "key \"rows\" is 9223372036854775807;"},
      {"product", [](auto* m) { m->Int("rows", 1 << 16).Int("columns", 1 << 15); },
       "key \"columns\" is 32768, which with 65536 rows makes 2147483648 elements; expected fewer than 2^31"},
      {"product 2^48", [](auto* m) { m->Int("rows", 1 << 24).Int("columns", 1 << 24); }, "281474976710656 elements"},
      {"kernel", [](auto* m) { m->Int("kernel_width", 5); },
       "key \"columns\" is 12; expected a multiple of the 2 x 5 kernel positions"},
      {"kernel product",
       [](auto* m) {
         m->Int("kernel_height", 1 << 24)
             .Int("kernel_width", 1 << 24)
             .Int("dilation_height", 1)
             .Int("dilation_width", 1);
       },
       "key \"columns\" is 12; expected a multiple of the 16777216 x 16777216 kernel positions"},
      {"dilated kernel", [](auto* m) { m->Int("dilation_width", 1 << 23); },
       "key \"dilation_width\" makes the dilated kernel larger than 16777216 pixels"},
      {"stride", [](auto* m) { m->Int("stride_height", 0); }, "key \"stride_height\" is 0; expected an integer from 1"},
      {"padding", [](auto* m) { m->String("padding", "SAME"); },
       "key \"padding\" is \"SAME\"; expected one of the strings \"valid\", \"same\""},
      {"activation", [](auto* m) { m->String("activation", "tanh"); },
       "key \"activation\" is \"tanh\"; expected one of the strings \"none\", \"relu\", \"relu_n1_to_1\", \"relu6\""},
      {"negative zeros", [](auto* m) { m->Int("negative_zero_rows", 3); },
       "key \"negative_zero_rows\" is an integer; expected a blob"},
      {"size of negative zeros", [](auto* m) { m->Blob("negative_zero_rows", {1, 2}); },
       "key \"negative_zero_rows\" has 2 bytes; expected 1"},
      {"dense_opcode", [](auto* m) { m->Int("dense_opcode", -1); },
       "key \"dense_opcode\" is -1; expected an integer from 0"},
      {"block 1", [](auto* m) { m->Int("block", 1); }, "key \"block\" is 1; expected an integer from 2 to 64"},
      {"block 65", [](auto* m) { m->Int("block", 65); }, "key \"block\" is 65; expected an integer from 2 to 64"},
      {"block > rows", [](auto* m) { m->Int("rows", 3); },
       "key \"block\" is 4; expected at most the 3 of key \"rows\""},
      {"values", [](auto* m) { m->Int("block", 5); },
       "key \"block\" is 5, which does not divide the values tensor's 8 elements; expected a whole number of blocks"},
      {"few positions", [](auto* m) { m->Blob("positions", {1}); },
       "key \"positions\" has only 1 bytes; expected 2 gaps, one for each block of the values tensor"},
      {"many positions", [](auto* m) { m->Blob("positions", {1, 7, 0}); },
       "key \"positions\" goes on after the last block; expected 2 gaps"},
      {"open gap", [](auto* m) { m->Blob("positions", {1, 0x87}); },
       "key \"positions\" is truncated or has a gap of 2^32 or more at block 1"},
      {"gap of 2^32", [](auto* m) { m->Blob("positions", {1, 0x80, 0x80, 0x80, 0x80, 0x10}); },
       "key \"positions\" is truncated or has a gap of 2^32 or more at block 1"},
      {"gap of six bytes", [](auto* m) { m->Blob("positions", {0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 7}); },
       "key \"positions\" is truncated or has a gap of 2^32 or more at block 0"},
      {"gap of 2^32 - 1", [](auto* m) { m->Blob("positions", {1, 0xff, 0xff, 0xff, 0xff, 0x0f}); },
       "key \"positions\" puts block 1 at position 4294967300; expected positions below 96"},
      {"first place after the end", [](auto* m) { m->Blob("positions", {1, 91}); },
       "key \"positions\" puts block 1 at position 96; expected positions below 96"},
      {"crossing columns", [](auto* m) { m->Blob("positions", {1, 8}); },
       "key \"positions\" starts block 1 at row 5; expected at most row 4, where 4 rows still fit"},
      {"crossing the end", [](auto* m) { m->Blob("positions", {1, 88}); },
       "key \"positions\" starts block 1 at row 5;"},
  };
  for (const Refusal& c : cases) {
    FlexMapBuilder options = GoodConvolution();
    c.change(&options);
    const ReadResult result = Read(kConv, options.Finish(), GoodValues());
    EXPECT_FALSE(result.ok) << c.what;
    EXPECT_NE(result.error.find(c.message), std::string::npos) << c.what << ": " << result.error;
  }
}

TEST(Options, RefusesWhatIsNotThere) {
  BlockSparseOptions options;
  LoweredMatrix matrix;
  std::string error;
  EXPECT_FALSE(ReadBlockSparse(kConv, ReadTo::kLower, nullptr, 0, GoodValues().data(), 8, &options, &matrix, &error));
  EXPECT_EQ(error, "custom options: missing");
  const std::vector<uint8_t> good = GoodConvolution().Finish();
  EXPECT_FALSE(ReadBlockSparse(kConv, ReadTo::kLower, good.data(), good.size(), nullptr, 8, &options, &matrix, &error));
  EXPECT_EQ(error, "values tensor: it has no data; expected a constant");
  EXPECT_FALSE(ReadBlockSparse(kConv, ReadTo::kLower, good.data(), good.size() - 1, GoodValues().data(), 8, &options,
                               &matrix, &error));
  EXPECT_NE(error.find("custom options: "), std::string::npos);
  const std::vector<uint8_t> empty = GoodConvolution().Blob("positions", {}).Finish();
  EXPECT_FALSE(ReadBlockSparse(kConv, ReadTo::kLower, empty.data(), empty.size(), GoodValues().data(), 0, &options,
                               &matrix, &error));
  EXPECT_EQ(error, "values tensor: it has 0 elements; expected at least 1 and fewer than 2^31");
  // What a failed call left behind is of no consequence to the next.
  EXPECT_TRUE(ReadBlockSparse(kConv, ReadTo::kLower, good.data(), good.size(), GoodValues().data(), 8, &options,
                              &matrix, &error));
  EXPECT_EQ(matrix.block_column.size(), 2u);
}

TEST(Options, TinyFilesCannotAskForMuch) {
  // The largest that is accepted costs no memory for its rows.
  const auto options = FullyConnectedOptions("unaligned_block", 1 << 24, 127).Int("block", 2).Blob("positions", {0});
  const ReadResult result = Read(kDense, options.Finish(), {1, 2});
  ASSERT_TRUE(result.ok) << result.error;
  EXPECT_EQ(result.matrix.rows, 1 << 24);
  EXPECT_EQ(result.matrix.blocks(), 1u);
}

TEST(Blocks, RaggedGroupHoldsZerosPastTheLastRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // 6 rows in groups of 4: group 1 has rows 4 and 5.
  BlockMatrix m{6, 2, 4, true, {3}, {1, 2, 0, -0.0f}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2}};
  ExpectDense(m);
  for (size_t q : {2u, 3u}) {
    for (float value : {1.0f, -1e-30f, nan}) {
      BlockMatrix bad = m;
      bad.values[q] = value;
      EXPECT_EQ(Read(kDense, Options(bad).Finish(), bad.values).error,
                "key \"positions\" has block 0 reach past the last row with a value that is not 0; expected 0 there");
    }
  }
  m.positions = {4};
  EXPECT_EQ(Read(kDense, Options(m).Finish(), m.values).error,
            "key \"positions\" puts block 0 at position 4; expected positions below 4");
}

TEST(Blocks, SpecialValuesPassThrough) {
  const float inf = std::numeric_limits<float>::infinity();
  const BlockMatrix m{4, 1, 4, false, {0}, {inf, -inf, std::numeric_limits<float>::denorm_min(), -0.0f}, {}};
  const ReadResult result = Read(kDense, Options(m).Finish(), m.values);
  ASSERT_TRUE(result.ok);
  ASSERT_EQ(result.matrix.weights(), m.values.size());
  EXPECT_EQ(std::memcmp(result.matrix.BlockValues(0), m.values.data(), sizeof(float) * m.values.size()), 0);
}

TEST(OptionsFuzz, EveryByteAndEveryTruncation) {
  MutateOptions(kConv, GoodConvolution().Finish(1), GoodValues(), 255);
  MutateOptions(kDense, GoodDense().Finish(1), GoodValues(), 255);
  MutateOptions(kConv, GoodConvolution().Finish(2), GoodValues(), 8);
  MutateOptions(kDense, GoodDense().Finish(4), GoodValues(), 8);
  for (bool aligned : {false, true}) {
    const BlockMatrix m = RandomBlocks(37, 19, 3, aligned, 150, 3);
    MutateOptions(kDense, Options(m).Finish(), m.values, 255);
  }
  const std::vector<uint8_t> file(std::begin(kUnalignedConvolution8), std::end(kUnalignedConvolution8));
  MutateOptions(kConv, file, {1, 2, 3, 4, 5, 6}, 255);
}

TEST(OptionsFuzz, SeveralBytesAtOnce) {
  std::mt19937 random(99);
  const BlockMatrix m = RandomBlocks(23, 11, 4, false, 200, 4);
  const std::vector<uint8_t> good = Options(m).Finish();
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> bad = good;
    for (uint32_t c = 0, changes = 2 + random() % 6; c < changes; ++c) {
      bad[random() % bad.size()] = static_cast<uint8_t>(random());
    }
    const ReadResult result = Read(kDense, bad, m.values);
    if (result.ok) testing::CheckLowered(result.matrix);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace block_sparse
