// Which pixels are not made because nobody reads them, by ops that only say what they read; and networks with strides,
// against nested loops over whole images.
#include "tflite_delegate/graph/unread_pixels.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/graph_testing.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/ops/conv.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Graph;
using graph::Op;
using graph::Pixels;
using kernels::KernelTable;

constexpr float kInfinity = __builtin_huge_valf();

// Reads every `stride`-th pixel of its first input; takes over a stride if `takes`.
class FakeOp : public Op {
 public:
  FakeOp(std::vector<int> op_inputs, int op_output, int32_t stride, bool takes)
      : Op(std::move(op_inputs), op_output), stride_(stride), takes_(takes) {}
  const char* name() const override { return "op"; }
  bool Prepare(const Graph&, const KernelTable&, int) override { return true; }
  void Run(const graph::RunContext&) const override {}
  Pixels Reads(int value) const override {
    return value == inputs[0] && std::count(inputs.begin(), inputs.end(), value) == 1 ? Pixels{stride_, stride_}
                                                                                      : Pixels{};
  }
  void ReadAll() override { stride_ = 1; }
  bool MakeOnly(const Pixels& pixels) override {
    if (takes_) stride_ *= pixels.down;
    return takes_;
  }

 private:
  int32_t stride_;
  bool takes_;
};

class UnreadPixelsTest : public ::testing::Test {
 public:
  UnreadPixelsTest() : values_(20) {
    for (graph::Value& value : values_) {
      value.dims = {1, 17, 33, 2};
      value.layout = graph::Layout::kPlanar;
    }
  }
  // Values are small numbers; 0 is what comes from outside.
  UnreadPixelsTest& Add(std::vector<int> inputs, int output, int32_t stride = 1, bool takes = false) {
    ops_.push_back(std::make_unique<FakeOp>(std::move(inputs), output, stride, takes));
    return *this;
  }
  UnreadPixelsTest& Taker(std::vector<int> inputs, int output, int32_t stride = 1) {
    return Add(std::move(inputs), output, stride, true);
  }

  // One word an op: its name, the stride it has now, its inputs and its output. Values from 20 on are new.
  std::string Thinned(const std::vector<int>& outputs) {
    graph::SkipUnreadPixels(&ops_, &values_, outputs);
    std::string text;
    for (const auto& op : ops_) {
      const int32_t stride = op->Reads(op->inputs[0]).down;
      text += (text.empty() ? "" : " ") + std::string(op->name());
      if (stride > 1) text += "/" + std::to_string(stride);
      text += "(";
      for (size_t i = 0; i < op->inputs.size(); i++) text += (i > 0 ? "," : "") + std::to_string(op->inputs[i]);
      text += ")" + std::to_string(op->output);
    }
    return text;
  }

 protected:
  std::vector<graph::Value> values_;
  std::vector<std::unique_ptr<Op>> ops_;
};

TEST_F(UnreadPixelsTest, NothingToThin) {
  EXPECT_EQ(Thinned({}), "");
  EXPECT_EQ(Taker({0}, 1).Taker({1}, 2).Thinned({2}), "op(0)1 op(1)2");
}

TEST_F(UnreadPixelsTest, TheMakerTakesOverTheStride) {
  EXPECT_EQ(Add({0}, 1).Taker({1}, 2, 3).Add({2}, 3, 2).Thinned({3}), "op(0)1 pick(1)21 op(21)20 op(20)3");
  EXPECT_EQ(values_[20].dims, (graph::Dims{1, 9, 17, 2}));
  EXPECT_EQ(values_[21].dims, (graph::Dims{1, 3, 6, 2}));
}

TEST_F(UnreadPixelsTest, AllReadersTheSame) {
  EXPECT_EQ(Taker({0}, 1).Add({1}, 2, 2).Add({1}, 3, 2).Thinned({2, 3}), "op/2(0)20 op(20)2 op(20)3");
}

TEST_F(UnreadPixelsTest, PickedOnceForAllThatReadTheSame) {
  EXPECT_EQ(Add({0}, 1).Add({1}, 2, 2).Add({1}, 3, 3).Add({1}, 4, 2).Thinned({2, 3, 4}),
            "op(0)1 pick(1)20 pick(1)21 op(20)2 op(21)3 op(20)4");
}

TEST_F(UnreadPixelsTest, SomeReadAll) {
  EXPECT_EQ(Taker({0}, 1).Add({1}, 2, 2).Add({1}, 3).Thinned({2, 3}), "op(0)1 pick(1)20 op(20)2 op(1)3");
}

TEST_F(UnreadPixelsTest, AResultStays) {
  EXPECT_EQ(Taker({0}, 1).Add({1}, 2, 2).Thinned({1, 2}), "op(0)1 pick(1)20 op(20)2");
}

TEST_F(UnreadPixelsTest, WhatIsAddedIsPicked) {
  EXPECT_EQ(Add({0}, 1).Add({1}, 2).Taker({2, 1}, 3).Add({3}, 4, 2).Thinned({4}),
            "op(0)1 pick(1)21 op(1)2 pick(2)22 op(22,21)20 op(20)4");
}

// A residual whose maker can take over the stride as well, as nobody else reads it.
TEST_F(UnreadPixelsTest, WhatIsAddedIsNotMade) {
  EXPECT_EQ(Taker({0}, 1).Add({0}, 2).Taker({2, 1}, 3).Add({3}, 4, 2).Thinned({4}),
            "op/2(0)21 op(0)2 pick(2)22 op(22,21)20 op(20)4");
}

TEST_F(UnreadPixelsTest, AnInputReadTwice) {
  EXPECT_EQ(Add({0}, 1).Taker({1, 1}, 2).Add({2}, 3, 2).Thinned({3}), "op(0)1 pick(1)21 op(21,21)20 op(20)3");
}

TEST_F(UnreadPixelsTest, NotToOnePixel) { EXPECT_EQ(Taker({0}, 1).Add({1}, 2, 33).Thinned({2}), "op(0)1 op/33(1)2"); }

TEST_F(UnreadPixelsTest, InterleavedImagesAreLeftAlone) {
  values_[1].layout = graph::Layout::kInterleaved;
  EXPECT_EQ(Taker({0}, 1).Add({1}, 2, 2).Thinned({2}), "op(0)1 op/2(1)2");
}

// A convolution with a square kernel, padded by half of it, of value `input` and with value `residual` added. Value 0
// is the network's input; the output of layer i is value i + 1.
struct Layer {
  int input;
  int32_t kernel, stride, channels;
  int residual = -1;
};

struct Network {
  std::vector<Layer> layers;
  std::vector<int> outputs;
  std::vector<Dims> dims;
  std::vector<std::vector<float>> weights, bias;

  Network(Dims input, std::vector<Layer> all, std::vector<int> results, Random* random)
      : layers(std::move(all)), outputs(std::move(results)), dims({std::move(input)}) {
    for (const Layer& layer : layers) {
      const Dims& in = dims[layer.input];
      const int32_t fan_in = layer.kernel * layer.kernel * in[3];
      weights.push_back(random->Floats(static_cast<size_t>(fan_in) * layer.channels));
      for (float& w : weights.back()) w /= static_cast<float>(fan_in);
      bias.push_back(random->Floats(layer.channels));
      dims.push_back({in[0], (in[1] - 1) / layer.stride + 1, (in[2] - 1) / layer.stride + 1, layer.channels});
    }
  }

  std::vector<Tensor> Expected(const Tensor& input) const {
    std::vector<Tensor> all = {input};
    for (size_t l = 0; l < layers.size(); l++) {
      const Layer& layer = layers[l];
      const Tensor& in = all[layer.input];
      Tensor out(dims[l + 1]);
      const int32_t k = layer.kernel;
      View(WindowOp::AsValue(out), out.data.data()).ForEach([&](int32_t n, int32_t y, int32_t x, int32_t r) {
        double sum = bias[l][r];
        for (int32_t ky = 0; ky < k; ky++) {
          for (int32_t kx = 0; kx < k; kx++) {
            const int32_t from_y = y * layer.stride + ky - k / 2, from_x = x * layer.stride + kx - k / 2;
            if (from_y < 0 || from_y >= in.dims[1] || from_x < 0 || from_x >= in.dims[2]) continue;
            for (int32_t c = 0; c < in.dims[3]; c++) {
              sum += static_cast<double>(weights[l][((static_cast<size_t>(r) * k + ky) * k + kx) * in.dims[3] + c]) *
                     in.At(n, from_y, from_x, c);
            }
          }
        }
        if (layer.residual >= 0) sum += all[layer.residual].At(n, y, x, r);
        out.At(n, y, x, r) = static_cast<float>(std::max(sum, -0.25));
      });
      all.push_back(std::move(out));
    }
    return all;
  }

  void Build(Graph* graph) const {
    std::vector<int> values = {graph->AddInput(dims[0])};
    for (size_t l = 0; l < layers.size(); l++) {
      const Layer& layer = layers[l];
      const int32_t pad = layer.kernel / 2, input = graph->Planar(values[layer.input]);
      ConvOptions options;
      options.kernel_height = options.kernel_width = layer.kernel;
      options.stride_height = options.stride_width = layer.stride;
      ops::Weights w;
      w.dense = weights[l].data();
      w.rows = layer.channels;
      w.columns = layer.kernel * layer.kernel * dims[layer.input][3];
      w.bias = bias[l].data();
      values.push_back(graph->AddPlanarValue(dims[l + 1]));
      const bool adds = layer.residual >= 0;
      auto conv = std::make_unique<ops::Conv>(input, values.back(), options, Border{pad, pad, pad, pad}, w,
                                              adds ? -kInfinity : -0.25f, kInfinity);
      if (adds) conv->FuseResidual(values[layer.residual], -0.25f, kInfinity);
      graph->AddOp(std::move(conv));
    }
    for (int v : outputs) graph->AddOutput(values[v]);
  }

  // Pixels that convolutions make, in all.
  int64_t Pixels(const Graph& graph) const {
    int64_t pixels = 0;
    for (const auto& op : graph.ops()) {
      const Dims& made = graph.value(op->output).dims;
      if (std::string(op->name()) == "conv") pixels += made[0] * made[1] * made[2];
    }
    return pixels;
  }

  // And makes so many pixels, if that is known.
  void Test(int64_t pixels, Random* random) const {
    const Tensor input(dims[0], random);
    const std::vector<Tensor> expected = Expected(input);
    std::vector<Dims> results;
    for (int v : outputs) results.push_back(dims[v]);
    for (const KernelTable* level : Levels()) {
      std::vector<Tensor> whole;
      // Layer by layer, in bands, and in shares of these.
      for (int shares : {0, 1, 2, 5}) {
        const int threads = std::max(1, shares);
        Graph graph;
        Build(&graph);
        if (shares > 0) graph.SetBandLimits({2 << 10, 1, 1, 0});
        std::string error;
        ASSERT_TRUE(graph.Prepare(*level, threads, &error)) << error;
        if (pixels >= 0) {
          ASSERT_EQ(Pixels(graph), pixels);
        }
        const std::vector<Tensor> got = RunTwice(&graph, {&input}, results, threads);
        for (size_t k = 0; k < outputs.size(); k++) {
          const std::vector<float>& exact = expected[outputs[k]].data;
          for (size_t i = 0; i < exact.size(); i++) {
            ASSERT_NEAR(got[k].data[i], exact[i], 1e-5) << level->name << ", " << threads << " threads, " << dims[0][1]
                                                        << "x" << dims[0][2] << ", output " << k << " at " << i;
          }
          if (!whole.empty()) {
            ASSERT_EQ(got[k].data, whole[k].data) << level->name << ", " << threads << " threads";
          }
        }
        if (whole.empty()) whole = got;
      }
    }
  }
};

// Two blocks of a ResNet with strides in the first convolutions of the second, for images of any size.
TEST(UnreadPixels, ResidualBlocks) {
  Random random(1);
  for (int32_t height : {1, 2, 3, 7, 14, 28}) {
    for (int32_t width : {2, 5, 8, 15, 16, 33, 56}) {
      const int64_t all = height * width, thin = (height + 1) / 2 * ((width + 1) / 2);
      const bool thins = thin > 1;  // an image of one pixel has another layout
      Network({1, height, width, 5},
              {{0, 1, 1, 7},      // 1
               {1, 1, 1, 4},      // 2
               {2, 3, 1, 6},      // 3: every other pixel
               {3, 1, 1, 7, 1},   // 4: every other pixel
               {4, 1, 2, 9},      // 5
               {4, 1, 2, 6},      // 6
               {6, 3, 1, 6},      // 7
               {7, 1, 1, 9, 5}},  // 8
              {8}, &random)
          .Test(thins ? 2 * all + 6 * thin : 4 * all + 4 * thin, &random);
    }
  }
}

TEST(UnreadPixels, StridesMultiply) {
  Random random(2);
  Network({2, 30, 41, 3}, {{0, 5, 1, 4}, {1, 1, 2, 5}, {2, 1, 3, 6}}, {3}, &random).Test(2 * 3 * 5 * 7, &random);
  Network({2, 30, 41, 3}, {{0, 3, 2, 4}, {1, 1, 2, 5}, {2, 3, 1, 6}, {3, 1, 2, 5}}, {4}, &random)
      .Test(2 * (8 * 11 + 8 * 11 + 2 * 4 * 6), &random);
  // Too large a stride to take over.
  Network({1, 90, 90, 3}, {{0, 3, 3, 4}, {1, 1, 3, 5}}, {2}, &random).Test(30 * 30 + 10 * 10, &random);
}

TEST(UnreadPixels, OthersReadThem) {
  Random random(3);
  // A result, a layer that reads all, and readers of different strides.
  Network({1, 21, 19, 3}, {{0, 3, 1, 4}, {1, 1, 2, 5}}, {1, 2}, &random).Test(21 * 19 + 11 * 10, &random);
  Network({1, 21, 19, 3}, {{0, 3, 1, 4}, {1, 1, 2, 5}, {1, 3, 1, 3}, {1, 1, 3, 2}}, {2, 3, 4}, &random)
      .Test(2 * 21 * 19 + 11 * 10 + 7 * 7, &random);
}

TEST(UnreadPixels, RandomNetworks) {
  Random random(4);
  for (int round = 0; round < (kSlow ? 20 : 200); round++) {
    SCOPED_TRACE(round);
    std::vector<Dims> dims = {{1 + random.Below(2), 1 + random.Below(20), 2 + random.Below(30), 3}};
    std::vector<Layer> layers;
    for (int l = 2 + random.Below(7); l > 0; l--) {
      // Mostly of what is last, so that there are chains.
      const int count = static_cast<int>(dims.size()), input = random.Chance(0.6) ? count - 1 : random.Below(count);
      const Dims& in = dims[input];
      Layer layer = {input, random.Chance(0.6) ? 1 : 3, 1 + random.Below(3), 2 + random.Below(3)};
      const Dims out = {in[0], (in[1] - 1) / layer.stride + 1, (in[2] - 1) / layer.stride + 1, layer.channels};
      for (int v = 1; v < count; v++) {
        if (dims[v] == out && random.Chance(0.7)) layer.residual = v;
      }
      layers.push_back(layer);
      dims.push_back(out);
    }
    std::vector<int> results = {static_cast<int>(layers.size())};
    for (int v = 1; v < results[0]; v++) {
      if (random.Chance(0.2)) results.push_back(v);
    }
    Network(dims[0], layers, results, &random).Test(-1, &random);
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
