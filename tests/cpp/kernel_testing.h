// What the tests of kernels and of the ops above them share: CPU levels, numbers, matrices, and how far a result may be
// from the exact one.
#ifndef TESTS_CPP_KERNEL_TESTING_H_
#define TESTS_CPP_KERNEL_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace kernels {
// For failure messages.
inline void PrintTo(const KernelTable* table, std::ostream* out) { *out << table->name; }
}  // namespace kernels

namespace testing {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

// True where a run costs tens of times more, under an emulator or a sanitizer: products of parameters are thinned
// there.
#if defined(__aarch64__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSlow = true;
#else
constexpr bool kSlow = false;
#endif

// Every CPU level that can run here, for INSTANTIATE_TEST_SUITE_P(..., ValuesIn(Levels()), LevelName).
inline std::vector<const kernels::KernelTable*> Levels() {
  std::vector<const kernels::KernelTable*> levels;
  for (const kernels::KernelTable* const* t = kernels::AvailableKernels(); *t != nullptr; t++) levels.push_back(*t);
  return levels;
}
inline std::string LevelName(const ::testing::TestParamInfo<const kernels::KernelTable*>& info) {
  return info.param->name;
}

// Cheap numbers that are the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}

  uint32_t Bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  int32_t Below(int32_t n) { return static_cast<int32_t>(Bits() % static_cast<uint32_t>(n)); }
  bool Chance(double probability) { return Bits() < probability * 4294967296.0; }
  float Float() { return static_cast<float>(static_cast<int32_t>(Bits() >> 7) - (1 << 24)) / (1 << 24); }  // [-1, 1)
  // Now and then what no weight or pixel should be. Sums of thousands of products of the finite ones stay finite.
  float Hostile() {
    constexpr float kValues[] = {kNan,       kInfinity,      -kInfinity, -0.0f, 0.0f,  kDenormal,
                                 -kDenormal, 1.1754944e-38f, 1e-30f,     1e17f, -1e17f};
    constexpr int kCount = sizeof(kValues) / sizeof(kValues[0]);
    const int32_t i = Below(4 * kCount);
    return i < kCount ? kValues[i] : Float();
  }

  std::vector<float> Floats(size_t count) {
    std::vector<float> values(count);
    for (float& v : values) v = Float();
    return values;
  }
  std::vector<int32_t> Permutation(int32_t n) {
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    for (int32_t i = n - 1; i > 0; i--) std::swap(order[i], order[Below(i + 1)]);
    return order;
  }

 private:
  uint64_t state_;
};

inline uint32_t BitsOf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// A lowered matrix with each block that may exist there with probability `density`, row by row. Unless `overlap` is
// false the blocks of a column may overlap.
inline LoweredMatrix RandomMatrix(int32_t rows, int32_t columns, int32_t block, bool aligned, double density,
                                  Random* random, bool overlap = true) {
  LoweredMatrix matrix;
  matrix.rows = rows;
  matrix.columns = columns;
  matrix.block = block;
  matrix.aligned = aligned;
  std::vector<int32_t> free(static_cast<size_t>(columns), 0);  // by column: first row without a block
  for (int32_t row = 0; row < rows; row++) {
    for (int32_t column = 0; column < columns && (!aligned || row % block == 0); column++) {
      if (!random->Chance(density) || (!overlap && row < free[column])) continue;
      free[column] = row + block;
      matrix.block_row.push_back(row);
      matrix.block_column.push_back(column);
      for (int32_t q = 0; q < block; q++) matrix.values.push_back(row + q < rows ? random->Float() : 0.0f);
    }
  }
  return matrix;
}

// Blocks of such a matrix that start at row r are [begin[r], begin[r + 1]).
inline std::vector<uint32_t> RowBegin(const LoweredMatrix& matrix) {
  std::vector<uint32_t> begin(static_cast<size_t>(matrix.rows) + 1, 0);
  for (int32_t row : matrix.block_row) begin[static_cast<size_t>(row) + 1]++;
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  return begin;
}

// The same matrix as files have it: blocks column by column, rows descending if wanted, and weights elsewhere, in
// `weights`, with gaps.
inline LoweredMatrix AsInFile(const LoweredMatrix& matrix, bool descending, Random* random,
                              std::vector<float>* weights) {
  std::vector<size_t> order(matrix.blocks());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (matrix.block_column[a] != matrix.block_column[b]) return matrix.block_column[a] < matrix.block_column[b];
    return descending && matrix.block_row[a] > matrix.block_row[b];
  });
  LoweredMatrix other;
  other.rows = matrix.rows;
  other.columns = matrix.columns;
  other.block = matrix.block;
  other.aligned = matrix.aligned;
  other.row_channel = matrix.row_channel;
  for (size_t i : order) {
    other.block_row.push_back(matrix.block_row[i]);
    other.block_column.push_back(matrix.block_column[i]);
    weights->resize(weights->size() + static_cast<size_t>(random->Below(3)), random->Float());
    other.first_value.push_back(static_cast<uint32_t>(weights->size()));
    weights->insert(weights->end(), matrix.BlockValues(i), matrix.BlockValues(i) + matrix.block);
  }
  other.source = weights->data();
  return other;
}

inline int32_t ChannelOf(const LoweredMatrix& matrix, int32_t row) {
  return matrix.row_channel.empty() ? row : matrix.row_channel[static_cast<size_t>(row)];
}

// Dense weights [output channel][column].
inline std::vector<double> DenseOf(const LoweredMatrix& matrix) {
  std::vector<double> dense(static_cast<size_t>(matrix.rows) * matrix.columns, 0.0);
  for (size_t b = 0; b < matrix.blocks(); b++) {
    const int32_t row = matrix.block_row[b];
    for (int32_t q = 0; q < matrix.block && row + q < matrix.rows; q++) {
      dense[static_cast<size_t>(ChannelOf(matrix, row + q)) * matrix.columns + matrix.block_column[b]] +=
          matrix.values[b * static_cast<size_t>(matrix.block) + static_cast<size_t>(q)];
    }
  }
  return dense;
}

// A sum as it should be, in double precision, and how far float arithmetic in any order may take it from there: with u
// = 2^-24 a sum of n terms, each a product or not, is off by at most (n + 1) u / (1 - (n + 1) u) times the sum of the
// magnitudes, and by a part of the smallest denormal for each product that underflows.
class ExactSum {
 public:
  void Add(double term) {
    value_ += term;
    magnitude_ += std::fabs(term);
    terms_++;
  }
  void Clamp(float low, float high) {
    low_ = low;
    high_ = high;
  }

  // Clamped. A clamp brings two numbers no further apart, so the bound holds after it too.
  double value() const { return std::isnan(value_) ? value_ : std::min<double>(high_, std::max<double>(low_, value_)); }
  double bound() const {
    const double nu = (terms_ + 2) * std::ldexp(1.0, -24);
    return nu / (1 - nu) * magnitude_ + (terms_ + 2) * static_cast<double>(kDenormal);
  }
  bool Admits(float got) const {
    const double exact = value();
    if (std::isnan(exact)) return std::isnan(got);
    if (std::isinf(exact)) return got == exact;
    return std::fabs(got - exact) <= bound();
  }

 private:
  double value_ = 0.0, magnitude_ = 0.0;
  int terms_ = 0;
  float low_ = -kInfinity, high_ = kInfinity;
};

inline std::ostream& operator<<(std::ostream& out, const ExactSum& sum) {
  return out << sum.value() << " +- " << sum.bound();
}

}  // namespace testing
}  // namespace block_sparse

#endif  // TESTS_CPP_KERNEL_TESTING_H_
