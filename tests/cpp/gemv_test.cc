// Matrix-vector kernels of every CPU level against triple loops in double precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/kernels/gemv_pack.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace {

using kernels::AvailableKernels;
using kernels::KernelTable;

using testing::kInfinity;
using testing::kNan;

std::vector<float> Random(size_t count, std::mt19937* random) {
  std::uniform_real_distribution<float> values(-1.0f, 1.0f);
  std::vector<float> result(count);
  for (float& v : result) v = values(*random);
  return result;
}

std::vector<int32_t> Batches() {
  if (testing::kSlow) return {1, 3, 6};
  return {1, 2, 3, 4, 5, 6, 9, 17};
}

struct Product {
  int32_t rows, columns, batch;
  std::vector<float> weights, bias, x;  // dense; bias may be empty
  float low = -kInfinity, high = kInfinity;

  double Exact(int32_t n, int32_t r) const {
    double sum = bias.empty() ? 0.0 : bias[r];
    for (int32_t c = 0; c < columns; c++) {
      const double w = weights[static_cast<size_t>(r) * columns + c];
      // A block-sparse kernel does not see its zeros, so an infinite input does not meet them.
      if (w != 0.0) sum += w * x[static_cast<size_t>(n) * columns + c];
    }
    return std::isnan(sum) ? sum : std::min<double>(high, std::max<double>(low, sum));
  }

  void Expect(const Guarded<float>& y) const {
    y.ExpectCanaries();
    for (int32_t n = 0; n < batch; n++) {
      for (int32_t r = 0; r < rows; r++) {
        const double exact = Exact(n, r);
        const float got = y[static_cast<size_t>(n) * rows + r];
        if (std::isnan(exact)) {
          EXPECT_TRUE(std::isnan(got)) << "vector " << n << " row " << r << ": " << got;
        } else if (std::isinf(exact)) {
          EXPECT_EQ(got, static_cast<float>(exact)) << "vector " << n << " row " << r;
        } else {
          EXPECT_NEAR(got, exact, 1e-6 * (columns + 4)) << "vector " << n << " row " << r;
        }
      }
    }
  }
};

void ExpectDense(const KernelTable& table, const Product& p) {
  const Guarded<float> weights(p.weights), bias(p.bias), x(p.x);
  Guarded<float> y(static_cast<size_t>(p.batch) * p.rows);
  kernels::GemvArgs args = {};
  args.weights = weights.data();
  args.bias = p.bias.empty() ? nullptr : bias.data();
  args.rows = p.rows;
  args.columns = p.columns;
  args.x = x.data();
  args.x_stride = p.columns;
  args.y = y.data();
  args.y_stride = p.rows;
  args.batch = p.batch;
  args.low = p.low;
  args.high = p.high;
  table.gemv.dense(args);
  p.Expect(y);
}

TEST(DenseGemv, EqualsTripleLoop) {
  std::mt19937 random(1);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    SCOPED_TRACE((*table)->name);
    for (int32_t rows : {1, 2, 3, 7, 8, 9, 17, 32}) {
      for (int32_t columns : {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100}) {
        for (int32_t batch : Batches()) {
          SCOPED_TRACE(::testing::Message() << rows << " x " << columns << ", batch " << batch);
          Product p = {rows, columns, batch, Random(rows * columns, &random), {}, Random(batch * columns, &random)};
          if (rows % 2 == 1) p.bias = Random(rows, &random);
          if (columns % 2 == 1) {
            p.low = -0.5f;
            p.high = 0.75f;
          }
          ExpectDense(**table, p);
        }
      }
    }
  }
}

TEST(DenseGemv, KeepsNanAndInfinity) {
  std::mt19937 random(2);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    SCOPED_TRACE((*table)->name);
    for (int32_t batch : {1, 4}) {
      Product p = {9, 37, batch, Random(9 * 37, &random), Random(9, &random), Random(batch * 37, &random)};
      p.low = 0.0f;
      p.high = 6.0f;
      p.weights[2 * 37 + 5] = kNan;
      p.weights[3 * 37 + 36] = kInfinity;
      p.weights[4 * 37 + 36] = -kInfinity;
      p.bias[5] = kNan;
      p.bias[6] = -kInfinity;
      ExpectDense(**table, p);
    }
  }
}

TEST(DenseGemv, RowDoesNotDependOnItsNeighboursNorOnTheBatch) {
  std::mt19937 random(3);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    SCOPED_TRACE((*table)->name);
    const int32_t rows = 29, columns = 83, batch = 7;
    const std::vector<float> weights = Random(rows * columns, &random), x = Random(batch * columns, &random);
    std::vector<float> all(rows * batch), one(rows * batch);
    kernels::GemvArgs args = {};
    args.columns = columns;
    args.x_stride = columns;
    args.y_stride = rows;
    args.low = -kInfinity;
    args.high = kInfinity;
    args.weights = weights.data();
    args.rows = rows;
    args.x = x.data();
    args.y = all.data();
    args.batch = batch;
    (*table)->gemv.dense(args);
    for (int32_t n = 0; n < batch; n++) {
      for (int32_t first = 0; first < rows; first += 3) {
        args.weights = weights.data() + first * columns;
        args.rows = std::min(3, rows - first);
        args.x = x.data() + n * columns;
        args.y = one.data() + n * rows + first;
        args.batch = 1;
        (*table)->gemv.dense(args);
      }
    }
    EXPECT_EQ(all, one);
  }
}

TEST(DenseGemv, ResultDoesNotDependOnWhereTheWeightsLie) {
  std::mt19937 random(4);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    for (int32_t columns : {3, 16, 37, 64}) {
      for (int32_t batch : {1, 4}) {
        const int32_t rows = 13;
        const std::vector<float> weights = Random(rows * columns, &random), x = Random(batch * columns, &random);
        std::vector<float> first;
        for (size_t offset = 0; offset < 16; offset++) {
          SCOPED_TRACE(::testing::Message() << (*table)->name << ", " << columns << " columns, batch " << batch
                                            << ", weights " << offset << " floats on");
          // Whatever lies before the weights and behind them is not to be read.
          alignas(64) float memory[16 + 13 * 64 + 16];
          std::fill(std::begin(memory), std::end(memory), kNan);
          std::copy(weights.begin(), weights.end(), memory + offset);
          std::vector<float> y(rows * batch);
          kernels::GemvArgs args = {};
          args.weights = memory + offset;
          args.rows = rows;
          args.columns = columns;
          args.x = x.data();
          args.x_stride = columns;
          args.y = y.data();
          args.y_stride = rows;
          args.batch = batch;
          args.low = -kInfinity;
          args.high = kInfinity;
          (*table)->gemv.dense(args);
          if (offset == 0) first = y;
          EXPECT_EQ(y, first);
        }
      }
    }
  }
}

// --- Block-sparse ---

// Blocks that do not overlap, drawn with probability `density` a row, and the dense matrix they stand for.
LoweredMatrix RandomBlocks(int32_t rows, int32_t columns, int32_t block, bool aligned, double density,
                           std::mt19937* random, std::vector<float>* dense) {
  LoweredMatrix matrix;
  matrix.rows = rows;
  matrix.columns = columns;
  matrix.block = block;
  matrix.aligned = aligned;
  dense->assign(static_cast<size_t>(rows) * columns, 0.0f);
  std::bernoulli_distribution start(density);
  std::uniform_real_distribution<float> value(-1.0f, 1.0f);
  std::vector<int32_t> free_from(columns, 0);
  for (int32_t r = 0; r < rows; r++) {
    for (int32_t c = 0; c < columns && (!aligned || r % block == 0); c++) {
      if (free_from[c] > r || !start(*random)) continue;
      free_from[c] = r + block;
      matrix.block_row.push_back(r);
      matrix.block_column.push_back(c);
      for (int32_t k = 0; k < block; k++) {
        const float v = r + k < rows ? value(*random) : 0.0f;
        matrix.values.push_back(v);
        if (r + k < rows) (*dense)[static_cast<size_t>(r + k) * columns + c] = v;
      }
    }
  }
  return matrix;
}

void ExpectSparse(const KernelTable& table, const LoweredMatrix& matrix, const Product& p) {
  const Guarded<float> x(p.x);
  std::vector<float> uncut;
  for (int panels : {1, 2, 3, 8}) {
    SCOPED_TRACE(::testing::Message() << panels << " panels");
    kernels::SparseGemvMatrix packed;
    ASSERT_TRUE(packed.Pack(matrix, p.bias.empty() ? nullptr : p.bias.data(), panels));
    ASSERT_LE(packed.panels(), panels);
    ASSERT_GE(packed.panels(), 1);
    Guarded<float> y(static_cast<size_t>(p.batch) * p.rows);
    for (int panel = packed.panels(); panel-- > 0;) {
      packed.Run(table.gemv, panel, x.data(), p.columns, y.data(), p.rows, p.batch, p.low, p.high);
    }
    p.Expect(y);
    const std::vector<float> result(y.data(), y.data() + y.size());
    if (panels == 1) uncut = result;
    if (std::none_of(result.begin(), result.end(), [](float v) { return std::isnan(v); })) {
      EXPECT_EQ(result, uncut);
    }

    kernels::SparseGemvMatrix from_file;
    testing::Random random(8);
    std::vector<float> weights;
    ASSERT_TRUE(from_file.Pack(testing::AsInFile(matrix, true, &random, &weights),
                               p.bias.empty() ? nullptr : p.bias.data(), panels));
    ASSERT_EQ(from_file.panels(), packed.panels());
    std::vector<float> same(result.size());
    for (int panel = 0; panel < from_file.panels(); panel++) {
      from_file.Run(table.gemv, panel, x.data(), p.columns, same.data(), p.rows, p.batch, p.low, p.high);
    }
    EXPECT_TRUE(testing::SameBits(same, result));
  }
}

class SparseGemv : public ::testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(SparseGemv, EqualsTripleLoop) {
  const auto [block, aligned] = GetParam();
  std::mt19937 random(4);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    SCOPED_TRACE((*table)->name);
    for (int32_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 50}) {
      for (int32_t columns : {1, 3, 16, 65}) {
        for (int32_t batch : Batches()) {
          for (double density : {0.02, 0.3, 1.0}) {
            SCOPED_TRACE(::testing::Message() << rows << " x " << columns << ", batch " << batch << ", " << density);
            Product p = {rows, columns, batch, {}, {}, Random(batch * columns, &random)};
            const LoweredMatrix matrix = RandomBlocks(rows, columns, block, aligned, density, &random, &p.weights);
            if (rows % 2 == 1) p.bias = Random(rows, &random);
            if (columns % 2 == 1) {
              p.low = -0.5f;
              p.high = 0.75f;
            }
            ExpectSparse(**table, matrix, p);
          }
        }
      }
    }
  }
}

TEST_P(SparseGemv, KeepsNanAndInfinity) {
  const auto [block, aligned] = GetParam();
  std::mt19937 random(5);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    SCOPED_TRACE((*table)->name);
    for (int32_t batch : {1, 4}) {
      const int32_t rows = 29, columns = 20;
      Product p = {rows, columns, batch, {}, Random(rows, &random), Random(batch * columns, &random)};
      p.low = -1.0f;
      p.high = 1.0f;
      p.bias[3] = kNan;
      p.bias[4] = kInfinity;
      LoweredMatrix matrix = RandomBlocks(rows, columns, block, aligned, 0.1, &random, &p.weights);
      // What is infinite or no number in one column must reach the rows of its blocks and no other.
      p.x[7] = kNan;
      p.x[11] = kInfinity;
      // A row past the last one holds a zero in its block.
      ExpectSparse(**table, matrix, p);
    }
  }
}

TEST_P(SparseGemv, WideMatricesHaveWideIndices) {
  const auto [block, aligned] = GetParam();
  std::mt19937 random(6);
  for (const KernelTable* const* table = AvailableKernels(); *table != nullptr; table++) {
    SCOPED_TRACE((*table)->name);
    for (int32_t columns : {65536, 65537, 70001}) {
      const int32_t rows = 8;
      Product p = {rows, columns, 1, {}, {}, Random(columns, &random)};
      const LoweredMatrix matrix = RandomBlocks(rows, columns, block, aligned, 0.002, &random, &p.weights);
      ExpectSparse(**table, matrix, p);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, SparseGemv, ::testing::Combine(::testing::Values(1, 2, 4, 8), ::testing::Bool()));

}  // namespace
}  // namespace block_sparse
