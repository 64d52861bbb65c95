// What the tests of the format share: an encoder of gaps, options as a model has them, and the dense expansion of a
// lowered matrix, which checks on its way everything that lowered.h promises.
#ifndef TESTS_CPP_FORMAT_TESTING_H_
#define TESTS_CPP_FORMAT_TESTING_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/flexbuffer_builder.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/format/options.h"

namespace block_sparse::testing {

inline void AppendGap(uint64_t gap, std::vector<uint8_t>* bytes) {
  for (; gap >= 128; gap /= 128) bytes->push_back(static_cast<uint8_t>(gap % 128 + 128));
  bytes->push_back(static_cast<uint8_t>(gap));
}

inline FlexMapBuilder FullyConnectedOptions(const std::string& structure, int64_t rows, int64_t columns) {
  return FlexMapBuilder()
      .Int("version", 1)
      .String("structure", structure)
      .Int("rows", rows)
      .Int("columns", columns)
      .String("activation", "none")
      .Bool("keep_num_dims", false);
}

inline FlexMapBuilder ConvolutionOptions(const std::string& structure, int64_t rows, int64_t columns,
                                         int64_t kernel_height, int64_t kernel_width) {
  return FlexMapBuilder()
      .Int("version", 1)
      .String("structure", structure)
      .Int("rows", rows)
      .Int("columns", columns)
      .String("activation", "relu")
      .Int("kernel_height", kernel_height)
      .Int("kernel_width", kernel_width)
      .Int("stride_height", 1)
      .Int("stride_width", 2)
      .Int("dilation_height", 3)
      .Int("dilation_width", 4)
      .String("padding", "valid");
}

struct ReadResult {
  bool ok = false;
  std::string error;
  BlockSparseOptions options;
  std::shared_ptr<float[]> values;  // that `matrix` may refer to
  LoweredMatrix matrix;
};

// Calls the reader on copies that stand alone in their allocations, so that a sanitizer sees each step outside.
// Checking alone must say the same as lowering.
inline ReadResult Read(BlockSparseOp op, const std::vector<uint8_t>& options, const std::vector<float>& values) {
  const std::unique_ptr<uint8_t[]> option_copy(new uint8_t[options.size()]);
  const std::shared_ptr<float[]> value_copy(new float[values.size()]);
  if (!options.empty()) std::memcpy(option_copy.get(), options.data(), options.size());
  if (!values.empty()) std::memcpy(value_copy.get(), values.data(), values.size() * sizeof(float));
  const auto read = [&](ReadTo to) {
    ReadResult found;
    found.values = value_copy;
    found.ok = ReadBlockSparse(op, to, option_copy.get(), options.size(), value_copy.get(), values.size(),
                               &found.options, &found.matrix, &found.error);
    return found;
  };
  ReadResult result = read(ReadTo::kLower);
  EXPECT_EQ(result.error.empty(), result.ok);
  const ReadResult checked = read(ReadTo::kCheck);
  EXPECT_EQ(checked.ok, result.ok);
  EXPECT_EQ(checked.error, result.error);
  if (result.ok) {
    EXPECT_EQ(checked.matrix.rows, result.matrix.rows);
    EXPECT_EQ(checked.matrix.columns, result.matrix.columns);
    EXPECT_EQ(checked.matrix.blocks(), 0u);
    EXPECT_TRUE(checked.matrix.values.empty());
  }
  return result;
}

// The promises of lowered.h. Cheap enough to follow each round of a fuzz test.
inline void CheckLowered(const LoweredMatrix& matrix) {
  ASSERT_GE(matrix.rows, 1);
  ASSERT_GE(matrix.columns, 1);
  ASSERT_TRUE(matrix.block == 1 || matrix.block == 2 || matrix.block == 4 || matrix.block == 8) << matrix.block;
  const size_t rows = static_cast<size_t>(matrix.rows), block = static_cast<size_t>(matrix.block);
  ASSERT_EQ(matrix.block_row.size(), matrix.blocks());
  if (!matrix.first_value.empty()) {
    ASSERT_EQ(matrix.first_value.size(), matrix.blocks());
  }
  if (matrix.source == nullptr && matrix.first_value.empty()) {
    ASSERT_EQ(matrix.values.size(), matrix.weights());
  }
  // Plain comparisons: a mutated file may have millions of rows.
  std::vector<int32_t> last_column(rows, -1);
  for (size_t i = 0; i < matrix.blocks(); ++i) {
    const int32_t row = matrix.block_row[i], column = matrix.block_column[i];
    ASSERT_TRUE(row >= 0 && row < matrix.rows && (!matrix.aligned || row % matrix.block == 0)) << "block " << i;
    ASSERT_TRUE(column > last_column[static_cast<size_t>(row)] && column < matrix.columns) << "block " << i;
    last_column[static_cast<size_t>(row)] = column;
    for (size_t q = rows - static_cast<size_t>(row); q < block; ++q) {
      ASSERT_EQ(matrix.BlockValues(i)[q], 0.0f) << "block " << i;
    }
  }
  if (!matrix.row_channel.empty()) {
    ASSERT_EQ(matrix.row_channel.size(), rows);
    std::vector<bool> seen(rows, false);
    for (int32_t channel : matrix.row_channel) {
      ASSERT_GE(channel, 0);
      ASSERT_LT(channel, matrix.rows);
      ASSERT_FALSE(seen[static_cast<size_t>(channel)]);
      seen[static_cast<size_t>(channel)] = true;
    }
  }
}

// Dense weights [output channel][column]. Blocks are summed, as a kernel would: an entry covered twice shows.
inline std::vector<float> Expand(const LoweredMatrix& matrix) {
  CheckLowered(matrix);
  std::vector<float> dense(static_cast<size_t>(matrix.rows) * static_cast<size_t>(matrix.columns), 0.0f);
  if (::testing::Test::HasFatalFailure()) return dense;
  for (size_t i = 0; i < matrix.blocks(); ++i) {
    for (int32_t q = 0; q < matrix.block && matrix.block_row[i] + q < matrix.rows; ++q) {
      const int32_t row = matrix.block_row[i] + q;
      const int32_t channel = matrix.row_channel.empty() ? row : matrix.row_channel[static_cast<size_t>(row)];
      dense[static_cast<size_t>(channel) * static_cast<size_t>(matrix.columns) +
            static_cast<size_t>(matrix.block_column[i])] += matrix.BlockValues(i)[q];
    }
  }
  return dense;
}

// Other CPUs are emulated as a rule: they do the same with fewer changes.
#if defined(__x86_64__)
constexpr bool kEmulated = false;
#else
constexpr bool kEmulated = true;
#endif

// Reads every truncation of `options` and each byte changed in `changes` ways (at most 255), and values that are too
// few or too many. The reader must return; what it accepts must keep the promises of lowered.h.
inline void MutateOptions(BlockSparseOp op, const std::vector<uint8_t>& options, const std::vector<float>& values,
                          int changes) {
  ASSERT_TRUE(Read(op, options, values).ok);
  if (kEmulated) changes = 4;
  const auto try_one = [op](const std::vector<uint8_t>& bytes, const std::vector<float>& floats) {
    const ReadResult result = Read(op, bytes, floats);
    if (result.ok) CheckLowered(result.matrix);
  };
  for (size_t size = 0; size < options.size(); ++size) {
    try_one(std::vector<uint8_t>(options.begin(), options.begin() + static_cast<std::ptrdiff_t>(size)), values);
    if (::testing::Test::HasFatalFailure()) return;
  }
  std::vector<uint8_t> bad = options;
  for (size_t i = 0; i < options.size(); ++i) {
    for (int c = 0; c < changes; ++c) {
      bad[i] = changes <= 8 ? static_cast<uint8_t>(options[i] ^ (1 << c)) : static_cast<uint8_t>(options[i] + 1 + c);
      try_one(bad, values);
      if (::testing::Test::HasFatalFailure()) return;
    }
    bad[i] = options[i];
  }
  for (size_t size = 0; size < 2 * values.size() + 65; ++size) {
    std::vector<float> other = values;
    other.resize(size, 1.0f);
    const ReadResult result = Read(op, options, other);
    EXPECT_EQ(result.ok, size == values.size()) << size << " values instead of " << values.size();
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace block_sparse::testing

#endif  // TESTS_CPP_FORMAT_TESTING_H_
