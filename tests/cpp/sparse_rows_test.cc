#include "tflite_delegate/format/sparse_rows.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/format_testing.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/format/lowering.h"

namespace block_sparse::format {
namespace {

using testing::Expand;

SparseRows FromDense(const std::vector<float>& dense, int32_t rows, int32_t columns) {
  SparseRows entries;
  entries.rows = rows;
  entries.columns = columns;
  entries.begin.push_back(0);
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t c = 0; c < columns; ++c) {
      const float value = dense[static_cast<size_t>(r) * static_cast<size_t>(columns) + static_cast<size_t>(c)];
      if (value != 0.0f) {
        entries.column.push_back(c);
        entries.value.push_back(value);
      }
    }
    entries.begin.push_back(static_cast<uint32_t>(entries.column.size()));
  }
  return entries;
}

LoweredMatrix Lower(const std::vector<float>& dense, int32_t rows, int32_t columns) {
  LoweredMatrix matrix;
  LowerSparseRows(FromDense(dense, rows, columns), {}, &matrix);
  EXPECT_EQ(Expand(matrix), dense);
  return matrix;
}

// Groups of `group` rows with the same random columns; rows shuffled if wanted.
std::vector<float> Planted(int32_t rows, int32_t columns, int32_t group, int percent, bool shuffled, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> place(static_cast<size_t>(rows));
  std::iota(place.begin(), place.end(), 0);
  if (shuffled) std::shuffle(place.begin(), place.end(), random);
  std::vector<float> dense(static_cast<size_t>(rows) * static_cast<size_t>(columns), 0.0f);
  for (int32_t first = 0; first < rows; first += group) {
    for (int32_t c = 0; c < columns; ++c) {
      if (static_cast<int>(random() % 100) >= percent) continue;
      for (int32_t r = first; r < std::min(rows, first + group); ++r) {
        dense[static_cast<size_t>(place[static_cast<size_t>(r)]) * static_cast<size_t>(columns) +
              static_cast<size_t>(c)] = static_cast<float>(1 + random() % 1000);
      }
    }
  }
  return dense;
}

// What the plain way, one block an entry, costs, and what the chosen way does.
double Saving(const std::vector<float>& dense, const LoweredMatrix& matrix) {
  const auto entries =
      static_cast<double>(dense.size()) - static_cast<double>(std::count(dense.begin(), dense.end(), 0.0f));
  return static_cast<double>(matrix.block_column.size()) * (matrix.block + kBlockOverhead) /
         (entries * (1 + kBlockOverhead));
}

TEST(SparseRows, RandomMatricesOfAllShapes) {
  uint32_t seed = 1;
  for (int32_t rows : {1, 2, 3, 7, 8, 9, 17, 33, 64}) {
    for (int32_t columns : {1, 2, 9, 36, 131}) {
      for (int percent : {0, 1, 20, 60, 100}) {
        SCOPED_TRACE(::testing::Message() << rows << " x " << columns << " " << percent << " %");
        const std::vector<float> dense = Planted(rows, columns, 1, percent, false, seed++);
        const LoweredMatrix matrix = Lower(dense, rows, columns);
        if (!matrix.block_column.empty()) {
          EXPECT_LE(Saving(dense, matrix), 1.0);
        }
      }
    }
  }
}

TEST(SparseRows, UnrelatedRowsStayAsTheyAre) {
  const LoweredMatrix matrix = Lower(Planted(61, 900, 1, 10, false, 3), 61, 900);
  EXPECT_EQ(matrix.block, 1);
  EXPECT_TRUE(matrix.row_channel.empty());
}

TEST(SparseRows, NeighboursThatShareColumnsShareBlocks) {
  for (int32_t group : {2, 4, 8}) {
    const LoweredMatrix matrix = Lower(Planted(64, 300, group, 15, false, 4), 64, 300);
    EXPECT_EQ(matrix.block, group);
    EXPECT_TRUE(matrix.aligned);
    EXPECT_TRUE(matrix.row_channel.empty());
  }
}

TEST(SparseRows, ScatteredRowsThatShareColumnsMeet) {
  for (int32_t group : {2, 4, 8}) {
    const std::vector<float> dense = Planted(128, 300, group, 15, true, 5);
    const LoweredMatrix matrix = Lower(dense, 128, 300);
    EXPECT_EQ(matrix.block, group);
    EXPECT_FALSE(matrix.row_channel.empty());
    EXPECT_NEAR(Saving(dense, matrix), (group + kBlockOverhead) / (group * (1 + kBlockOverhead)), 0.02);
  }
  // Groups of 5 fit no height; the rest of a group joins the next one.
  const std::vector<float> dense = Planted(125, 300, 5, 15, true, 6);
  EXPECT_LT(Saving(dense, Lower(dense, 125, 300)), 0.95);
}

// Large enough to be judged by some of the columns.
TEST(SparseRows, LargeLayers) {
  for (int32_t group : {1, 2, 4, 8}) {
    for (bool shuffled : {false, true}) {
      const std::vector<float> dense = Planted(256, 4608, group, 20, shuffled, 7);
      const LoweredMatrix matrix = Lower(dense, 256, 4608);
      EXPECT_EQ(matrix.block, group);
      EXPECT_NEAR(Saving(dense, matrix), (group + kBlockOverhead) / (group * (1 + kBlockOverhead)), 0.01);
    }
  }
}

TEST(SparseRows, BlocksNeedNotBeAligned) {
  // Rows 3 to 10 and 11 to 18 are alike, so that no multiple of 8 or 4 separates them.
  std::vector<float> dense(19 * 50, 0.0f);
  for (size_t r = 3; r < 19; ++r) {
    for (size_t c = r < 11 ? 0 : 25; c < (r < 11 ? 20u : 50u); ++c) dense[r * 50 + c] = static_cast<float>(r + c);
  }
  const LoweredMatrix matrix = Lower(dense, 19, 50);
  EXPECT_EQ(matrix.block, 8);
  EXPECT_EQ(matrix.block_column.size(), 45u);
}

}  // namespace
}  // namespace block_sparse::format
