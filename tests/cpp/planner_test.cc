// Planes against what their users are promised: checked for every value by itself, with classes worked out anew.
#include "tflite_delegate/graph/planner.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/graph/value.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Border;
using graph::Layout;
using graph::Planner;
using graph::Value;

constexpr int32_t kLanes = kernels::kMaxLanes;

Value Image(int32_t batch, int32_t height, int32_t width, int32_t channels, Layout layout = Layout::kPlanar) {
  Value value;
  value.dims = {batch, height, width, channels};
  value.layout = layout;
  return value;
}

// Pixels of a plane that may be written: whole vectors from the origin on.
int64_t WrittenEnd(const Value& v) { return v.planes.origin + (v.run() + kLanes - 1) / kLanes * kLanes; }

// What a value with this border, alone, needs of its planes.
void ExpectHolds(const Value& v, const Border& border) {
  const graph::Planes& planes = v.planes;
  EXPECT_GE(planes.row, v.width() + std::max(border.left, border.right));
  EXPECT_EQ(planes.origin % kLanes, 0);
  EXPECT_EQ(planes.plane % kLanes, 0);
  EXPECT_EQ(planes.batch, static_cast<int64_t>(planes.plane) * v.channels());
  // A reader goes through whole vectors from each shifted starting point.
  const int64_t first = planes.origin - static_cast<int64_t>(border.top) * planes.row - border.left;
  EXPECT_GE(first, 0);
  EXPECT_LE(WrittenEnd(v) + static_cast<int64_t>(border.bottom) * planes.row + border.right, planes.plane);
}

TEST(Planner, AnImageAloneIsPackedTightly) {
  std::vector<Value> values = {Image(2, 7, 9, 3)};
  ASSERT_TRUE(Planner(&values, *Levels()[0]).SetPlanes());
  EXPECT_EQ(values[0].planes.row, 9);
  EXPECT_EQ(values[0].planes.origin, 0);
  EXPECT_EQ(values[0].planes.plane, 80);  // 63 pixels make 64, and 64 floats would be an even number of cache lines
  EXPECT_EQ(values[0].planes.batch, 240);
  EXPECT_EQ(values[0].run(), 63);
}

TEST(Planner, InterleavedValuesAreLeftAlone) {
  std::vector<Value> values = {Image(1, 4, 4, 2, Layout::kInterleaved), Image(1, 4, 4, 2), Image(1, 4, 4, 2)};
  Planner planner(&values, *Levels()[0]);
  planner.SamePlanes(1, 0);
  planner.SamePlanes(0, 2);
  planner.MinRow(0, 50);
  planner.ZeroBorder(0, {1, 1, 1, 1});
  ASSERT_TRUE(planner.SetPlanes());
  EXPECT_EQ(values[0].planes.plane, 0);
  EXPECT_FALSE(values[0].border.any());
  // Nor do they join others.
  EXPECT_EQ(values[1].planes.row, 4);
  EXPECT_EQ(values[1].planes.origin, 0);
}

TEST(Planner, ABorderBelongsToItsValueAndRoomForItToTheClass) {
  std::vector<Value> values = {Image(1, 5, 6, 1), Image(1, 5, 6, 8), Image(1, 5, 6, 2)};
  Planner planner(&values, *Levels()[0]);
  planner.SamePlanes(0, 1);
  planner.ZeroBorder(1, {1, 2, 3, 0});
  planner.ZeroBorder(1, {2, 0, 1, 1});
  ASSERT_TRUE(planner.SetPlanes());
  EXPECT_FALSE(values[0].border.any());
  EXPECT_EQ(values[1].border.top, 2);
  EXPECT_EQ(values[1].border.left, 2);
  EXPECT_EQ(values[1].border.bottom, 3);
  EXPECT_EQ(values[1].border.right, 1);
  EXPECT_EQ(values[0].planes.row, 8);
  EXPECT_EQ(values[0].planes.origin, values[1].planes.origin);
  EXPECT_EQ(values[0].planes.plane, values[1].planes.plane);
  EXPECT_EQ(values[2].planes.row, 6);
  EXPECT_EQ(values[2].planes.origin, 0);
  ExpectHolds(values[0], values[1].border);
  ExpectHolds(values[1], values[1].border);
}

TEST(Planner, RoomIsNotBetweenTheRows) {
  std::vector<Value> values = {Image(1, 5, 6, 1), Image(1, 5, 6, 8)};
  Planner planner(&values, *Levels()[0]);
  planner.SamePlanes(0, 1);
  planner.Room(1, 2, 1);
  planner.Room(0, 1, 3);
  ASSERT_TRUE(planner.SetPlanes());
  for (const Value& value : values) {
    EXPECT_FALSE(value.border.any());
    EXPECT_EQ(value.planes.row, 6);
    EXPECT_EQ(value.planes.origin, 16);  // two rows of 6
    EXPECT_GE(value.planes.plane, 16 + 32 + 3 * 6);
  }
}

TEST(Planner, TheOrderOfDemandsDoesNotMatter) {
  const auto plan = [](bool join_first) {
    std::vector<Value> values = {Image(1, 9, 8, 1), Image(1, 9, 8, 1), Image(1, 9, 8, 1)};
    Planner planner(&values, *Levels()[0]);
    if (join_first) {
      planner.SamePlanes(0, 1);
      planner.SamePlanes(2, 1);
    }
    planner.MinRow(0, 13);
    planner.ZeroBorder(2, {1, 0, 0, 3});
    planner.ZeroBorder(1, {0, 2, 4, 0});
    if (!join_first) {
      planner.SamePlanes(1, 2);
      planner.SamePlanes(0, 1);
    }
    EXPECT_TRUE(planner.SetPlanes());
    return values;
  };
  const std::vector<Value> a = plan(true), b = plan(false);
  for (size_t i = 0; i < 3; i++) {
    EXPECT_EQ(a[i].planes.row, 13);
    EXPECT_EQ(a[i].planes.row, b[i].planes.row);
    EXPECT_EQ(a[i].planes.origin, b[i].planes.origin);
    EXPECT_EQ(a[i].planes.plane, b[i].planes.plane);
  }
}

TEST(Planner, RowsAreWholeCacheLinesWhereThatGains) {
  // Two classes, of values 0 and 1 and of 2 and 3, and an interleaved value.
  for (auto [first, second, whole] :
       {std::tuple(2.0, -1.0, true), {-1.0, 2.0, true}, {-2.0, 1.0, false}, {0.0, 0.0, false}}) {
    for (bool join_first : {false, true}) {
      std::vector<Value> values = {Image(1, 5, 17, 2), Image(1, 5, 17, 2), Image(1, 5, 16, 2), Image(1, 5, 16, 2),
                                   Image(1, 5, 17, 2, Layout::kInterleaved)};
      Planner planner(&values, *Levels()[0]);
      if (join_first) planner.SamePlanes(0, 1);
      planner.WeighWholeLines(0, first);
      planner.WeighWholeLines(1, second);
      planner.WeighWholeLines(3, 1.0);
      planner.WeighWholeLines(4, 1.0);
      if (!join_first) planner.SamePlanes(0, 1);
      planner.ZeroBorder(0, {1, 1, 1, 1});
      ASSERT_TRUE(planner.SetPlanes());
      EXPECT_EQ(values[0].planes.row, whole ? 32 : 18);
      EXPECT_EQ(values[1].planes.row, values[0].planes.row);
      EXPECT_EQ(values[2].planes.row, 16);  // nobody gains
      EXPECT_EQ(values[3].planes.row, 16);
      EXPECT_EQ(values[4].planes.row, 0);
      ExpectHolds(values[0], values[0].border);
    }
  }
}

TEST(Planner, RandomDemands) {
  Random random(1);
  for (int round = 0; round < (kSlow ? 300 : 3000); round++) {
    SCOPED_TRACE(round);
    const int count = 1 + random.Below(12);
    std::vector<std::pair<int32_t, int32_t>> sizes;
    for (int i = 0; i < 3; i++) sizes.push_back({1 + random.Below(40), 1 + random.Below(70)});
    std::vector<Value> values;
    for (int i = 0; i < count; i++) {
      const auto [height, width] = sizes[random.Below(3)];
      values.push_back(Image(1 + random.Below(3), height, width, 1 + random.Below(20),
                             random.Chance(0.1) ? Layout::kInterleaved : Layout::kPlanar));
    }
    Planner planner(&values, *Levels()[0]);
    std::vector<std::pair<int, int>> joins;
    std::vector<int32_t> min_row(count, 0);
    std::vector<Border> border(count);
    for (int i = 0; i < 2 * count; i++) {
      const int a = random.Below(count), b = random.Below(count);
      const bool planar = values[a].layout == Layout::kPlanar;
      switch (random.Below(4)) {
        case 0:
        case 1:
          if (values[a].height() != values[b].height() || values[a].width() != values[b].width()) break;
          planner.SamePlanes(a, b);
          if (planar && values[b].layout == Layout::kPlanar) joins.push_back({a, b});
          break;
        case 2: {
          const int32_t row = random.Below(100);
          planner.MinRow(a, row);
          if (planar) min_row[a] = std::max(min_row[a], row);
          break;
        }
        case 3: {
          const Border more = {random.Below(4), random.Below(4), random.Below(4), random.Below(4)};
          planner.ZeroBorder(a, more);
          if (!planar) break;
          border[a].top = std::max(border[a].top, more.top);
          border[a].left = std::max(border[a].left, more.left);
          border[a].bottom = std::max(border[a].bottom, more.bottom);
          border[a].right = std::max(border[a].right, more.right);
          break;
        }
      }
    }
    ASSERT_TRUE(planner.SetPlanes());

    // Classes as the transitive closure of the joins.
    std::vector<std::vector<bool>> same(count, std::vector<bool>(count, false));
    for (int i = 0; i < count; i++) same[i][i] = true;
    for (auto [a, b] : joins) same[a][b] = same[b][a] = true;
    for (int k = 0; k < count; k++) {
      for (int i = 0; i < count; i++) {
        for (int j = 0; j < count; j++) same[i][j] = same[i][j] || (same[i][k] && same[k][j]);
      }
    }
    for (int i = 0; i < count; i++) {
      if (values[i].layout != Layout::kPlanar) continue;
      for (int j = 0; j < count; j++) {
        if (!same[i][j]) continue;
        EXPECT_EQ(values[i].planes.row, values[j].planes.row);
        EXPECT_EQ(values[i].planes.origin, values[j].planes.origin);
        EXPECT_EQ(values[i].planes.plane, values[j].planes.plane);
        EXPECT_GE(values[i].planes.row, min_row[j]);
        ExpectHolds(values[i], border[j]);
      }
      EXPECT_EQ(values[i].border.top, border[i].top);
      EXPECT_EQ(values[i].border.left, border[i].left);
      EXPECT_EQ(values[i].border.bottom, border[i].bottom);
      EXPECT_EQ(values[i].border.right, border[i].right);
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Planner, TooLargeIsRefused) {
  std::vector<Value> fits = {Image(100, 1 << 10, 1 << 10, 500)};
  EXPECT_TRUE(Planner(&fits, *Levels()[0]).SetPlanes());
  EXPECT_GT(fits[0].planes.batch, 500000000);
  std::vector<Value> channels = {Image(1, 1 << 10, 1 << 10, 513)};
  EXPECT_FALSE(Planner(&channels, *Levels()[0]).SetPlanes());
  std::vector<Value> border = {Image(1, 8, 8, 4)};
  Planner wide(&border, *Levels()[0]);
  wide.ZeroBorder(0, {1 << 24, 1 << 24, 1 << 24, 1 << 24});
  EXPECT_FALSE(wide.SetPlanes());
  std::vector<Value> rows = {Image(1, 1 << 15, 1, 1)};
  Planner long_rows(&rows, *Levels()[0]);
  long_rows.MinRow(0, 1 << 20);
  EXPECT_FALSE(long_rows.SetPlanes());
  std::vector<Value> plane = {Image(1, 1 << 16, 1 << 16, 1)};
  EXPECT_FALSE(Planner(&plane, *Levels()[0]).SetPlanes());
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
