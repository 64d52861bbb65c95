// Every kernel of spmm_rows.h, at every CPU level, against nested loops in double precision.
#include "tflite_delegate/kernels/spmm_rows.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
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

// A tile of an image, times a matrix whose columns are the pixels of each channel that lie `reach` or fewer rows and
// pixels away.
class SpmmRowsTester {
 public:
  explicit SpmmRowsTester(const KernelTable& table) : table_(table), lanes_(table.lanes) {}

  SpmmRowsTester& tile(int height, int vectors, bool whole) {
    height_ = height;
    vectors_ = vectors;
    whole_ = whole;
    return *this;
  }
  SpmmRowsTester& lanes(int lanes) { return Set(&lanes_, lanes); }  // pixels of the last vector of each row
  SpmmRowsTester& rows(int rows) { return Set(&rows_, rows); }
  SpmmRowsTester& channels(int channels) { return Set(&channels_, channels); }
  SpmmRowsTester& reach(int reach) { return Set(&reach_, reach); }
  SpmmRowsTester& density(double density) { return Set(&density_, density); }
  SpmmRowsTester& bias(bool bias) { return Set(&bias_, bias); }
  SpmmRowsTester& residual(bool residual) { return Set(&residual_, residual); }
  SpmmRowsTester& in_place(bool in_place) { return Set(&in_place_, in_place); }
  SpmmRowsTester& permuted(bool permuted) { return Set(&permuted_, permuted); }
  SpmmRowsTester& panels(int panels) { return Set(&panels_, panels); }
  SpmmRowsTester& slice_channels(int channels) { return Set(&slice_channels_, channels); }  // 0: one slice
  SpmmRowsTester& hostile(bool hostile) { return Set(&hostile_, hostile); }
  SpmmRowsTester& shifted(bool shifted) { return Set(&shifted_, shifted); }
  SpmmRowsTester& seed(int seed) { return Set(&seed_, seed); }
  SpmmRowsTester& clamp(float low, float high) {
    low_ = low;
    return Set(&high_, high);
  }

  // Checks everything against the exact product; returns the tile's outputs for comparisons between runs.
  std::vector<float> Test() const {
    SCOPED_TRACE(Name());
    Random random(static_cast<uint64_t>(seed_));
    const auto number = [&] { return hostile_ ? random.Hostile() : random.Float(); };
    const int32_t width = (vectors_ - 1) * lanes_of_table() + lanes_;
    const int32_t image_row = vectors_ * lanes_of_table() + (whole_ ? 0 : kGap);

    const int32_t side = 2 * reach_ + 1, columns = channels_ * side * side;
    LoweredMatrix matrix = RandomMatrix(rows_, columns, 1, true, density_, &random);
    if (hostile_) {
      for (float& v : matrix.values) v = random.Hostile();
    }
    if (permuted_) matrix.row_channel = random.Permutation(rows_);
    std::vector<float> bias(rows_);
    for (float& v : bias) v = number();

    // Planes of the channels in any order, each at a cache line. Nothing may be read but whole vectors of the tile and
    // of its neighbours on all sides: the last plane ends with readable memory.
    const int32_t before = reach_ * image_row + (reach_ + kLine - 1) / kLine * kLine;
    const int32_t origin = (before + kLine - 1) / kLine * kLine;
    const int32_t run = (height_ - 1) * image_row + vectors_ * lanes_of_table();
    const int32_t plane = (origin + run + reach_ * image_row + reach_ + kLine - 1) / kLine * kLine;
    const std::vector<int32_t> order = random.Permutation(channels_);
    std::vector<int32_t> offset(columns);  // position by position, as a kernel's columns are
    for (int32_t k = 0; k < side * side; k++) {
      for (int32_t c = 0; c < channels_; c++) {
        const int32_t at = order[c] * plane + (k / side - reach_) * image_row + k % side - reach_;
        offset[k * channels_ + c] = at * static_cast<int32_t>(sizeof(float));
      }
    }
    Guarded<float> x(static_cast<size_t>(channels_) * plane);
    for (size_t i = 0; i < x.size(); i++) x[i] = number();
    // A guarded array ends at a page and so at a cache line, and begins at one as its planes are whole lines.

    // Rectangles that must stay as they are where there is no tile. Whole rows may be written to the end of their last
    // vectors.
    const int32_t stride = run + kGap;
    const size_t size = kGap + static_cast<size_t>(rows_) * stride;
    Guarded<float> y(size), residual(size);
    for (size_t i = 0; i < size; i++) {
      memcpy(&y[i], &kCanary, sizeof kCanary);
      memcpy(&residual[i], &kCanary, sizeof kCanary);
    }
    for (int32_t r = 0; r < rows_; r++) {
      for (int32_t i = 0; i < height_ * width; i++) residual[At(r, stride, image_row, i / width, i % width)] = number();
    }
    const std::vector<float> added(residual.data(), residual.data() + size);

    const int32_t slice_bytes = slice_channels_ * plane * static_cast<int32_t>(sizeof(float));
    const kernels::ImageRows image = {image_row * static_cast<int32_t>(sizeof(float)), shifted_};
    const kernels::PackedMatrix packed = kernels::PackImageRows(matrix, bias_ ? bias.data() : nullptr, offset.data(),
                                                                stride, panels_, slice_bytes, image);
    const kernels::SpmmRowsKernel kernel = (whole_ ? table_.spmm_rows.whole : table_.spmm_rows.part)[height_][vectors_];
    if (kernel == nullptr) {
      ADD_FAILURE() << "no such kernel";
      return {};
    }
    float* const out = in_place_ ? residual.data() : y.data();
    for (size_t p = 0; p < packed.panels.size(); p++) {
      // Copies without slack, so that a read past an end faults.
      const kernels::SpmmRowsArgs panel = packed.Args<kernels::SpmmRowsArgs>(p);
      uint32_t blocks = 0, weights_count = 0;
      for (int32_t i = 0; i < panel.rows * kernels::kSpmmKinds; i++) {
        blocks += panel.counts[i];
        weights_count += panel.counts[i] * (i % kernels::kSpmmKinds == kernels::kSpmmPairs ? 2 : 1);
      }
      EXPECT_EQ(weights_count, packed.panels[p].blocks);
      const Guarded<float> weights(std::vector<float>(panel.weights, panel.weights + weights_count));
      const Guarded<int32_t> offsets(std::vector<int32_t>(panel.offsets, panel.offsets + blocks));
      const Guarded<uint32_t> counts(
          std::vector<uint32_t>(panel.counts, panel.counts + panel.rows * kernels::kSpmmKinds));
      const Guarded<float> biases(std::vector<float>(panel.bias, panel.bias + panel.rows));
      const Guarded<int32_t> row_out(std::vector<int32_t>(panel.row_out, panel.row_out + panel.rows));
      kernels::SpmmRowsArgs args = panel;
      args.weights = weights.data();
      args.offsets = offsets.data();
      args.counts = counts.data();
      args.bias = biases.data();
      args.row_out = row_out.data();
      args.image_row = image_row;
      args.last_lanes = lanes_;
      args.x = x.data() + origin;
      args.y = out + kGap;
      const int slice = static_cast<int>(p) % packed.slices;
      const bool last = slice + 1 == packed.slices;
      args.residual = slice > 0 ? args.y : residual_ ? residual.data() + kGap : nullptr;
      args.low = last ? low_ : -kInfinity;
      args.high = last ? high_ : kInfinity;
      kernel(args);
    }

    x.ExpectCanaries();
    y.ExpectCanaries();
    residual.ExpectCanaries();
    const std::vector<float> result(out, out + size);
    const std::vector<uint32_t> row_begin = RowBegin(matrix);
    std::vector<float> outputs;
    std::vector<bool> may_change(size, false);
    for (int32_t row = 0; row < rows_; row++) {
      const int32_t channel = ChannelOf(matrix, row);
      for (int32_t i = 0; i < height_ * width; i++) {
        const size_t at = At(channel, stride, image_row, i / width, i % width);
        ExactSum sum;
        if (bias_) sum.Add(bias[channel]);
        for (uint32_t b = row_begin[row]; b < row_begin[row + 1]; b++) {
          const int32_t from = origin + offset[matrix.block_column[b]] / static_cast<int32_t>(sizeof(float));
          sum.Add(static_cast<double>(matrix.values[b]) * x[from + i / width * image_row + i % width]);
        }
        if (residual_) sum.Add(added[at]);
        sum.Clamp(low_, high_);
        if (!sum.Admits(result[at])) {
          ADD_FAILURE() << "row " << row << " (channel " << channel << "), pixel " << i / width << ", " << i % width
                        << ": " << result[at] << " instead of " << sum;
          return outputs;
        }
        outputs.push_back(result[at]);
        may_change[at] = true;
      }
      for (int32_t i = 0; whole_ && i < height_ * image_row; i++)
        may_change[At(channel, stride, image_row, 0, i)] = true;
    }
    for (size_t i = 0; i < size; i++) {
      if (may_change[i] || BitsOf(result[i]) == BitsOf(in_place_ ? added[i] : CanaryFloat())) continue;
      ADD_FAILURE() << "written outside of the tile, at " << i;
      return outputs;
    }
    return outputs;
  }

 private:
  static constexpr int kGap = 19;  // pixels of other tiles right of this one
  static constexpr int kLine = kernels::kMaxLanes;
  static constexpr uint32_t kCanary = 0x7fa5a5a5;

  template <class T>
  SpmmRowsTester& Set(T* field, T value) {
    *field = value;
    return *this;
  }
  static float CanaryFloat() {
    float canary;
    memcpy(&canary, &kCanary, sizeof canary);
    return canary;
  }
  static size_t At(int32_t channel, int32_t stride, int32_t image_row, int32_t y, int32_t x) {
    return kGap + static_cast<size_t>(channel) * stride + static_cast<size_t>(y) * image_row + x;
  }
  int32_t lanes_of_table() const { return table_.lanes; }

  std::string Name() const {
    ::testing::Message name;
    name << table_.name << (whole_ ? " whole " : " ") << height_ << " x " << vectors_ << " (" << lanes_ << "), "
         << rows_ << " rows, " << channels_ << " channels, reach " << reach_ << ", density " << density_ << ", clamp "
         << low_ << " to " << high_ << (bias_ ? ", bias" : "") << (residual_ ? ", residual" : "")
         << (in_place_ ? " in place" : "") << (permuted_ ? ", permuted" : "") << (hostile_ ? ", hostile" : "")
         << (shifted_ ? ", shifted" : "") << ", " << panels_ << " panels, slices of " << slice_channels_ << ", seed "
         << seed_;
    return name.GetString();
  }

  const KernelTable& table_;
  int lanes_, height_ = 1, vectors_ = 1, rows_ = 3, channels_ = 3, reach_ = 1, panels_ = 1, slice_channels_ = 0,
              seed_ = 1;
  bool whole_ = false, bias_ = true, residual_ = false, in_place_ = false, permuted_ = false, hostile_ = false,
       shifted_ = false;
  double density_ = 0.4;
  float low_ = -kInfinity, high_ = kInfinity;
};

class SpmmRowsTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const kernels::SpmmRowsKernels& table() const { return GetParam()->spmm_rows; }

  // body(tester) for every kernel of the level, with each way of packing that it takes.
  template <class Body>
  void ForEachKernel(const Body& body) const {
    for (int height = 1; height <= kernels::kSpmmManyRows; height++) {
      for (int vectors = 1; vectors <= kernels::kSpmmMaxColumns; vectors++) {
        for (bool whole : {false, true}) {
          if ((whole ? table().whole : table().part)[height][vectors] == nullptr) continue;
          for (bool shifted : {false, true}) {
            if (shifted && !table().shifts) continue;
            body(SpmmRowsTester(*GetParam()).tile(height, vectors, whole).shifted(shifted));
            if (HasFailure()) return;
          }
        }
      }
    }
  }
};

TEST_P(SpmmRowsTest, TheTableHasEveryTileThatItPromises) {
  EXPECT_GE(table().max_columns, 1);
  EXPECT_LE(table().max_columns, kernels::kSpmmMaxColumns);
  for (int vectors = 0; vectors <= kernels::kSpmmMaxColumns; vectors++) {
    const int most = table().max_rows[vectors];
    EXPECT_EQ(most > 0, vectors >= 1 && vectors <= table().max_columns);
    EXPECT_TRUE(most <= kernels::kSpmmFewRows || most == kernels::kSpmmManyRows);
    // Tiles of one column less are at least as tall, so that widths that differ by one can share a height.
    if (vectors > 1 && most > 0) {
      EXPECT_LE(most, table().max_rows[vectors - 1]);
    }
    for (int height = 0; height <= kernels::kSpmmManyRows; height++) {
      const bool there = height == most ? most > 0 : height >= 1 && height <= std::min(most, kernels::kSpmmFewRows);
      EXPECT_EQ(table().part[height][vectors] != nullptr, there) << height << " x " << vectors;
      EXPECT_EQ(table().whole[height][vectors] != nullptr, there) << height << " x " << vectors;
    }
  }
}

TEST_P(SpmmRowsTest, AllWidths) {
  int seed = 0;
  ForEachKernel([&](SpmmRowsTester tester) {
    const int all = GetParam()->lanes;
    for (int lanes = 1; lanes <= all; lanes += kSlow && all > 4 ? 3 : 1) {
      tester.lanes(lanes).residual(lanes % 2 == 0).in_place(lanes % 4 == 0).clamp(-1.0f, 1.0f).seed(seed++).Test();
    }
  });
}

TEST_P(SpmmRowsTest, BlocksOfAKindFromNoneToAll) {
  int seed = 1000;
  ForEachKernel([&](SpmmRowsTester tester) {
    for (int reach : {0, 1, 2}) {
      for (double density : {0.0, 0.05, 0.5, 1.0}) {
        if (kSlow && (seed++ % 3 != 0)) continue;
        tester.rows(5).reach(reach).density(density).seed(seed++).Test();
      }
    }
  });
}

TEST_P(SpmmRowsTest, ClampsAndResiduals) {
  int seed = 2000;
  ForEachKernel([&](SpmmRowsTester tester) {
    for (auto [low, high] : {std::pair(0.0f, kInfinity), {0.0f, 6.0f}, {-kInfinity, -0.25f}, {0.125f, 0.125f}}) {
      tester.lanes(1 + seed % GetParam()->lanes).clamp(low, high);
      tester.residual(false).in_place(false).seed(seed++).Test();
      tester.residual(true).in_place(false).bias(false).seed(seed++).Test();
      tester.residual(true).in_place(true).bias(true).seed(seed++).Test();
    }
  });
}

TEST_P(SpmmRowsTest, HostileValues) {
  int seed = 3000;
  ForEachKernel([&](SpmmRowsTester tester) {
    for (int i = 0; i < (kSlow ? 1 : 3); i++) {
      tester.rows(4).hostile(true).residual(i % 2 == 1).clamp(-kInfinity, kInfinity).seed(seed++).Test();
      tester.clamp(0.0f, 6.0f).seed(seed++).Test();
    }
  });
}

TEST_P(SpmmRowsTest, SlicesAndPanels) {
  int seed = 4000;
  ForEachKernel([&](SpmmRowsTester tester) {
    for (int channels : {1, 2, 5}) {
      tester.rows(9).channels(5).slice_channels(channels).clamp(-0.5f, 1.0f).permuted(channels == 2);
      tester.residual(channels == 1).in_place(channels == 1).seed(seed++);
      const std::vector<float> one = tester.panels(1).Test();
      EXPECT_TRUE(SameBits(one, tester.panels(3).Test())) << "3 panels";
    }
  });
}

// A tile's size is a way to go through the pixels: one pixel's sum is the same in each.
TEST_P(SpmmRowsTest, TilesDoNotChangeABit) {
  Random random(7);
  constexpr int32_t kHeight = 14, kChannels = 4, kRows = 5, kOrigin = 128;
  const int32_t lanes = GetParam()->lanes, vectors = table().max_columns;
  for (bool shifted : {false, true}) {
    if (shifted && !table().shifts) continue;
    const LoweredMatrix matrix = RandomMatrix(kRows, kChannels * 9, 1, true, 0.5, &random);
    const std::vector<float> bias = random.Floats(kRows);
    const int32_t row = vectors * lanes, plane = (kHeight + 4) * row + 2 * kOrigin;
    std::vector<float> x = random.Floats(static_cast<size_t>(kChannels) * plane + 4 * kOrigin);
    const size_t line = (64 - reinterpret_cast<uintptr_t>(x.data()) % 64) % 64 / sizeof(float);
    std::vector<int32_t> offset;
    for (int32_t k = 0; k < 9; k++) {
      for (int32_t c = 0; c < kChannels; c++) offset.push_back((c * plane + k / 3 * row + k % 3 - 1) * 4);
    }
    const kernels::PackedMatrix packed =
        kernels::PackImageRows(matrix, bias.data(), offset.data(), kHeight * row, 1, 0, {row * 4, shifted});
    std::vector<float> first;
    for (int columns = 1; columns <= vectors; columns++) {
      for (int height = 1; height <= table().max_rows[columns]; height++) {
        if (table().part[height][columns] == nullptr) continue;
        std::vector<float> y(static_cast<size_t>(kRows) * kHeight * row, 0.0f);
        for (int top = 0; top < kHeight; top += height) {
          const int rows = std::min(height, kHeight - top);
          for (int left = 0; left < vectors; left += columns) {
            const int now = std::min(columns, vectors - left);
            kernels::SpmmRowsArgs args = packed.Args<kernels::SpmmRowsArgs>(0);
            args.x = x.data() + line + kOrigin + top * row + left * lanes;
            args.y = y.data() + top * row + left * lanes;
            args.image_row = row;
            args.last_lanes = lanes;
            args.low = -kInfinity;
            args.high = kInfinity;
            (now == vectors ? table().whole : table().part)[rows][now](args);
          }
        }
        if (first.empty()) first = y;
        EXPECT_TRUE(SameBits(first, y)) << height << " x " << columns;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, SpmmRowsTest, ::testing::ValuesIn(Levels()), LevelName);

}  // namespace
}  // namespace testing
}  // namespace block_sparse
