// Convolutions in a graph of their own, on every CPU level, against nested loops over the image.
#include "tflite_delegate/ops/conv.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/graph_testing.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/format/options.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/thread_pool.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Graph;
using kernels::KernelTable;

// The ops that a convolution can take in. They compute nothing: a test in which one is left over would fail.
class FusedOp : public TestOp {
 public:
  enum class Kind { kAdd, kClamp, kPad };
  FusedOp(Kind kind, std::vector<int> op_inputs, int op_output)
      : TestOp(std::move(op_inputs), op_output, nullptr), kind_(kind) {}
  const char* name() const override { return "not fused"; }
  bool IsAdd(float* low, float* high) const override { return Bounds(Kind::kAdd, low, high); }
  bool IsClamp(float* low, float* high) const override { return Bounds(Kind::kClamp, low, high); }
  bool IsZeroPad(Border* to) const override {
    *to = border;
    return kind_ == Kind::kPad;
  }

  float low = -kInfinity, high = kInfinity;
  Border border;

 protected:
  void Compute(const graph::RunContext&) const override { ADD_FAILURE() << "an op was left that should be fused"; }

 private:
  bool Bounds(Kind kind, float* to_low, float* to_high) const {
    *to_low = low;
    *to_high = high;
    return kind_ == kind;
  }
  Kind kind_;
};

// Output size and padding before the first pixel, as TensorFlow documents them.
int32_t OutputSize(int32_t input, int32_t kernel, int32_t stride, int32_t dilation, bool same) {
  const int32_t reach = (kernel - 1) * dilation + 1;
  if (same) return (input + stride - 1) / stride;
  return input < reach ? 0 : (input - reach + stride) / stride;
}
int32_t PaddingBefore(int32_t input, int32_t kernel, int32_t stride, int32_t dilation, bool same) {
  const int32_t reach = (kernel - 1) * dilation + 1;
  return same ? std::max(0, (OutputSize(input, kernel, stride, dilation, true) - 1) * stride + reach - input) / 2 : 0;
}

class ConvTester {
 public:
  enum class Residual { kNone, kInput, kOther, kOtherInterleaved };

  ConvTester& image(int32_t batch, int32_t height, int32_t width) {
    batch_ = batch;
    height_ = height;
    width_ = width;
    return *this;
  }
  ConvTester& channels(int32_t in, int32_t out) {
    in_ = in;
    out_ = out;
    return *this;
  }
  ConvTester& kernel(int32_t height, int32_t width) {
    options_.kernel_height = height;
    options_.kernel_width = width;
    return *this;
  }
  ConvTester& stride(int32_t height, int32_t width) {
    options_.stride_height = height;
    options_.stride_width = width;
    return *this;
  }
  ConvTester& dilation(int32_t height, int32_t width) {
    options_.dilation_height = height;
    options_.dilation_width = width;
    return *this;
  }
  ConvTester& same(bool same) {
    options_.padding_same = same;
    return *this;
  }
  // 0: dense.
  ConvTester& block(int32_t block, bool aligned = false) {
    block_ = block;
    aligned_ = aligned;
    return *this;
  }
  ConvTester& density(double density) { return Set(&density_, density); }
  ConvTester& permuted(bool permuted) { return Set(&permuted_, permuted); }
  ConvTester& bias(bool bias) { return Set(&bias_, bias); }
  ConvTester& planar(bool planar) { return Set(&planar_, planar); }
  ConvTester& residual(Residual residual) { return Set(&residual_, residual); }
  ConvTester& pad(const Border& pad) { return Set(&pad_, pad); }
  ConvTester& seed(int seed) { return Set(&seed_, seed); }
  // One of Conv::Tilings(), or kMeasured.
  ConvTester& tiling(int tiling) { return Set(&tiling_, tiling); }
  static constexpr int kMeasured = -1;
  // Bounds of the convolution itself, of the addition and of a clamp behind both.
  ConvTester& clamp(float low, float high) {
    low_ = low;
    return Set(&high_, high);
  }
  ConvTester& last_clamp(float low, float high) {
    last_low_ = low;
    last_high_ = high;
    return Set(&has_last_clamp_, true);
  }

  int32_t padded_height() const { return height_ + pad_.top + pad_.bottom; }
  int32_t padded_width() const { return width_ + pad_.left + pad_.right; }
  int32_t output_height() const {
    return OutputSize(padded_height(), options_.kernel_height, options_.stride_height, options_.dilation_height,
                      options_.padding_same);
  }
  int32_t output_width() const {
    return OutputSize(padded_width(), options_.kernel_width, options_.stride_width, options_.dilation_width,
                      options_.padding_same);
  }

  // Every level, each with the numbers of threads given; results of a level are the same to the bit.
  void Test(const std::vector<int>& threads) {
    // One pixel is handed on interleaved: no addition is fused there.
    if (output_height() * output_width() == 1) residual_ = Residual::kNone;
    SCOPED_TRACE(Name());
    Random random(static_cast<uint64_t>(seed_));
    const int32_t columns = options_.kernel_height * options_.kernel_width * in_;
    input_ = Tensor({batch_, height_, width_, in_}, &random);
    weights_.rows = out_;
    weights_.columns = columns;
    dense_ = random.Floats(static_cast<size_t>(out_) * columns);
    weights_.dense = dense_.data();
    exact_weights_.assign(dense_.begin(), dense_.end());
    if (block_ > 0) {
      weights_.dense = nullptr;
      weights_.sparse = RandomMatrix(out_, columns, block_, aligned_, density_, &random, false);
      if (permuted_) weights_.sparse.row_channel = random.Permutation(out_);
      exact_weights_ = DenseOf(weights_.sparse);
    }
    biases_ = random.Floats(out_);
    weights_.bias = bias_ ? biases_.data() : nullptr;
    const Dims out_dims = {batch_, output_height(), output_width(), out_};
    ASSERT_GT(graph::Count(out_dims), 0);
    other_ = Tensor(out_dims, &random);
    // An op before a planar convolution leaves NaN between its rows.
    const Tensor image = planar_ ? MixOp::Exact({&input_}) : input_;
    const Tensor residual = residual_ == Residual::kInput   ? image
                            : residual_ == Residual::kOther ? MixOp::Exact({&other_})
                                                            : other_;
    const std::vector<ExactSum> exact = Exact(image, residual);

    for (const KernelTable* level : Levels()) {
      std::vector<float> first;
      for (int t : threads) {
        SCOPED_TRACE(::testing::Message() << level->name << ", " << t << " threads");
        const Tensor got = Run(*level, t, out_dims);
        if (::testing::Test::HasFatalFailure()) return;
        if (first.empty()) {
          first = got.data;
          for (size_t i = 0; i < exact.size(); i++) {
            if (exact[i].Admits(got.data[i])) continue;
            const size_t pixel = i / out_;
            ADD_FAILURE() << "image " << pixel / (out_dims[1] * out_dims[2]) << " y "
                          << pixel / out_dims[2] % out_dims[1] << " x " << pixel % out_dims[2] << " channel "
                          << i % out_ << " is " << got.data[i] << " instead of " << exact[i];
            return;
          }
        }
        if (tiling_ == kMeasured) continue;  // a tiling may round otherwise, and which one it is may differ
        EXPECT_TRUE(SameBits(got.data, first)) << "not what " << threads[0] << " threads computed";
      }
    }
  }

 private:
  template <class T>
  ConvTester& Set(T* field, T value) {
    *field = value;
    return *this;
  }

  std::vector<ExactSum> Exact(const Tensor& image, const Tensor& residual) const {
    const ConvOptions& o = options_;
    const int32_t top =
        pad_.top + PaddingBefore(padded_height(), o.kernel_height, o.stride_height, o.dilation_height, o.padding_same);
    const int32_t left =
        pad_.left + PaddingBefore(padded_width(), o.kernel_width, o.stride_width, o.dilation_width, o.padding_same);
    std::vector<ExactSum> sums;
    for (int32_t n = 0; n < batch_; n++) {
      for (int32_t y = 0; y < output_height(); y++) {
        for (int32_t x = 0; x < output_width(); x++) {
          for (int32_t r = 0; r < out_; r++) {
            ExactSum sum;
            if (bias_) sum.Add(biases_[r]);
            const double* weight = &exact_weights_[static_cast<size_t>(r) * weights_.columns];
            for (int32_t ky = 0; ky < o.kernel_height; ky++) {
              for (int32_t kx = 0; kx < o.kernel_width; kx++, weight += in_) {
                const int32_t from_y = y * o.stride_height + ky * o.dilation_height - top;
                const int32_t from_x = x * o.stride_width + kx * o.dilation_width - left;
                if (from_y < 0 || from_y >= height_ || from_x < 0 || from_x >= width_) continue;
                for (int32_t c = 0; c < in_; c++) {
                  if (weight[c] != 0.0) sum.Add(weight[c] * image.At(n, from_y, from_x, c));
                }
              }
            }
            if (residual_ != Residual::kNone) sum.Add(residual.At(n, y, x, r));
            // Clamps one after the other: the last one's bounds, the first one's brought into them.
            const auto bring = [&](float bound) {
              return has_last_clamp_ ? std::min(last_high_, std::max(last_low_, bound)) : bound;
            };
            sum.Clamp(bring(low_), bring(high_));
            sums.push_back(sum);
          }
        }
      }
    }
    return sums;
  }

  Tensor Run(const KernelTable& level, int threads, const Dims& out_dims) const {
    Graph graph;
    std::vector<const Tensor*> inputs = {&input_};
    int image = graph.AddInput(input_.dims);
    if (planar_) {
      const int mixed = graph.AddValue(input_.dims);
      graph.AddOp(std::make_unique<MixOp>(std::vector<int>{graph.Planar(image)}, mixed));
      image = mixed;
    }
    int residual = image;
    if (residual_ == Residual::kOther || residual_ == Residual::kOtherInterleaved) {
      inputs.push_back(&other_);
      residual = graph.Planar(graph.AddInput(out_dims));
      if (residual_ == Residual::kOther) {
        const int mixed = graph.AddValue(out_dims);
        graph.AddOp(std::make_unique<MixOp>(std::vector<int>{residual}, mixed));
        residual = mixed;
      }
    }
    int padded = image;
    Border border;
    if (pad_.any()) {
      const Dims dims = {batch_, padded_height(), padded_width(), in_};
      padded = graph.AddValue(dims, !planar_);
      auto op = std::make_unique<FusedOp>(FusedOp::Kind::kPad, std::vector<int>{image}, padded);
      op->border = pad_;
      graph.AddOp(std::move(op));
    }
    int32_t size;
    EXPECT_TRUE(ops::ConvExtent(padded_height(), options_.kernel_height, options_.stride_height,
                                options_.dilation_height, options_.padding_same, &size, &border.top, &border.bottom));
    EXPECT_EQ(size, out_dims[1]);
    EXPECT_TRUE(ops::ConvExtent(padded_width(), options_.kernel_width, options_.stride_width, options_.dilation_width,
                                options_.padding_same, &size, &border.left, &border.right));
    EXPECT_EQ(size, out_dims[2]);
    int output = graph.AddPlanarValue(out_dims);
    const bool add = residual_ != Residual::kNone;
    auto conv = std::make_unique<ops::Conv>(padded, output, options_, border, weights_, add ? -kInfinity : low_,
                                            add ? kInfinity : high_);
    graph::Tuning tuning("", "");
    EXPECT_LT(tiling_, conv->Tilings());
    if (tiling_ != kMeasured) tuning.Set(conv->TilingKey(graph), tiling_);
    graph.AddOp(std::move(conv));
    if (add) {
      const int sum = graph.AddPlanarValue(out_dims);
      const std::vector<int> operands =
          seed_ % 2 == 0 ? std::vector<int>{output, residual} : std::vector<int>{residual, output};
      auto op = std::make_unique<FusedOp>(FusedOp::Kind::kAdd, operands, sum);
      op->low = low_;
      op->high = high_;
      graph.AddOp(std::move(op));
      output = sum;
    }
    if (has_last_clamp_) {
      const int clamped = graph.AddPlanarValue(out_dims);
      auto op = std::make_unique<FusedOp>(FusedOp::Kind::kClamp, std::vector<int>{output}, clamped);
      op->low = last_low_;
      op->high = last_high_;
      graph.AddOp(std::move(op));
      output = clamped;
    }
    graph.AddOutput(output);
    std::string error;
    // What is not said at all is the first tiling.
    bool ready = graph.Prepare(level, threads, &error, tiling_ == 0 ? nullptr : &tuning);
    EXPECT_EQ(graph.NeedsTuning(), tiling_ == kMeasured);
    if (ready && tiling_ == kMeasured) {
      graph::ThreadPool pool(threads);
      ready = graph.Tune(level, &pool, &tuning, &error);
    }
    if (!ready) {
      ADD_FAILURE() << error;
      return Tensor(out_dims);
    }
    return RunTwice(&graph, inputs, {out_dims}, threads)[0];
  }

  std::string Name() const {
    const ConvOptions& o = options_;
    ::testing::Message name;
    name << batch_ << " x " << height_ << " x " << width_ << " x " << in_ << (planar_ ? " planar" : " interleaved")
         << " -> " << out_ << ", kernel " << o.kernel_height << " x " << o.kernel_width << ", stride "
         << o.stride_height << " x " << o.stride_width << ", dilation " << o.dilation_height << " x "
         << o.dilation_width << (o.padding_same ? ", same" : ", valid") << ", block " << block_
         << (aligned_ ? " aligned" : "") << (permuted_ ? " permuted" : "") << ", density " << density_ << ", clamp "
         << low_ << " to " << high_ << ", residual " << static_cast<int>(residual_) << ", pad " << pad_.top << " "
         << pad_.left << " " << pad_.bottom << " " << pad_.right << (bias_ ? ", bias" : "");
    if (has_last_clamp_) name << ", then clamp " << last_low_ << " to " << last_high_;
    return name.GetString();
  }

  ConvOptions options_;
  int32_t batch_ = 1, height_ = 5, width_ = 7, in_ = 3, out_ = 5, block_ = 4;
  bool aligned_ = false, permuted_ = false, bias_ = true, planar_ = true, has_last_clamp_ = false;
  double density_ = 0.3;
  Residual residual_ = Residual::kNone;
  Border pad_;
  int seed_ = 1, tiling_ = 0;
  float low_ = -kInfinity, high_ = kInfinity, last_low_ = 0.0f, last_high_ = 0.0f;

  Tensor input_, other_;
  std::vector<float> dense_, biases_;
  std::vector<double> exact_weights_;
  ops::Weights weights_;
};

// Kernel, stride, dilation and padding in full; what else there is to choose takes turns.
TEST(Conv, AllGeometries) {
  int seed = 0;
  for (auto [kernel_height, kernel_width] : {std::pair(1, 1), {3, 3}, {5, 5}, {1, 7}, {7, 1}, {2, 2}, {4, 3}}) {
    for (auto [stride_height, stride_width] : {std::pair(1, 1), {2, 2}, {3, 3}, {1, 2}, {2, 1}, {3, 2}, {1, 5}}) {
      for (auto [dilation_height, dilation_width] : {std::pair(1, 1), {2, 2}, {1, 3}, {4, 2}}) {
        for (bool same : {false, true}) {
          seed++;
          if (kernel_height * kernel_width == 1 && dilation_height * dilation_width > 1 && seed % 4 != 0) continue;
          if (kSlow && seed % 5 != 0) continue;
          Random random(static_cast<uint64_t>(seed));
          const int32_t blocks[] = {0, 1, 2, 4, 8};
          ConvTester tester;
          tester.image(1 + seed % 3, 1 + random.Below(18), 1 + random.Below(22))
              .channels(1 + random.Below(9), 1 + random.Below(14))
              .kernel(kernel_height, kernel_width)
              .stride(stride_height, stride_width)
              .dilation(dilation_height, dilation_width)
              .same(same)
              .block(blocks[seed % 5], random.Chance(0.3))
              .density(random.Chance(0.1) ? 0.0 : 0.4)
              .permuted(random.Chance(0.2))
              .bias(random.Chance(0.8))
              .planar(random.Chance(0.5))
              .seed(seed);
          if (random.Chance(0.3)) tester.clamp(0.0f, random.Chance(0.5) ? 6.0f : kInfinity);
          if (random.Chance(0.3)) tester.residual(ConvTester::Residual::kOther);
          if (random.Chance(0.1)) tester.residual(ConvTester::Residual::kOtherInterleaved);
          if (random.Chance(0.2)) tester.last_clamp(-0.5f, 1.0f);
          if (random.Chance(0.2)) tester.pad({random.Below(3), random.Below(3), random.Below(3), random.Below(3)});
          if (tester.output_height() < 1 || tester.output_width() < 1) {
            tester.image(2, 29, 23);  // the kernel does not fit
          }
          tester.Test({1, 2 + seed % 2});
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST(Conv, OnePixel) {
  int seed = 0;
  for (int32_t kernel : {1, 2, 3, 5}) {
    for (int32_t stride : {1, 2, 3}) {
      for (int32_t block : {0, 1, 2, 4, 8}) {
        // From one pixel, and to one pixel.
        ConvTester()
            .image(2, 1, 1)
            .channels(7, 9)
            .kernel(kernel, kernel)
            .stride(stride, stride)
            .same(true)
            .block(block)
            .planar(false)
            .seed(seed++)
            .Test({1, 2});
        ConvTester()
            .image(2, kernel, kernel)
            .channels(3, 6)
            .kernel(kernel, kernel)
            .stride(stride, stride)
            .same(false)
            .block(block)
            .planar(kernel > 1)
            .seed(seed++)
            .Test({1, 2});
      }
    }
  }
}

// One image of each remainder of every tile.
TEST(Conv, ImagesOfAllWidths) {
  for (int32_t width = 1; width <= (kSlow ? 40 : 200); width += kSlow ? 7 : 1) {
    ConvTester tester;
    tester.image(1, 1, width).channels(2, 6).same(true).block(width % 5 == 0 ? 0 : 1 << width % 4).seed(width);
    if (width % 3 == 0) tester.kernel(1, 3);
    tester.planar(width > 1).Test({1});
    if (HasFailure()) return;
  }
}

TEST(Conv, ImagesOfManyTiles) {
  for (int32_t block : {0, 1, 2, 4, 8}) {
    ConvTester tester;
    tester.image(1, 30, 41).channels(3, 10).same(true).block(block).density(0.2).seed(block);
    tester.kernel(3, 3).Test({1, 3});
    tester.kernel(1, 1).residual(ConvTester::Residual::kOther).Test({1, 3});
  }
}

// Single weights of larger kernels go through tiles of several rows of the image: rows of less than a vector up to many
// tiles of the widest, whole lines or not; few and many of them, with all kinds of borders; scratch; slices of
// channels.
TEST(Conv, TilesOfImageRows) {
  int seed = 0;
  for (int32_t width : {3, 13, 14, 15, 16, 20, 28, 31, 32, 48, 56, 63, 64, 65, 112, 127, 130, 225}) {
    for (int32_t height : {1, 2, 7, 9, 14, 17, 28}) {
      seed++;
      if (kSlow && seed % 7 != 0) continue;
      Random random(static_cast<uint64_t>(seed));
      const auto [kernel_height, kernel_width] =
          std::vector<std::pair<int32_t, int32_t>>{{3, 3}, {3, 3}, {5, 5}, {3, 1}, {1, 3}, {2, 4}}[seed % 6];
      ConvTester tester;
      tester.image(1 + seed % 2, height, width)
          .channels(1 + random.Below(width > 60 ? 4 : 40), 1 + random.Below(9))
          .kernel(kernel_height, kernel_width)
          .same(true)
          .block(1)
          .density(0.1 + 0.2 * (seed % 5))
          .permuted(seed % 7 == 0)
          .planar(seed % 5 != 0)
          .clamp(-1.0f, 2.0f)
          .seed(seed);
      tester.Test({1, 3});
      tester.residual(ConvTester::Residual::kOther).Test({1, 2});
      tester.same(false);
      if (tester.output_height() > 0 && tester.output_width() > 0) tester.Test({1, 2});
      if (height > 4) tester.stride(2, 1 + seed % 2).same(true).Test({1, 2});
      if (height > 8) tester.stride(1, 1).dilation(2, 1).Test({1, 2});
      if (HasFailure()) return;
    }
  }
}

TEST(Conv, TilesOfImageRowsInSlices) {
  for (int32_t size : {14, 28}) {
    ConvTester tester;
    const int32_t many = kSlow ? 40 : 128;
    tester.image(1, size, size).channels(many, many).kernel(3, 3).same(true).block(1).density(0.4).seed(size);
    tester.residual(ConvTester::Residual::kInput).Test({1, 3, 8});
    tester.permuted(true).residual(ConvTester::Residual::kNone).Test({1, 2});
  }
}

// Runs of a pixel more than whole vectors, which have kernels of their own, and runs that are not, in one tile and
// several.
TEST(Conv, OneMorePixel) {
  int seed = 0;
  for (auto [height, width] : std::vector<std::pair<int32_t, int32_t>>{
           {7, 7}, {1, 17}, {17, 1}, {5, 13}, {9, 9}, {3, 11}, {15, 15}, {17, 17}, {1, 81}, {1, 97}, {7, 9}, {1, 18}}) {
    for (int32_t block : {0, 2, 4, 8}) {
      seed++;
      if (kSlow && seed % 3 != 0) continue;
      ConvTester tester;
      tester.image(1 + seed % 2, height, width).channels(3 + seed % 30, 4 + 5 * (seed % 9)).block(block, seed % 5 == 0);
      tester.density(0.2 + 0.2 * (seed % 4)).permuted(seed % 3 == 0).planar(seed % 7 != 0).seed(seed);
      tester.clamp(-0.5f, 1.5f).Test({1, 3});
      tester.residual(ConvTester::Residual::kOther).Test({1, 2});
      tester.stride(2, 2).image(1, 2 * height - 1, 2 * width - 1).Test({1, 2});  // the same output
      tester.stride(1, 1).kernel(3, 3).same(true).image(1, height, width).Test({1, 2});
      if (HasFailure()) return;
    }
  }
  ConvTester slices;
  const int32_t many = kSlow ? 90 : 300;
  slices.image(1, 7, 7).channels(many, many).block(4).density(0.8).seed(seed);
  slices.residual(ConvTester::Residual::kInput).clamp(-1.0f, 2.0f).Test({1, 3});
}

// Small images, of which larger kernels gather what they meet where there are weights enough: of every level some that
// are one tile. Slices of channels too, and more threads than panels.
TEST(Conv, Gathered) {
  int seed = 0;
  for (auto [kernel_height, kernel_width] : {std::pair(3, 3), {2, 4}, {1, 3}, {5, 1}}) {
    for (auto [stride_height, stride_width] : {std::pair(1, 1), {2, 2}, {1, 2}, {3, 1}}) {
      for (auto [height, width] : {std::pair(7, 7), {8, 8}, {5, 5}, {3, 4}, {1, 17}, {6, 13}}) {
        for (int32_t block : {0, 2, 4, 8}) {
          seed++;
          if (seed % (kSlow ? 12 : 3) != 0) continue;
          ConvTester tester;
          // Of about the output's size.
          tester.image(1 + seed % 2, height * stride_height - seed % stride_height, width * stride_width)
              .channels(seed % 4 == 0 ? 70 : 1 + seed % 11, 70 + seed % 30)
              .kernel(kernel_height, kernel_width)
              .stride(stride_height, stride_width)
              .block(block, seed % 5 == 0)
              .density(seed % 7 == 0 ? 0.3 : 0.9)
              .permuted(seed % 4 == 0)
              .same(seed % 13 != 0)
              .seed(seed);
          if (seed % 2 == 0) tester.dilation(1 + seed % 4, 1 + seed % 3);
          if (seed % 3 == 1) tester.residual(ConvTester::Residual::kOther).clamp(-0.5f, 1.5f);
          if (seed % 11 == 0) tester.pad({seed % 3, 1, seed % 2, 2});
          if (seed % 17 == 0) tester.pad({1, 2 * width + 1, 0, width + 2});  // wider than the image
          if (tester.output_height() < 1 || tester.output_width() < 1) tester.same(true);
          tester.Test({1, 2, 3, 8});
          if (HasFailure()) return;
        }
      }
    }
  }
}

// More channels than the first-level cache holds planes' tiles of: slices of them, one after the other.
TEST(Conv, ManyChannels) {
  int seed = 0;
  for (int32_t block : {0, 1, 2, 4, 8}) {
    for (int32_t stride : {1, 2}) {
      seed++;
      ConvTester tester;
      tester.image(1 + seed % 2, 9, 11).channels(kSlow ? 90 : 150, 11).kernel(3, 3).stride(stride, stride).same(true);
      tester.block(block, seed % 3 == 0).density(0.8).permuted(seed % 4 == 0).planar(seed % 5 != 0).seed(seed);
      tester.clamp(-1.0f, 2.0f).Test({1, 3});
      tester.residual(ConvTester::Residual::kOther).Test({1, 2});
      if (stride == 1) {
        const int32_t many = kSlow ? 90 : 150;
        tester.channels(many, many).planar(true).residual(ConvTester::Residual::kInput).Test({2});
      }
      if (HasFailure()) return;
    }
  }
}

TEST(Conv, ThreadsDoNotChangeABit) {
  int seed = 0;
  for (int32_t block : {0, 1, 2, 4, 8}) {
    for (int32_t size : {2, 5, 14}) {
      for (int32_t kernel : {1, 3}) {
        // Rows enough for panels; more threads than panels; less pixels than threads.
        ConvTester tester;
        tester.image(1 + seed % 2, size, size)
            .channels(5, 64 + 7 * size)
            .kernel(kernel, kernel)
            .same(true)
            .block(block);
        tester.density(kSlow ? 0.1 : 0.3).residual(ConvTester::Residual::kOther).permuted(size == 5).seed(seed++);
        tester.Test({1, 2, 3, 8});
        tester.stride(2, 2).planar(false).Test({1, 2, 3, 8});
        if (HasFailure()) return;
      }
    }
  }
}

// Images with lines enough for a share a thread, or weights so few that they are shared by pixels as well; with one
// pixel more than whole vectors, and with fewer vectors than shares.
TEST(Conv, SharedPixels) {
  int seed = 0;
  for (int32_t block : {0, 1, 4}) {
    for (int32_t kernel : {1, 3}) {
      for (int32_t size : {7, 13, 14, 33}) {
        if (kSlow && size == 33 && kernel == 3) continue;
        ConvTester tester;
        tester.image(1 + seed % 2, size, size).channels(40, 6).kernel(kernel, kernel).same(true).block(block);
        tester.residual(ConvTester::Residual::kOther).seed(seed++);
        tester.Test({1, 2, 3, 8});
        tester.channels(3, kSlow ? 40 : 130).planar(false).Test({1, 2, 3, 8});
        tester.image(1, 2 * size, 2 * size + 1).stride(2, 2).Test({1, 2, 5});
        if (HasFailure()) return;
      }
    }
  }
}

TEST(Conv, Tilings) {
  const int tilings = ops::Conv(0, 1, ConvOptions(), Border(), ops::Weights(), 0.0f, 0.0f).Tilings();
  EXPECT_GT(tilings, 1);
  for (int tiling = ConvTester::kMeasured; tiling < tilings; tiling++) {
    for (int block : {0, 1, 4}) {
      ConvTester tester;
      tester.image(1, 9, 11).channels(150, 9).kernel(3, 3).same(true).block(block).density(0.6).tiling(tiling);
      tester.Test({1, 3});
      tester.image(2, 9, 8).channels(70, 6).stride(2, 2).residual(ConvTester::Residual::kOther).Test({1, 2});
    }
  }
}

TEST(Conv, Residuals) {
  int seed = 0;
  for (int32_t block : {0, 4}) {
    for (int32_t kernel : {1, 3}) {
      for (int32_t batch : {1, 2}) {
        ConvTester tester;
        tester.image(batch, 6, 9).channels(8, 8).kernel(kernel, kernel).same(true).block(block);
        for (auto residual :
             {ConvTester::Residual::kInput, ConvTester::Residual::kOther, ConvTester::Residual::kOtherInterleaved}) {
          tester.residual(residual).clamp(-kInfinity, kInfinity).seed(seed++).Test({1, 2});
          tester.clamp(0.0f, 6.0f).seed(seed++).Test({1, 2});
        }
      }
    }
  }
}

TEST(Conv, Clamps) {
  const float bounds[][2] = {{0.0f, kInfinity}, {0.0f, 6.0f},    {-1.0f, 1.0f},     {-kInfinity, kInfinity},
                             {0.25f, 0.5f},     {-0.5f, -0.25f}, {-kInfinity, 0.0f}};
  int seed = 0;
  for (const auto& first : bounds) {
    ConvTester().clamp(first[0], first[1]).seed(seed++).Test({1});
    for (const auto& last : bounds) {
      ConvTester tester;
      tester.clamp(first[0], first[1]).last_clamp(last[0], last[1]).seed(seed++).Test({1});
      tester.residual(ConvTester::Residual::kOther).Test({1});
    }
  }
}

TEST(Conv, Pads) {
  int seed = 0;
  for (const Border& pad : {Border{1, 1, 1, 1}, {0, 0, 1, 1}, {0, 1, 0, 0}, {2, 0, 0, 3}, {4, 4, 4, 4}}) {
    for (int32_t kernel : {1, 2, 3, 5}) {
      for (int32_t stride : {1, 2}) {
        for (bool same : {false, true}) {
          for (bool planar : {false, true}) {
            ConvTester()
                .image(1 + seed % 2, 6, 8)
                .kernel(kernel, kernel)
                .stride(stride, stride)
                .same(same)
                .pad(pad)
                .planar(planar)
                .block(seed % 3 == 0 ? 0 : 4)
                .seed(seed)
                .Test({1, 2});
            seed++;
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

// Two in a row: what the first leaves between its rows is where the second looks for zeros.
TEST(Conv, OneAfterTheOther) {
  Random random(5);
  for (int32_t batch : {1, 2}) {
    for (const auto& [height, width] : {std::pair(6, 9), {15, 30}, {1, 5}}) {
      const Dims dims = {batch, height, width, 6};
      const Tensor input(dims, &random);
      ConvOptions options;
      options.kernel_height = options.kernel_width = 3;
      options.padding_same = true;
      const std::vector<float> weights = random.Floats(size_t{6} * 54), bias = random.Floats(6);
      std::vector<double> expected;
      Tensor middle(dims), exact(dims);
      const auto convolve = [&](const Tensor& in, Tensor* out) {
        View(WindowOp::AsValue(in), nullptr).ForEach([&](int32_t n, int32_t y, int32_t x, int32_t r) {
          double sum = bias[r];
          for (int32_t k = 0; k < 54; k++) {
            const int32_t from_y = y + k / 18 - 1, from_x = x + k / 6 % 3 - 1;
            if (from_y < 0 || from_y >= in.dims[1] || from_x < 0 || from_x >= in.dims[2]) continue;
            sum += static_cast<double>(weights[static_cast<size_t>(r) * 54 + k]) * in.At(n, from_y, from_x, k % 6);
          }
          out->At(n, y, x, r) = static_cast<float>(sum);
        });
      };
      convolve(input, &middle);
      convolve(middle, &exact);
      for (const KernelTable* level : Levels()) {
        Graph graph;
        int value = graph.AddInput(dims);
        for (int i = 0; i < 2; i++) {
          const int output = graph.AddValue(dims);
          ops::Weights w;
          w.dense = weights.data();
          w.rows = 6;
          w.columns = 54;
          w.bias = bias.data();
          graph.AddOp(std::make_unique<ops::Conv>(graph.Planar(value), output, options, Border{1, 1, 1, 1}, w,
                                                  -kInfinity, kInfinity));
          value = output;
        }
        graph.AddOutput(value);
        std::string error;
        ASSERT_TRUE(graph.Prepare(*level, 2, &error)) << error;
        const Tensor got = RunTwice(&graph, {&input}, {dims}, 2)[0];
        for (size_t i = 0; i < exact.data.size(); i++) ASSERT_NEAR(got.data[i], exact.data[i], 1e-3) << level->name;
      }
    }
  }
}

// A part of a concatenation has its images further apart than a value of its own.
TEST(Conv, PartsOfConcatenations) {
  Random random(6);
  const Dims dims = {3, 4, 5, 8}, whole = {3, 4, 5, 16};
  const Tensor a(dims, &random), b(dims, &random);
  const std::vector<float> weights = random.Floats(64);
  // b * W + a, where a, or the sum, or both are made where they will stand in a concatenation.
  for (bool residual_in_part : {false, true}) {
    for (bool sum_in_part : {false, true}) {
      SCOPED_TRACE(::testing::Message() << residual_in_part << sum_in_part);
      Graph graph;
      const int in_a = graph.AddInput(dims), in_b = graph.AddInput(dims);
      const int residual = graph.AddValue(dims), output = graph.AddValue(dims), sum = graph.AddValue(dims);
      graph.AddOp(std::make_unique<MixOp>(std::vector<int>{in_a}, residual));
      ops::Weights w;
      w.dense = weights.data();
      w.rows = w.columns = 8;
      graph.AddOp(
          std::make_unique<ops::Conv>(graph.Planar(in_b), output, ConvOptions(), Border(), w, -kInfinity, kInfinity));
      graph.AddOp(std::make_unique<FusedOp>(FusedOp::Kind::kAdd, std::vector<int>{residual, output}, sum));
      graph.AddOutput(sum);
      if (residual_in_part) {
        const int other = graph.AddValue(dims), both = graph.AddValue(whole);
        graph.AddOp(std::make_unique<MixOp>(std::vector<int>{in_b}, other));
        graph.AddOp(std::make_unique<ConcatenationOp>(std::vector<int>{other, residual}, both));
        graph.AddOutput(both);
      }
      if (sum_in_part) {
        const int other = graph.AddValue(dims), both = graph.AddValue(whole);
        graph.AddOp(std::make_unique<MixOp>(std::vector<int>{in_a}, other));
        graph.AddOp(std::make_unique<ConcatenationOp>(std::vector<int>{other, sum}, both));
        graph.AddOutput(both);
      }
      std::string error;
      ASSERT_TRUE(graph.Prepare(*Levels()[0], 1, &error)) << error;
      std::vector<Dims> output_dims = {dims};
      while (output_dims.size() < graph.output_count()) output_dims.push_back(whole);
      const Tensor got = RunTwice(&graph, {&a, &b}, output_dims, 1)[0];
      const Tensor mixed = MixOp::Exact({&a});
      for (size_t i = 0; i < got.data.size(); i++) {
        double exact = mixed.data[i];
        for (size_t c = 0; c < 8; c++) exact += static_cast<double>(weights[i % 8 * 8 + c]) * b.data[i / 8 * 8 + c];
        ASSERT_NEAR(got.data[i], exact, 1e-5) << i;
      }
    }
  }
}

TEST(ConvExtent, IsTensorFlows) {
  for (int32_t input = 1; input <= 20; input++) {
    for (int32_t kernel = 1; kernel <= 7; kernel++) {
      for (int32_t stride = 1; stride <= 5; stride++) {
        for (int32_t dilation = 1; dilation <= 4; dilation++) {
          for (bool same : {false, true}) {
            int32_t output = 0, before = 0, after = 0;
            const int32_t expected = OutputSize(input, kernel, stride, dilation, same);
            ASSERT_EQ(ops::ConvExtent(input, kernel, stride, dilation, same, &output, &before, &after), expected > 0);
            if (expected <= 0) continue;
            EXPECT_EQ(output, expected);
            EXPECT_EQ(before, PaddingBefore(input, kernel, stride, dilation, same));
            const int32_t reach = (kernel - 1) * dilation + 1;
            if (same) {
              EXPECT_EQ(after, std::max(0, (expected - 1) * stride + reach - input - before));
            } else {
              EXPECT_EQ(after, 0);
            }
          }
        }
      }
    }
  }
}

TEST(ConvExtent, RefusesWhatDoesNotFit) {
  int32_t output, before, after;
  EXPECT_FALSE(ops::ConvExtent(0, 1, 1, 1, true, &output, &before, &after));
  EXPECT_FALSE(ops::ConvExtent(5, 6, 1, 1, false, &output, &before, &after));
  EXPECT_FALSE(ops::ConvExtent(5, 1 << 30, 1, 1 << 30, false, &output, &before, &after));
  EXPECT_FALSE(ops::ConvExtent(5, 1 << 30, 1, 1 << 30, true, &output, &before, &after));
  EXPECT_TRUE(ops::ConvExtent(INT32_MAX, 3, 1, 1, true, &output, &before, &after));
  EXPECT_EQ(output, INT32_MAX);
}

// The largest kernel, dilation and stride that an op may have: no plane of that size can be addressed, and no
// multiplication on the way may overflow.
TEST(Conv, RefusesPlanesThatCannotBeAddressed) {
  for (int32_t stride : {1, 2}) {
    for (int32_t dilation : {1, 4096}) {
      ConvOptions options;
      options.kernel_height = options.kernel_width = 4096;
      options.stride_height = options.stride_width = stride;
      options.dilation_height = options.dilation_width = dilation;
      options.padding_same = true;
      Graph graph;
      const int input = graph.AddInput({1, 3, 3, 1});
      Border border;
      int32_t size;
      ASSERT_TRUE(ops::ConvExtent(3, 4096, stride, dilation, true, &size, &border.top, &border.bottom));
      ASSERT_TRUE(ops::ConvExtent(3, 4096, stride, dilation, true, &size, &border.left, &border.right));
      const int output = graph.AddPlanarValue({1, size, size, 1});
      ops::Weights weights;
      weights.rows = 1;
      weights.columns = 4096 * 4096;
      weights.sparse.rows = 1;
      weights.sparse.columns = weights.columns;
      weights.sparse.block = 1;
      weights.sparse.block_row = {0};
      weights.sparse.block_column = {weights.columns - 1};
      weights.sparse.values = {1.0f};
      graph.AddOp(std::make_unique<ops::Conv>(stride == 1 ? graph.Planar(input) : input, output, options, border,
                                              weights, -kInfinity, kInfinity));
      graph.AddOutput(output);
      std::string error;
      const bool prepared = graph.Prepare(*Levels()[0], 1, &error);
      EXPECT_EQ(prepared, dilation == 1) << error;
      EXPECT_EQ(prepared, error.empty());
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
