// The depthwise kernels and the op above them, at every CPU level, against loops in double precision.
#include "tflite_delegate/kernels/depthwise.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/kernel_testing.h"
#include "tests/cpp/node_testing.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace testing {
namespace {

using kernels::DepthwiseArgs;
using kernels::KernelTable;

// One call of a kernel on planes with anything between their rows and around them.
class DepthwiseTester {
 public:
  explicit DepthwiseTester(const KernelTable& table) : table_(table) {}

  DepthwiseTester& size(int height, int width) { return Set(&height_, height).Set(&width_, width); }
  DepthwiseTester& kernel(int height, int width) { return Set(&kernel_height_, height).Set(&kernel_width_, width); }
  DepthwiseTester& stride(int height, int width) { return Set(&stride_height_, height).Set(&stride_width_, width); }
  DepthwiseTester& dilation(int height, int width) {
    return Set(&dilation_height_, height).Set(&dilation_width_, width);
  }
  DepthwiseTester& pad(int before, int after) { return Set(&before_, before).Set(&after_, after); }
  DepthwiseTester& channels(int channels) { return Set(&channels_, channels); }
  DepthwiseTester& multiplier(int multiplier) { return Set(&multiplier_, multiplier); }
  DepthwiseTester& gap(int gap) { return Set(&gap_, gap); }
  DepthwiseTester& hostile(bool hostile) { return Set(&hostile_, hostile); }
  DepthwiseTester& generic(bool generic) { return Set(&generic_, generic); }
  DepthwiseTester& clamp(float low, float high) { return Set(&low_, low).Set(&high_, high); }

  void Test() const {
    DepthwiseArgs args = {};
    args.kernel_height = kernel_height_;
    args.kernel_width = kernel_width_;
    args.stride_height = stride_height_;
    args.stride_width = stride_width_;
    args.dilation_height = dilation_height_;
    args.dilation_width = dilation_width_;
    args.pad_top = args.pad_left = before_;
    args.x_height = height_;
    args.x_width = width_;
    args.y_height = (height_ + before_ + after_ - (kernel_height_ - 1) * dilation_height_ - 1) / stride_height_ + 1;
    args.y_width = (width_ + before_ + after_ - (kernel_width_ - 1) * dilation_width_ - 1) / stride_width_ + 1;
    if (height_ + before_ + after_ <= (kernel_height_ - 1) * dilation_height_ ||
        width_ + before_ + after_ <= (kernel_width_ - 1) * dilation_width_) {
      return;
    }
    SCOPED_TRACE(::testing::Message() << height_ << " x " << width_ << ", kernel " << kernel_height_ << " x "
                                      << kernel_width_ << ", stride " << stride_height_ << " x " << stride_width_
                                      << ", dilation " << dilation_height_ << " x " << dilation_width_ << ", pad "
                                      << before_ << " + " << after_ << ", multiplier " << multiplier_ << ", gap "
                                      << gap_ << (hostile_ ? ", hostile" : "") << (generic_ ? ", generic" : ""));
    Random random(static_cast<uint64_t>(height_ * 131 + width_ * 17 + before_ * 5 + stride_width_));
    args.x_row = width_ + gap_;
    args.y_row = args.y_width + gap_;
    args.x_plane = RoundUp((height_ - 1) * args.x_row + width_);
    args.y_plane = RoundUp((args.y_height - 1) * args.y_row + args.y_width);
    const int run = (args.y_height - 1) * args.y_row + args.y_width;
    args.y_run = height_ % 2 == 0 ? run : args.y_plane;
    args.multiplier = multiplier_;
    const int planes = channels_ * multiplier_;
    // The first plane is left to another call.
    args.first = planes > 1 ? 1 : 0;
    args.count = planes - args.first;
    args.low = low_;
    args.high = high_;

    // What may be read around the images, as depthwise.h grants it.
    const size_t before = generic_ ? 0 : kernels::kDepthwiseMaxReach, after = generic_ ? 0 : 4 * kernels::kMaxLanes;
    const size_t floats = static_cast<size_t>(args.x_plane) * channels_;
    const size_t last =
        generic_ ? static_cast<size_t>(args.x_plane) * (channels_ - 1) + (height_ - 1) * args.x_row + width_ : floats;
    Guarded<float> x(before + last + after);
    std::fill(x.data(), x.data() + x.size(), kNan);
    args.x = x.data() + before;
    for (int c = 0; c < channels_; c++) {
      for (int y = 0; y < height_; y++) {
        for (int i = 0; i < width_; i++) {
          x[before + static_cast<size_t>(c) * args.x_plane + static_cast<size_t>(y) * args.x_row + i] =
              hostile_ ? random.Hostile() : random.Float();
        }
      }
    }
    const int taps = kernel_height_ * kernel_width_;
    Guarded<float> weights(static_cast<size_t>(planes) * (taps + 1));
    for (size_t i = 0; i < weights.size(); i++) weights[i] = random.Float();
    args.weights = weights.data();
    Guarded<int32_t> inside(static_cast<size_t>(kernels::DepthwiseInside(args.y_width, stride_width_)));
    for (size_t i = 0; i < inside.size(); i++) {
      const int column = static_cast<int>(i) - before_;
      inside[i] = column >= 0 && column < width_ ? -1 : 0;
    }
    args.inside = inside.data();
    const float kUntouched = 777.0f;
    Guarded<float> y(static_cast<size_t>(args.y_plane) * planes);
    std::fill(y.data(), y.data() + y.size(), kUntouched);
    args.y = y.data();

    Kernel()(args);
    y.ExpectCanaries();

    for (int c = 0; c < planes; c++) {
      for (int i = 0; i < args.y_plane; i++) {
        const int oy = i / args.y_row, ox = i % args.y_row;
        const float got = y[static_cast<size_t>(c) * args.y_plane + i];
        if (c < args.first || oy >= args.y_height || ox >= args.y_width) {
          if (c >= args.first && args.y_width < kernels::kMaxLanes && i < args.y_run && !generic_) continue;
          ASSERT_EQ(got, kUntouched) << "written outside, plane " << c << ", row " << oy << ", column " << ox;
          continue;
        }
        ExactSum sum;
        const float* w = weights.data() + static_cast<size_t>(c) * (taps + 1);
        sum.Add(w[0]);
        sum.Clamp(low_, high_);
        for (int ky = 0; ky < kernel_height_; ky++) {
          for (int kx = 0; kx < kernel_width_; kx++) {
            const int iy = oy * stride_height_ - before_ + ky * dilation_height_;
            const int ix = ox * stride_width_ - before_ + kx * dilation_width_;
            if (iy < 0 || iy >= height_ || ix < 0 || ix >= width_) continue;
            const float pixel = args.x[static_cast<int64_t>(c / multiplier_) * args.x_plane + iy * args.x_row + ix];
            sum.Add(static_cast<double>(pixel) * w[1 + ky * kernel_width_ + kx]);
          }
        }
        ASSERT_TRUE(sum.Admits(got)) << got << " instead of " << sum << ", plane " << c << ", row " << oy << ", column "
                                     << ox;
      }
    }
  }

 private:
  template <class T>
  DepthwiseTester& Set(T* field, T value) {
    *field = value;
    return *this;
  }
  static int RoundUp(int n) { return (n + kernels::kMaxLanes - 1) / kernels::kMaxLanes * kernels::kMaxLanes; }
  kernels::DepthwiseKernel Kernel() const {
    if (generic_) return table_.depthwise.any;
    return stride_width_ == 1 ? table_.depthwise.stride1[kernel_width_ / 2 - 1]
                              : table_.depthwise.stride2[kernel_width_ / 2 - 1];
  }

  const KernelTable& table_;
  int height_ = 1, width_ = 1, kernel_height_ = 3, kernel_width_ = 3, stride_height_ = 1, stride_width_ = 1;
  int dilation_height_ = 1, dilation_width_ = 1, before_ = 0, after_ = 0, channels_ = 2, multiplier_ = 1, gap_ = 0;
  bool hostile_ = false, generic_ = false;
  float low_ = -kInfinity, high_ = kInfinity;
};

class DepthwiseKernelTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Levels, DepthwiseKernelTest, ::testing::ValuesIn(Levels()), LevelName);

// Widths around every vector's, heights around the number of rows a kernel takes at a time.
TEST_P(DepthwiseKernelTest, Widths) {
  for (int kernel : {3, 5}) {
    for (int stride : {1, 2}) {
      for (int width = 1; width <= 70; width += kSlow && width > 8 ? 5 : 1) {
        for (int pad : {0, 1, 2}) {
          DepthwiseTester(table()).kernel(kernel, kernel).stride(stride, stride).size(5, width).pad(pad, pad).Test();
          DepthwiseTester(table())
              .kernel(kernel, kernel)
              .stride(stride, stride)
              .size(4, width)
              .pad(pad, std::min(pad + 1, kernel - 1))
              .gap(3)
              .Test();
        }
      }
    }
  }
}

TEST_P(DepthwiseKernelTest, Heights) {
  for (int kernel : {3, 5}) {
    for (int stride : {1, 2}) {
      for (int height = 1; height <= 33; height += kSlow && height > 9 ? 4 : 1) {
        for (int pad : {0, 1, 2}) {
          for (int width : {7, 21}) {
            DepthwiseTester(table())
                .kernel(kernel, kernel)
                .stride(stride, stride)
                .size(height, width)
                .pad(pad, pad)
                .Test();
          }
        }
      }
    }
  }
}

// Planes that are worked on together, and rows of many strips.
TEST_P(DepthwiseKernelTest, Planes) {
  for (int stride : {1, 2}) {
    for (int channels : {1, 5, 40}) {
      for (int width : {7, 14, 28, 57, 130}) {
        if (channels == 40 && (kSlow || width > 30)) continue;
        for (int height : {15, 23}) {
          DepthwiseTester tester(table());
          tester.stride(stride, stride).size(height, width).pad(1, 1).channels(channels).Test();
          tester.gap(5).clamp(0.0f, 6.0f).Test();
        }
      }
    }
  }
}

TEST_P(DepthwiseKernelTest, Dilations) {
  for (int kernel : {3, 5}) {
    for (int down : {1, 2, 3, 6}) {
      for (int across : {1, 2, 4}) {
        for (int pad : {0, 1, 3, 8}) {
          if (pad > down * (kernel - 1)) continue;
          for (int size : {1, 9, 20, 37}) {
            DepthwiseTester(table())
                .kernel(kernel, kernel)
                .dilation(down, across)
                .size(size, 40 - size)
                .pad(pad, pad)
                .Test();
          }
        }
      }
    }
  }
}

TEST_P(DepthwiseKernelTest, MultiplierAndClamp) {
  for (int stride : {1, 2}) {
    for (int multiplier : {1, 2, 3}) {
      DepthwiseTester tester(table());
      tester.stride(stride, stride).size(9, 19).pad(1, 1).channels(3).multiplier(multiplier);
      tester.clamp(-0.25f, 0.5f).Test();
      tester.generic(true).Test();
    }
  }
}

TEST_P(DepthwiseKernelTest, HostilePixels) {
  for (int kernel : {3, 5}) {
    for (int stride : {1, 2}) {
      for (int width : {3, 14, 35}) {
        for (float high : {6.0f, kInfinity}) {
          DepthwiseTester tester(table());
          tester.kernel(kernel, kernel).stride(stride, stride).size(11, width).pad(1, 1).gap(2).hostile(true);
          tester.clamp(high == 6.0f ? 0.0f : -kInfinity, high).Test();
          tester.generic(true).Test();
        }
      }
    }
  }
}

TEST_P(DepthwiseKernelTest, Generic) {
  for (const auto& [height, width] : {std::make_tuple(1, 1), std::make_tuple(2, 7), std::make_tuple(7, 3)}) {
    for (int stride_height : {1, 2, 3}) {
      for (int stride_width : {1, 2, 5}) {
        for (int dilation : {1, 2}) {
          for (int pad : {0, 1, 9}) {
            for (int size : {1, 6, 23}) {
              DepthwiseTester(table())
                  .generic(true)
                  .kernel(height, width)
                  .stride(stride_height, stride_width)
                  .dilation(dilation, dilation)
                  .size(size, size + 3)
                  .pad(pad, pad)
                  .gap(size % 2)
                  .Test();
            }
          }
        }
      }
    }
  }
}

// --- DEPTHWISE_CONV_2D ---

struct Shape {
  int batch, height, width, channels, multiplier, kernel_height, kernel_width, stride, dilation;
};

void TestNode(const KernelTable& table, const Shape& s, TfLitePadding padding, TfLiteFusedActivation activation,
              bool has_bias, bool planar) {
  SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.height << " x " << s.width << " x " << s.channels << " x "
                                    << s.multiplier << ", kernel " << s.kernel_height << " x " << s.kernel_width
                                    << ", stride " << s.stride << ", dilation " << s.dilation << ", padding " << padding
                                    << ", activation " << activation);
  const bool same = padding == kTfLitePaddingSame;
  const int reach_y = (s.kernel_height - 1) * s.dilation + 1, reach_x = (s.kernel_width - 1) * s.dilation + 1;
  if (!same && (s.height < reach_y || s.width < reach_x)) return;
  const int out_height = same ? (s.height + s.stride - 1) / s.stride : (s.height - reach_y) / s.stride + 1;
  const int out_width = same ? (s.width + s.stride - 1) / s.stride : (s.width - reach_x) / s.stride + 1;
  const int top = same ? std::max(0, (out_height - 1) * s.stride + reach_y - s.height) / 2 : 0;
  const int left = same ? std::max(0, (out_width - 1) * s.stride + reach_x - s.width) / 2 : 0;
  const int out_channels = s.channels * s.multiplier;
  Random random(static_cast<uint64_t>(s.height * 7 + s.width));
  const std::vector<float> x = random.Floats(static_cast<size_t>(s.batch) * s.height * s.width * s.channels);
  const std::vector<float> w = random.Floats(static_cast<size_t>(s.kernel_height) * s.kernel_width * out_channels);
  const std::vector<float> bias = random.Floats(static_cast<size_t>(out_channels));
  TfLiteDepthwiseConvParams params = {};
  params.padding = padding;
  params.activation = activation;
  params.stride_height = params.stride_width = s.stride;
  params.dilation_height_factor = params.dilation_width_factor = s.dilation;
  params.depth_multiplier = s.multiplier;
  const auto run = [&](int threads) {
    NodeTester node(kTfLiteBuiltinDepthwiseConv2d);
    node.Input({s.batch, s.height, s.width, s.channels}, x)
        .Constant({1, s.kernel_height, s.kernel_width, out_channels}, w);
    if (has_bias) {
      node.Constant({out_channels}, bias);
    } else {
      node.Absent();
    }
    EXPECT_EQ(node.Params(params).Planar(planar).Run(table, threads), "");
    EXPECT_EQ(node.output_dims(), (graph::Dims{s.batch, out_height, out_width, out_channels}));
    return node.output();
  };
  const std::vector<float> got = run(1);
  for (int threads : {2, 3, 7}) ASSERT_TRUE(SameBits(got, run(threads))) << threads << " threads";
  float low = -kInfinity, high = kInfinity;
  if (activation == kTfLiteActRelu || activation == kTfLiteActRelu6) low = 0.0f;
  if (activation == kTfLiteActRelu6) high = 6.0f;
  if (activation == kTfLiteActReluN1To1) low = -1.0f, high = 1.0f;
  size_t i = 0;
  for (int n = 0; n < s.batch; n++) {
    for (int oy = 0; oy < out_height; oy++) {
      for (int ox = 0; ox < out_width; ox++) {
        for (int c = 0; c < out_channels; c++, i++) {
          ExactSum sum;
          sum.Clamp(low, high);
          if (has_bias) sum.Add(bias[c]);
          for (int ky = 0; ky < s.kernel_height; ky++) {
            for (int kx = 0; kx < s.kernel_width; kx++) {
              const int iy = oy * s.stride - top + ky * s.dilation, ix = ox * s.stride - left + kx * s.dilation;
              if (iy < 0 || iy >= s.height || ix < 0 || ix >= s.width) continue;
              sum.Add(
                  static_cast<double>(
                      x[((static_cast<size_t>(n) * s.height + iy) * s.width + ix) * s.channels + c / s.multiplier]) *
                  w[(static_cast<size_t>(ky) * s.kernel_width + kx) * out_channels + c]);
            }
          }
          ASSERT_TRUE(sum.Admits(got[i]))
              << got[i] << " instead of " << sum << " at " << n << ", " << oy << ", " << ox << ", " << c;
        }
      }
    }
  }
}

class DepthwiseOpTest : public DepthwiseKernelTest {};
INSTANTIATE_TEST_SUITE_P(Levels, DepthwiseOpTest, ::testing::ValuesIn(Levels()), LevelName);

TEST_P(DepthwiseOpTest, Shapes) {
  const Shape kShapes[] = {// batch, height, width, channels, multiplier, kernel, stride, dilation
                           {1, 14, 14, 5, 1, 3, 3, 1, 1}, {2, 15, 9, 3, 1, 3, 3, 2, 1},  {1, 16, 16, 3, 1, 3, 3, 2, 1},
                           {1, 1, 1, 7, 1, 3, 3, 1, 1},   {2, 1, 1, 7, 2, 5, 5, 2, 1},   {1, 2, 2, 4, 1, 3, 3, 2, 1},
                           {1, 3, 3, 4, 1, 3, 3, 1, 1},   {1, 20, 33, 2, 3, 5, 5, 1, 1}, {1, 17, 40, 2, 2, 5, 5, 2, 1},
                           {2, 12, 12, 3, 1, 7, 7, 1, 1}, {1, 12, 12, 3, 1, 3, 3, 3, 1}, {1, 12, 19, 3, 1, 3, 3, 1, 2},
                           {1, 30, 30, 2, 1, 3, 3, 1, 9}, {1, 9, 21, 3, 1, 1, 3, 1, 1},  {1, 21, 9, 3, 1, 3, 1, 2, 1},
                           {3, 7, 7, 33, 1, 3, 3, 1, 1},  {1, 1, 40, 3, 1, 3, 3, 1, 1},  {1, 40, 1, 3, 1, 5, 5, 2, 1},
                           {1, 12, 12, 2, 1, 5, 5, 1, 5}, {1, 6, 6, 40, 1, 6, 6, 1, 1}};
  int i = 0;
  for (const Shape& shape : kShapes) {
    for (TfLitePadding padding : {kTfLitePaddingSame, kTfLitePaddingValid}) {
      constexpr TfLiteFusedActivation kActivations[] = {kTfLiteActNone, kTfLiteActRelu, kTfLiteActRelu6,
                                                        kTfLiteActReluN1To1};
      TestNode(table(), shape, padding, kActivations[i % 4], i % 3 != 0, i % 5 != 0);
      i++;
    }
  }
}

// Images so large that threads share their rows, of which the last strip has any number.
TEST_P(DepthwiseOpTest, SharedRows) {
  for (int kernel : {3, 5}) {
    for (int stride : {1, 2}) {
      for (int height = 14; height < 32; height += kSlow ? 5 : 1) {
        const Shape shape = {1, height * stride, 130 * stride, kSlow ? 1 : 2, 1, kernel, kernel, stride, 1};
        TestNode(table(), shape, kTfLitePaddingSame, kTfLiteActRelu6, true, true);
        if (HasFailure()) return;
      }
    }
  }
  TestNode(table(), {2, 33, 61, 3, 2, 3, 3, 1, 1}, kTfLitePaddingValid, kTfLiteActNone, true, true);
  TestNode(table(), {1, 33, 61, 2, 1, 3, 3, 1, 2}, kTfLitePaddingSame, kTfLiteActNone, true, true);
}

TEST(DepthwiseClaim, SaysWhyNot) {
  TfLiteDepthwiseConvParams params = {};
  params.padding = kTfLitePaddingSame;
  params.stride_height = params.stride_width = params.dilation_height_factor = params.dilation_width_factor = 1;
  const std::vector<float> x(4 * 4 * 3), w(3 * 3 * 3), bias(3);
  const auto claim = [&](const TfLiteDepthwiseConvParams& p, const graph::Dims& weights, size_t bias_size) {
    NodeTester node(kTfLiteBuiltinDepthwiseConv2d);
    return node.Input({1, 4, 4, 3}, x)
        .Constant(weights, std::vector<float>(static_cast<size_t>(graph::Count(weights))))
        .Constant({static_cast<int32_t>(bias_size)}, std::vector<float>(bias_size))
        .Params(p)
        .Claim();
  };
  EXPECT_EQ(claim(params, {1, 3, 3, 3}, 3), "");
  EXPECT_NE(claim(params, {1, 3, 3, 4}, 4), "");
  EXPECT_NE(claim(params, {2, 3, 3, 3}, 3), "");
  EXPECT_NE(claim(params, {1, 3, 3, 3}, 2), "");
  TfLiteDepthwiseConvParams bad = params;
  bad.stride_width = 0;
  EXPECT_NE(claim(bad, {1, 3, 3, 3}, 3), "");
  bad = params;
  bad.dilation_height_factor = -1;
  EXPECT_NE(claim(bad, {1, 3, 3, 3}, 3), "");
  bad = params;
  bad.activation = kTfLiteActTanh;
  EXPECT_NE(claim(bad, {1, 3, 3, 3}, 3), "");
  bad = params;
  bad.padding = kTfLitePaddingUnknown;
  EXPECT_NE(claim(bad, {1, 3, 3, 3}, 3), "");
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
