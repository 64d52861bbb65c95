// Runs of numbers taken apart, at every CPU level, with nothing readable or writable around the operands.
#include "tflite_delegate/kernels/strided.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/kernel_testing.h"

namespace block_sparse {
namespace testing {
namespace {

class StridedTest : public ::testing::TestWithParam<const kernels::KernelTable*> {};
INSTANTIATE_TEST_SUITE_P(Levels, StridedTest, ::testing::ValuesIn(Levels()), LevelName);

TEST_P(StridedTest, TakesEveryNth) {
  Random random(7);
  for (int32_t step = 0; step <= kernels::kStridedMaxStep; step++) {
    const auto split = GetParam()->strided.split[step];
    ASSERT_EQ(split != nullptr, step == 1 || step == 2 || step == 3 || step == 6) << step;
    if (split == nullptr) continue;
    for (int32_t count = 1; count <= 70; count++) {
      for (int32_t left_out = 0; left_out <= step; left_out++) {  // the last: none
        Guarded<float> x(static_cast<size_t>(count * step));
        for (size_t i = 0; i < x.size(); i++) x[i] = random.Hostile();
        std::vector<std::unique_ptr<Guarded<float>>> parts;
        float* y[kernels::kStridedMaxStep] = {};
        for (int32_t k = 0; k < step; k++) {
          parts.push_back(std::make_unique<Guarded<float>>(static_cast<size_t>(count)));
          if (k != left_out) y[k] = parts.back()->data();
        }
        split(x.data(), count, y);
        for (int32_t i = 0; i < count * step; i++) {
          if (y[i % step] == nullptr) continue;
          ASSERT_EQ(memcmp(y[i % step] + i / step, x.data() + i, sizeof(float)), 0)
              << "step " << step << ", " << i << " of " << count;
        }
      }
    }
  }
}

TEST_P(StridedTest, PicksEveryOtherOfRows) {
  Random random(8);
  for (int32_t rows : {1, 2, 5}) {
    for (int32_t count = 1; count <= 70; count++) {
      for (int32_t gap : {0, 1, 6}) {
        const int32_t x_row = 2 * count + 3, y_row = count + gap;
        Guarded<float> x(static_cast<size_t>((rows - 1) * x_row + 2 * count - 1 + 2 * kernels::kMaxLanes));
        for (size_t i = 0; i < x.size(); i++) x[i] = random.Hostile();
        Guarded<float> y(static_cast<size_t>((rows - 1) * y_row + count));
        GetParam()->strided.pick(x.data(), x_row, rows, count, y.data(), y_row);
        y.ExpectCanaries();
        for (int32_t r = 0; r < rows; r++) {
          for (int32_t i = 0; i < count; i++) {
            ASSERT_EQ(memcmp(y.data() + r * y_row + i, x.data() + r * x_row + 2 * i, sizeof(float)), 0)
                << "row " << r << " of " << rows << ", " << i << " of " << count;
          }
        }
      }
    }
  }
}

TEST_P(StridedTest, GathersWhatTheMaskLeaves) {
  const int lanes = GetParam()->lanes;
  Random random(9);
  for (int32_t step = 0; step <= kernels::kGatherMaxStep; step++) {
    const auto gather = GetParam()->strided.gather[step];
    ASSERT_EQ(gather != nullptr, step > 0) << step;
    if (gather == nullptr) continue;
    for (int32_t rows : {1, 2, 5}) {
      for (int32_t columns = 1; columns <= 35; columns++) {
        for (int32_t gap : {0, 3}) {
          const int32_t channels = 1 + columns % 3, y_row = columns + gap;
          const int32_t vectors = (columns + lanes - 1) / lanes * lanes, written = (rows - 1) * y_row + vectors;
          const int32_t x_row = step * columns + 2, x_plane = rows * x_row + 5, y_plane = written + columns % 2;
          Guarded<float> x(static_cast<size_t>((channels - 1) * x_plane + (rows - 1) * x_row + step * vectors));
          for (size_t i = 0; i < x.size(); i++) x[i] = random.Hostile();
          Guarded<int32_t> mask(static_cast<size_t>(written));
          for (size_t i = 0; i < mask.size(); i++) mask[i] = random.Chance(0.7) ? -1 : 0;
          Guarded<float> y(static_cast<size_t>((channels - 1) * y_plane + written));
          gather({x.data(), x_plane, x_row, mask.data(), channels, rows, columns, y.data(), y_plane, y_row});
          y.ExpectCanaries();
          for (int32_t c = 0; c < channels; c++) {
            for (int32_t r = 0; r < rows; r++) {
              for (int32_t i = 0; i < columns; i++) {
                const float zero = 0.0f;
                const float* expected = mask[r * y_row + i] != 0 ? &x[c * x_plane + r * x_row + step * i] : &zero;
                ASSERT_EQ(memcmp(y.data() + c * y_plane + r * y_row + i, expected, sizeof(float)), 0)
                    << "step " << step << ", channel " << c << " of " << channels << ", row " << r << " of " << rows
                    << ", " << i << " of " << columns;
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(StridedTest, OfNothingTouchesNothing) {
  for (int32_t step : {1, 2, 3, 6}) {
    float* y[kernels::kStridedMaxStep] = {};
    GetParam()->strided.split[step](nullptr, 0, y);
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
