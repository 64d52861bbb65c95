// The elementwise and pooling kernels at every CPU level: against the C library and against loops in double precision.
#include "tflite_delegate/kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace testing {
namespace {

class ElementwiseTest : public ::testing::TestWithParam<const kernels::KernelTable*> {
 protected:
  const kernels::ElementwiseKernels& kernels() const { return GetParam()->elementwise; }
};
INSTANTIATE_TEST_SUITE_P(Levels, ElementwiseTest, ::testing::ValuesIn(Levels()), LevelName);

float ClampExactly(float v, float low, float high) { return std::isnan(v) ? v : std::min(high, std::max(low, v)); }

float Exactly(int op, float a, float b) {
  switch (op) {
    case kernels::kAdd:
      return a + b;
    case kernels::kSub:
      return a - b;
    case kernels::kMul:
      return a * b;
    default:
      return a / b;
  }
}

void ExpectSame(float got, float exact) {
  if (std::isnan(exact)) {
    EXPECT_TRUE(std::isnan(got)) << got;
  } else {
    EXPECT_EQ(got, exact);
  }
}

TEST_P(ElementwiseTest, Binary) {
  Random random(3);
  for (int n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100}) {
    for (int op = 0; op < kernels::kBinaryCount; op++) {
      for (const auto& [low, high] : {std::make_pair(-kInfinity, kInfinity), std::make_pair(0.0f, 6.0f)}) {
        Guarded<float> a(static_cast<size_t>(n)), b(static_cast<size_t>(n)), y(static_cast<size_t>(n));
        for (int i = 0; i < n; i++) {
          a[i] = random.Hostile();
          b[i] = random.Hostile();
        }
        Guarded<float> number(1);
        number[0] = random.Hostile();
        kernels().vector_vector[op](a.data(), b.data(), y.data(), n, low, high);
        for (int i = 0; i < n; i++) ExpectSame(y[i], ClampExactly(Exactly(op, a[i], b[i]), low, high));
        kernels().vector_scalar[op](a.data(), number.data(), y.data(), n, low, high);
        for (int i = 0; i < n; i++) ExpectSame(y[i], ClampExactly(Exactly(op, a[i], number[0]), low, high));
        kernels().scalar_vector[op](number.data(), b.data(), y.data(), n, low, high);
        for (int i = 0; i < n; i++) ExpectSame(y[i], ClampExactly(Exactly(op, number[0], b[i]), low, high));
        y.ExpectCanaries();
        // In place.
        std::vector<float> first(a.data(), a.data() + n);
        kernels().vector_vector[op](a.data(), b.data(), a.data(), n, low, high);
        for (int i = 0; i < n; i++) ExpectSame(a[i], ClampExactly(Exactly(op, first[i], b[i]), low, high));
      }
    }
  }
}

double Exactly(int function, double x, double p, double q) {
  if (std::isnan(x)) return x;
  switch (function) {
    case kernels::kClamp:
      return std::min(q, std::max(p, x));
    case kernels::kLeakyRelu:
      return x < 0 ? x * p : x;
    case kernels::kElu:
      return x < 0 ? std::expm1(x) : x;
    case kernels::kHardSwish:
      return x * std::min(6.0, std::max(0.0, x + 3)) / 6;
    case kernels::kLogistic:
      return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
    default:
      return std::tanh(x);
  }
}

// In units in the last place of the exact result.
double Error(float got, double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  if (std::isinf(exact) || std::isinf(got)) return got == static_cast<float>(exact) ? 0 : 1e9;
  const int exponent = std::max(-126, exact == 0 ? -126 : std::ilogb(exact));
  return std::fabs(got - exact) / std::ldexp(1.0, exponent - 23);
}

TEST_P(ElementwiseTest, Unary) {
  // Hard swish rounds four times, by half a unit each: x + 3, the product, 1 / 6 and the product with it; relative to
  // the result's unit a rounding can count twice.
  constexpr double kTolerance[kernels::kUnaryCount] = {0, 0.5, 3, 4, 3, 4};
  std::vector<float> x = {0.0f,   -0.0f,   kNan,    kInfinity, -kInfinity, kDenormal, -kDenormal, 1e-30f,   -1e-30f,
                          1e30f,  -1e30f,  87.0f,   88.0f,     88.72284f,  89.0f,     104.0f,     -87.0f,   -88.0f,
                          -89.0f, -103.0f, -104.0f, -105.0f,   -1000.0f,   1000.0f,   3.4e38f,    -3.4e38f, -3.0f,
                          3.0f,   1e-3f,   -1e-3f,  9.0f,      -9.0f,      10.0f,     -20.0f,     -16.6f,   -17.4f};
  for (int i = 0; i < (kSlow ? 2000 : 40000); i++) {
    // Evenly over [-20, 20], and over all exponents near 0.
    x.push_back(-20.0f + 40.0f * static_cast<float>(i) / (kSlow ? 2000 : 40000));
    x.push_back(std::ldexp(i % 2 == 0 ? 1.0f : -1.0f, -(i % 40)) * (1.0f + static_cast<float>(i % 997) / 997));
  }
  x.push_back(0.5f);  // no multiple of any vector
  const int64_t n = static_cast<int64_t>(x.size());
  const Guarded<float> from(x);
  for (int function = 0; function < kernels::kUnaryCount; function++) {
    const float p = function == kernels::kClamp ? -1.0f : 0.1f, q = 2.5f;
    Guarded<float> y(x.size());
    kernels().unary[function](from.data(), y.data(), n, p, q);
    y.ExpectCanaries();
    double worst = 0;
    float at = 0;
    for (size_t i = 0; i < x.size(); i++) {
      // TFLite's formula: -infinity times 0.
      const double exact = function == kernels::kHardSwish && x[i] == -kInfinity ? kNan : Exactly(function, x[i], p, q);
      // x + 3 is rounded before anything else: where it cancels, that is an error relative to 3.
      if (function == kernels::kHardSwish && x[i] < 0 && x[i] > -4.0f) {
        ASSERT_NEAR(y[i], exact, 4e-7 * std::fabs(x[i]) + kDenormal) << "hard swish of " << x[i];
        continue;
      }
      if (const double error = Error(y[i], exact); error > worst) {
        worst = error;
        at = x[i];
      }
    }
    EXPECT_LE(worst, kTolerance[function]) << "function " << function << " of " << at;
    // Any length, and in place.
    for (int length : {1, 2, 3, 5, 8, 13, 16, 21}) {
      Guarded<float> some(std::vector<float>(x.begin() + 20, x.begin() + 20 + length));
      kernels().unary[function](some.data(), some.data(), length, p, q);
      some.ExpectCanaries();
      for (int i = 0; i < length; i++) ExpectSame(some[i], y[20 + i]);
    }
  }
}

// As a multiplication and an addition after it would have them, to the bit.
TEST_P(ElementwiseTest, ScaleShift) {
  Random random(5);
  for (int n : {1, 3, 4, 8, 11, 16, 37}) {
    for (bool clamped : {false, true}) {
      const float low = clamped ? 0.0f : -kInfinity, high = clamped ? 0.75f : kInfinity;
      for (int round = 0; round < 40; round++) {
        Guarded<float> x(static_cast<size_t>(n)), y(static_cast<size_t>(n));
        for (int i = 0; i < n; i++) x[i] = random.Hostile();
        const float scale = round == 0 ? kNan : random.Float(), shift = random.Float();
        kernels().scale_shift(x.data(), scale, shift, y.data(), n, low, high);
        y.ExpectCanaries();
        for (int i = 0; i < n; i++) {
          const float product = static_cast<float>(Exactly(kernels::kMul, x[i], scale));
          ExpectSame(y[i], ClampExactly(Exactly(kernels::kAdd, product, shift), low, high));
        }
        const std::vector<float> apart(y.data(), y.data() + n);
        kernels().scale_shift(x.data(), scale, shift, x.data(), n, low, high);
        for (int i = 0; i < n; i++) ExpectSame(x[i], apart[i]);
      }
    }
  }
}

TEST_P(ElementwiseTest, PreluAndLerp) {
  Random random(4);
  for (int n : {1, 3, 4, 8, 11, 16, 37}) {
    Guarded<float> x(static_cast<size_t>(n)), slope(static_cast<size_t>(n)), y(static_cast<size_t>(n));
    for (int i = 0; i < n; i++) {
      x[i] = random.Hostile();
      slope[i] = random.Float();
    }
    kernels().prelu(x.data(), slope.data(), y.data(), n);
    for (int i = 0; i < n; i++) ExpectSame(y[i], x[i] < 0 ? x[i] * slope[i] : x[i]);
    for (int i = 0; i < n; i++) x[i] = random.Float();
    kernels().lerp(x.data(), slope.data(), 0.3f, y.data(), n);
    for (int i = 0; i < n; i++) EXPECT_NEAR(y[i], x[i] * 0.7 + slope[i] * 0.3, 2e-7);
    y.ExpectCanaries();
  }
}

class PoolTest : public ::testing::TestWithParam<const kernels::KernelTable*> {
 protected:
  // Windows of `window`, `stride` apart, over planes with NaN between their rows.
  void Test(bool maximum, int height, int width, int window_height, int window_width, int stride_height,
            int stride_width, int before, int after, int gap, bool zeros_outside, bool hostile) const {
    kernels::PoolArgs args = {};
    args.x_height = height;
    args.x_width = width;
    if (height + before + after < window_height || width + before + after < window_width) return;
    args.y_height = (height + before + after - window_height) / stride_height + 1;
    args.y_width = (width + before + after - window_width) / stride_width + 1;
    SCOPED_TRACE(::testing::Message() << (maximum ? "max " : "average ") << height << " x " << width << ", window "
                                      << window_height << " x " << window_width << ", stride " << stride_height << " x "
                                      << stride_width << ", pad " << before << " + " << after << ", gap " << gap);
    Random random(static_cast<uint64_t>(height * 31 + width));
    args.count = 2;
    args.x_row = width + gap;
    args.y_row = args.y_width + gap;
    args.x_plane = height * args.x_row;
    args.y_plane = args.y_height * args.y_row;
    args.pad_top = args.pad_left = before;
    args.window_height = window_height;
    args.window_width = window_width;
    args.stride_height = stride_height;
    args.stride_width = stride_width;
    args.outside = maximum && !zeros_outside ? -kInfinity : 0.0f;
    args.low = hostile ? -kInfinity : -0.5f;
    args.high = hostile ? kInfinity : 0.75f;
    Guarded<float> x(static_cast<size_t>(args.x_plane) * 2 - gap);
    for (size_t i = 0; i < x.size(); i++) {
      x[i] = static_cast<int>(i % args.x_row) >= width ? kNan : hostile ? random.Hostile() : random.Float();
    }
    std::vector<float> columns;
    for (int ox = 0; ox < args.y_width; ox++) {
      const int left = ox * stride_width - before;
      columns.push_back(static_cast<float>(std::min(width, left + window_width) - std::max(0, left)));
    }
    columns.resize(columns.size() + kernels::kMaxLanes, 1.0f);
    const Guarded<float> guarded_columns(columns);
    Guarded<float> scratch(
        static_cast<size_t>(kernels::PoolScratch(args.x_width, args.y_width, args.window_width, args.stride_width)));
    std::fill(scratch.data(), scratch.data() + scratch.size(), kNan);
    Guarded<float> y(static_cast<size_t>(args.y_plane) * 2);
    std::fill(y.data(), y.data() + y.size(), 777.0f);
    args.x = x.data();
    args.y = y.data();
    args.columns = guarded_columns.data();
    args.scratch = scratch.data();
    (maximum ? GetParam()->pool.max : GetParam()->pool.average)(args);
    y.ExpectCanaries();
    scratch.ExpectCanaries();
    for (int i = 0; i < args.y_plane * 2; i++) {
      const int c = i / args.y_plane, oy = i % args.y_plane / args.y_row, ox = i % args.y_row;
      if (ox >= args.y_width) {
        ASSERT_EQ(y[i], 777.0f) << "written between rows";
        continue;
      }
      ExactSum sum;
      double max = zeros_outside ? 0.0 : -kInfinity, pixels = 0;
      bool nan = false, clipped = false;
      for (int ky = 0; ky < window_height; ky++) {
        for (int kx = 0; kx < window_width; kx++) {
          const int iy = oy * stride_height - before + ky, ix = ox * stride_width - before + kx;
          if (iy < 0 || iy >= height || ix < 0 || ix >= width) {
            clipped = true;
            continue;
          }
          const float v = x[static_cast<size_t>(c) * args.x_plane + iy * args.x_row + ix];
          sum.Add(v);
          nan |= std::isnan(v);
          max = pixels == 0 && !(zeros_outside && clipped) ? v : std::max<double>(max, v);
          pixels++;
        }
      }
      if (zeros_outside && clipped) max = std::max(max, 0.0);
      const double exact = maximum ? nan ? kNan : max : sum.value() / pixels;
      if (std::isnan(exact)) {
        ASSERT_TRUE(std::isnan(y[i])) << y[i] << " at " << c << ", " << oy << ", " << ox;
        continue;
      }
      const double clamped = std::min<double>(args.high, std::max<double>(args.low, exact));
      if (std::isinf(clamped) || maximum) {
        ASSERT_EQ(y[i], static_cast<float>(clamped)) << " at " << c << ", " << oy << ", " << ox;
      } else {
        ASSERT_NEAR(y[i], clamped, sum.bound() / pixels + 1e-6 * std::fabs(clamped)) << c << ", " << oy << ", " << ox;
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Levels, PoolTest, ::testing::ValuesIn(Levels()), LevelName);

TEST_P(PoolTest, Windows) {
  for (bool maximum : {false, true}) {
    for (int window : {1, 2, 3, 7}) {
      for (int stride : {1, 2, 3}) {
        for (int width : {1, 2, 3, 5, 8, 14, 16, 17, 33, 40}) {
          if (kSlow && width % 3 == 2) continue;
          for (int before : {0, 1, 2}) {
            if (before >= window) continue;
            Test(maximum, 6, width, window, window, stride, stride, before, std::min(window - 1, before + 1), 0, false,
                 false);
            Test(maximum, width, 5, window, std::min(window, 4), stride, 1, std::min(before, 3), 0, 3, false, false);
          }
        }
      }
    }
  }
}

TEST_P(PoolTest, HostileAndZerosOutside) {
  for (int width : {4, 9, 21, 35}) {
    for (int stride : {1, 2, 3}) {
      Test(true, 7, width, 3, 3, stride, stride, 1, 1, 2, false, true);
      Test(true, 7, width, 3, 3, stride, stride, 1, 1, 2, true, true);
      Test(false, 7, width, 3, 3, stride, stride, 1, 1, 2, false, true);
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
