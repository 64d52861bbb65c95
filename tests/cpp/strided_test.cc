// Copies of every so many-th number, at every CPU level, with nothing readable or writable around the operands.
#include "tflite_delegate/kernels/strided.h"

#include <cstdint>
#include <cstring>

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
    const auto copy = GetParam()->strided.copy[step];
    ASSERT_EQ(copy != nullptr, step == 2 || step == 3 || step == 6) << step;
    if (copy == nullptr) continue;
    for (int32_t count = 1; count <= 70; count++) {
      Guarded<float> x(static_cast<size_t>((count - 1) * step + 1)), y(static_cast<size_t>(count));
      for (size_t i = 0; i < x.size(); i++) x[i] = random.Hostile();
      copy(x.data(), count, y.data());
      for (int32_t i = 0; i < count; i++) {
        const size_t from = static_cast<size_t>(i * step);
        ASSERT_EQ(memcmp(y.data() + i, x.data() + from, sizeof(float)), 0)
            << "step " << step << ", " << i << " of " << count;
      }
    }
  }
}

TEST_P(StridedTest, OfNothingTouchesNothing) {
  for (int32_t step : {2, 3, 6}) GetParam()->strided.copy[step](nullptr, 0, nullptr);
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
