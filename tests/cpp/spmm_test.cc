// Every kernel of spmm.h, at every CPU level, against a triple loop in double precision.
#include "tflite_delegate/kernels/spmm.h"

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/kernels/kernels.h"
#include "tflite_delegate/kernels/pack.h"

namespace block_sparse {
namespace testing {
namespace {

using kernels::KernelTable;

std::vector<int32_t> InBytes(std::vector<int32_t> floats) {
  for (int32_t& f : floats) f *= static_cast<int32_t>(sizeof(float));
  return floats;
}

class SpmmTester {
 public:
  explicit SpmmTester(const KernelTable& table) : table_(table) {}

  SpmmTester& block(int block) { return Set(&block_, block); }
  SpmmTester& aligned(bool aligned) { return Set(&aligned_, aligned); }
  SpmmTester& source(int source) { return Set(&source_, source); }
  SpmmTester& tile(int tile, int pixels) {
    tile_ = tile;
    return Set(&pixels_, pixels);
  }
  SpmmTester& rows(int rows) { return Set(&rows_, rows); }
  SpmmTester& columns(int columns) { return Set(&columns_, columns); }
  SpmmTester& density(double density) { return Set(&density_, density); }
  SpmmTester& bias(bool bias) { return Set(&bias_, bias); }
  SpmmTester& residual(bool residual) { return Set(&residual_, residual); }
  SpmmTester& in_place(bool in_place) { return Set(&in_place_, in_place); }
  SpmmTester& permuted(bool permuted) { return Set(&permuted_, permuted); }
  SpmmTester& panels(int panels) { return Set(&panels_, panels); }
  SpmmTester& slice_columns(int columns) { return Set(&slice_columns_, columns); }  // 0: one slice
  SpmmTester& hostile(bool hostile) { return Set(&hostile_, hostile); }
  SpmmTester& seed(int seed) { return Set(&seed_, seed); }
  SpmmTester& clamp(float low, float high) {
    low_ = low;
    return Set(&high_, high);
  }

  // Checks everything against the exact product; returns the rectangle of outputs for comparisons between runs.
  std::vector<float> Test() const {
    SCOPED_TRACE(Name());
    Random random(static_cast<uint64_t>(seed_));
    const auto number = [&] { return hostile_ ? random.Hostile() : random.Float(); };
    const int pixels = tile_ * table_.lanes + (pixels_ == kernels::kSpmmVectorsAndOne ? 1 : 0);

    LoweredMatrix matrix = RandomMatrix(rows_, columns_, block_, aligned_, density_, &random);
    if (hostile_) {
      for (float& v : matrix.values) v = random.Hostile();
      for (size_t b = 0; b < matrix.blocks(); b++) {  // what a block holds past the last row stays 0
        for (int32_t q = rows_ - matrix.block_row[b]; q < block_; q++) matrix.values[b * block_ + q] = 0.0f;
      }
    }
    if (permuted_) matrix.row_channel = random.Permutation(rows_);
    const std::vector<uint32_t> row_begin = RowBegin(matrix);
    std::vector<float> bias(rows_);
    for (float& v : bias) v = number();

    // Planes of the columns in any order, each at any alignment, the last one at the end of readable memory.
    const std::vector<int32_t> order = random.Permutation(columns_);
    std::vector<int32_t> offset(columns_);
    for (int32_t c = 0; c < columns_; c++) offset[c] = order[c] * pixels;
    Guarded<float> x(static_cast<size_t>(columns_) * pixels + Misalignment());
    for (size_t i = 0; i < x.size(); i++) x[i] = number();

    // A padded rectangle: kGap floats that must stay as they are before, between and after the rows.
    const int32_t stride = pixels + kGap;
    const size_t size = kGap + static_cast<size_t>(rows_) * stride;
    Guarded<float> y(size), residual(size);
    for (size_t i = 0; i < size; i++) {
      memcpy(&y[i], &kCanary, sizeof kCanary);
      memcpy(&residual[i], &kCanary, sizeof kCanary);
    }
    for (int32_t r = 0; r < rows_; r++) {
      for (int32_t p = 0; p < pixels; p++) residual[kGap + static_cast<size_t>(r) * stride + p] = number();
    }
    const std::vector<float> added(residual.data(), residual.data() + size);

    kernels::PackedMatrix packed =
        kernels::PackLowered(matrix, bias_ ? bias.data() : nullptr, InBytes(offset).data(), stride, panels_,
                             slice_columns_ * pixels * static_cast<int32_t>(sizeof(float)));
    // Blocks of 1 are packed alike for both kinds.
    EXPECT_EQ(packed.aligned, aligned_ || block_ == 1);
    const auto& tiles = aligned_ ? table_.spmm.aligned : table_.spmm.unaligned;
    const kernels::SpmmKernel kernel = tiles[pixels_][source_]->kernels[packed.log2_block][tile_];
    if (kernel == nullptr || (1 << packed.log2_block) != block_) {
      ADD_FAILURE() << "no such kernel";
      return {};
    }
    float* const out = in_place_ ? residual.data() : y.data();
    for (size_t p = 0; p < packed.panels.size(); p++) {
      // Copies without slack, so that a read past an end faults.
      const kernels::SpmmArgs whole = packed.Args(p);
      const kernels::PackedMatrix::Panel& panel = packed.panels[p];
      const int32_t steps = packed.aligned ? panel.rows / block_ : panel.rows;
      const Guarded<float> weights(std::vector<float>(whole.weights, whole.weights + panel.blocks * block_));
      const Guarded<int32_t> offsets(
          std::vector<int32_t>(whole.offsets, whole.offsets + panel.blocks + kernels::kSpmmAhead));
      const Guarded<uint32_t> counts(std::vector<uint32_t>(whole.counts, whole.counts + steps));
      const Guarded<float> biases(std::vector<float>(whole.bias, whole.bias + panel.rows + block_));
      const Guarded<int32_t> row_out(std::vector<int32_t>(whole.row_out, whole.row_out + panel.rows));
      kernels::SpmmArgs args = whole;
      args.weights = weights.data();
      args.offsets = offsets.data();
      args.counts = counts.data();
      args.bias = biases.data();
      args.row_out = row_out.data();
      args.x = x.data() + Misalignment();
      args.y = out + kGap;
      const int slice = static_cast<int>(p) % packed.slices;
      const bool last = slice + 1 == packed.slices;
      args.residual = slice > 0 ? args.y : residual_ ? residual.data() + kGap : nullptr;
      args.low = last ? low_ : -kInfinity;
      args.high = last ? high_ : kInfinity;
      kernel(args);
    }

    const std::vector<float> result(out, out + size);
    x.ExpectCanaries();
    y.ExpectCanaries();
    residual.ExpectCanaries();
    for (int i = 0; i < kGap; i++) EXPECT_EQ(BitsOf(result[i]), kCanary) << "written before the first row";
    for (int32_t row = 0; row < rows_; row++) {
      const int32_t channel = ChannelOf(matrix, row);
      const float* const y_row = &result[kGap + static_cast<size_t>(channel) * stride];
      for (int32_t p = 0; p < pixels; p++) {
        ExactSum sum;
        if (bias_) sum.Add(bias[channel]);
        for (int32_t first = std::max(0, row - block_ + 1); first <= row; first++) {
          for (uint32_t b = row_begin[first]; b < row_begin[first + 1]; b++) {
            sum.Add(static_cast<double>(matrix.values[static_cast<size_t>(b) * block_ + (row - first)]) *
                    x[Misalignment() + offset[matrix.block_column[b]] + p]);
          }
        }
        if (residual_) sum.Add(added[kGap + static_cast<size_t>(channel) * stride + p]);
        sum.Clamp(low_, high_);
        if (!sum.Admits(y_row[p])) {
          ADD_FAILURE() << "row " << row << " (channel " << channel << "), pixel " << p << ": " << y_row[p]
                        << " instead of " << sum;
          return result;
        }
      }
      for (int32_t p = pixels; p < stride; p++) {
        if (BitsOf(y_row[p]) != kCanary) {
          ADD_FAILURE() << "written " << p - pixels << " floats past the tile of channel " << channel;
          return result;
        }
      }
    }
    return result;
  }

 private:
  static constexpr int kGap = 21;  // odd, so that rows have all alignments
  static constexpr uint32_t kCanary = 0x7fa5a5a5;

  template <class T>
  SpmmTester& Set(T* field, T value) {
    *field = value;
    return *this;
  }
  int Misalignment() const { return seed_ % 4; }

  std::string Name() const {
    ::testing::Message name;
    name << table_.name << (aligned_ ? " aligned" : " unaligned") << (source_ == kernels::kSpmmFar ? " far" : "")
         << " block " << block_ << " tile " << tile_ << (pixels_ == kernels::kSpmmVectorsAndOne ? " and one, " : ", ")
         << rows_ << " x " << columns_ << ", density " << density_ << ", clamp " << low_ << " to " << high_
         << (bias_ ? ", bias" : "") << (residual_ ? ", residual" : "") << (in_place_ ? " in place" : "")
         << (permuted_ ? ", permuted" : "") << (hostile_ ? ", hostile" : "") << ", " << panels_ << " panels, slices of "
         << slice_columns_ << ", seed " << seed_;
    return name.GetString();
  }

  const KernelTable& table_;
  int block_ = 4, source_ = kernels::kSpmmNear, tile_ = 1, pixels_ = kernels::kSpmmVectors, rows_ = 8, columns_ = 5,
      panels_ = 1, slice_columns_ = 0, seed_ = 1;
  bool aligned_ = false, bias_ = true, residual_ = false, in_place_ = false, permuted_ = false, hostile_ = false;
  double density_ = 0.3;
  float low_ = -kInfinity, high_ = kInfinity;
};

class SpmmTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table() const { return *GetParam(); }

  // body(tester) for every kernel of the level, once where both sources have the same.
  template <class Body>
  void ForEachKernel(const Body& body) const {
    for (int pixels = 0; pixels < kernels::kSpmmPixels; pixels++) {
      for (int log2_block = 0; log2_block < kernels::kSpmmBlocks; log2_block++) {
        for (bool aligned : {false, true}) {
          const auto& tiles = (aligned ? table().spmm.aligned : table().spmm.unaligned)[pixels];
          for (int tile = 1; tile <= table().spmm.max_tile[pixels][log2_block]; tile++) {
            for (int source = 0; source < kernels::kSpmmSources; source++) {
              const auto kernel = [&](int of) { return tiles[of]->kernels[log2_block][tile]; };
              if (source > 0 && kernel(source) == kernel(0)) continue;
              body(SpmmTester(table()).block(1 << log2_block).tile(tile, pixels).aligned(aligned).source(source));
              if (HasFailure()) return;
            }
          }
        }
      }
    }
  }
};

TEST_P(SpmmTest, TheTableHasEveryTileUpToTheWidest) {
  const kernels::SpmmKernels& spmm = table().spmm;
  for (int pixels = 0; pixels < kernels::kSpmmPixels; pixels++) {
    for (int log2_block = 0; log2_block < kernels::kSpmmBlocks; log2_block++) {
      const int widest = spmm.max_tile[pixels][log2_block];
      EXPECT_GE(widest, pixels == kernels::kSpmmVectors ? 1 : 0);
      EXPECT_LE(widest, kernels::kSpmmMaxTile);
      for (int source = 0; source < kernels::kSpmmSources; source++) {
        for (const kernels::SpmmTiles* tiles : {spmm.aligned[pixels][source], spmm.unaligned[pixels][source]}) {
          for (int tile = 0; tile <= kernels::kSpmmMaxTile; tile++) {
            const bool there = tiles != nullptr && tiles->kernels[log2_block][tile] != nullptr;
            EXPECT_EQ(there, tile >= 1 && tile <= widest) << "block " << (1 << log2_block) << ", tile " << tile;
          }
        }
      }
    }
  }
  EXPECT_GE(table().lanes, 1);
  EXPECT_LE(table().lanes, kernels::kMaxLanes);
}

TEST_P(SpmmTest, AllRowCounts) {
  int seed = 0;
  ForEachKernel([&](SpmmTester tester) {
    for (int rows = 1; rows <= 17; rows += kSlow ? 3 : 1) tester.rows(rows).seed(seed++).Test();
    tester.rows(67).seed(seed++).Test();
  });
}

TEST_P(SpmmTest, BlocksAStepFromNoneToAll) {
  int seed = 1000;
  ForEachKernel([&](SpmmTester tester) {
    for (int columns : {1, 2, 3, 4, 5, 8, 33}) {
      if (kSlow && columns > 3 && columns < 33) continue;
      for (double density : {0.0, 0.05, 0.5, 1.0}) {
        tester.rows(19).columns(columns).density(density).seed(seed++).Test();
      }
    }
  });
}

TEST_P(SpmmTest, ClampsAndResiduals) {
  int seed = 2000;
  ForEachKernel([&](SpmmTester tester) {
    for (auto [low, high] : {std::pair(0.0f, kInfinity),
                             {0.0f, 6.0f},
                             {-1.0f, 1.0f},
                             {-kInfinity, -0.25f},
                             {0.125f, 0.125f},
                             {-kInfinity, kInfinity}}) {
      tester.rows(11).columns(7).clamp(low, high);
      tester.residual(false).in_place(false).seed(seed++).Test();
      tester.residual(true).in_place(false).bias(false).seed(seed++).Test();
      tester.residual(true).in_place(true).bias(true).seed(seed++).Test();
    }
  });
}

TEST_P(SpmmTest, RowsGoToTheirChannels) {
  int seed = 3000;
  ForEachKernel([&](SpmmTester tester) {
    for (int rows : {1, 5, 8, 21}) {
      tester.rows(rows).permuted(true).residual(rows % 2 == 0).seed(seed++).Test();
    }
  });
}

TEST_P(SpmmTest, HostileValues) {
  int seed = 4000;
  ForEachKernel([&](SpmmTester tester) {
    for (int i = 0; i < (kSlow ? 2 : 6); i++) {
      tester.rows(13).columns(4).hostile(true).residual(i % 2 == 1).clamp(-kInfinity, kInfinity).seed(seed++).Test();
      tester.clamp(0.0f, 6.0f).seed(seed++).Test();
    }
  });
}

TEST_P(SpmmTest, ManyBlocks) {
  int seed = 5000;
  ForEachKernel(
      [&](SpmmTester tester) { tester.rows(10).columns(kSlow ? 150 : 700).density(0.9).seed(seed++).Test(); });
}

TEST_P(SpmmTest, SlicesOfColumns) {
  int seed = 5500;
  ForEachKernel([&](SpmmTester tester) {
    tester.rows(11).columns(14).density(0.5).bias(true).clamp(-0.5f, 1.0f);
    for (int columns : {1, 4, 13}) {
      for (bool residual : {false, true}) {
        tester.slice_columns(columns).residual(residual).in_place(residual && columns == 4).seed(seed++);
        const std::vector<float> one = tester.panels(1).Test();
        EXPECT_TRUE(SameBits(one, tester.panels(3).Test())) << "3 panels";
      }
    }
  });
}

TEST_P(SpmmTest, PanelsDoNotChangeABit) {
  int seed = 6000;
  ForEachKernel([&](SpmmTester tester) {
    for (int rows : {3, 16, 41}) {
      for (bool hostile : {false, true}) {
        tester.rows(rows).columns(9).permuted(rows == 41).residual(rows == 16).hostile(hostile).seed(seed++);
        const std::vector<float> one = tester.panels(1).Test();
        for (int panels = 2; panels <= 8; panels += kSlow ? 3 : 1) {
          EXPECT_TRUE(SameBits(one, tester.panels(panels).Test()))
              << panels << " panels of " << rows << " rows" << (hostile ? ", hostile" : "");
        }
      }
    }
  });
}

// A tile's width, where its pixels come from and whether one more goes along are ways to go through the pixels: one
// pixel's sum is the same in each.
TEST_P(SpmmTest, TileWidthsAndSourcesDoNotChangeABit) {
  Random random(7);
  const int lanes = table().lanes;
  for (int log2_block = 0; log2_block < kernels::kSpmmBlocks; log2_block++) {
    for (bool aligned : {false, true}) {
      const LoweredMatrix matrix = RandomMatrix(13, 11, 1 << log2_block, aligned, 0.4, &random);
      const std::vector<float> bias = random.Floats(13);
      const int widest = table().spmm.max_tile[kernels::kSpmmVectors][log2_block];
      const int32_t plane = (widest + 1) * lanes;
      const std::vector<float> x = random.Floats(static_cast<size_t>(11) * plane);
      std::vector<int32_t> offset(11);
      for (int32_t c = 0; c < 11; c++) offset[c] = c * plane;
      const kernels::PackedMatrix packed =
          kernels::PackLowered(matrix, bias.data(), InBytes(offset).data(), plane, 1, 0);
      const auto& kernel = packed.aligned ? table().spmm.aligned : table().spmm.unaligned;
      // Tiles of `width` vectors up to the widest, from vector `at` on.
      const auto run = [&](int pixels, int source, int at, int width, int end) {
        std::vector<float> y(static_cast<size_t>(13) * plane, 0.0f);
        for (; at < end; at += width) {
          kernels::SpmmArgs args = packed.Args(0);
          args.x = x.data() + at * lanes;
          args.y = y.data() + at * lanes;
          args.low = -kInfinity;
          args.high = kInfinity;
          kernel[pixels][source]->kernels[log2_block][std::min(width, end - at)](args);
        }
        return y;
      };
      const std::vector<float> first = run(kernels::kSpmmVectors, kernels::kSpmmNear, 0, 1, widest + 1);
      for (int source = 0; source < kernels::kSpmmSources; source++) {
        for (int width = 2; width <= widest; width++) {
          EXPECT_TRUE(SameBits(first, run(kernels::kSpmmVectors, source, 0, width, widest + 1)))
              << "block " << (1 << log2_block) << ", source " << source << ", width " << width;
        }
        for (int width = 1; width <= table().spmm.max_tile[kernels::kSpmmVectorsAndOne][log2_block]; width++) {
          std::vector<float> expected(first.size(), 0.0f);
          for (size_t row = 0; row < 13; row++) {
            const auto from = first.begin() + static_cast<std::ptrdiff_t>(row * plane);
            std::copy(from, from + width * lanes + 1, expected.begin() + static_cast<std::ptrdiff_t>(row * plane));
          }
          EXPECT_TRUE(SameBits(expected, run(kernels::kSpmmVectorsAndOne, source, 0, width, width)))
              << "block " << (1 << log2_block) << ", source " << source << ", width " << width << " and one";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, SpmmTest, ::testing::ValuesIn(Levels()), LevelName);

}  // namespace
}  // namespace testing
}  // namespace block_sparse
