// Images too large for a cache, which the graph runs band by band, against nested loops over whole images.
#include "tflite_delegate/graph/bands.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/graph_testing.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/depthwise_conv.h"
#include "tflite_delegate/ops/pool.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Bands;
using graph::Graph;
using graph::Group;
using graph::Step;
using kernels::KernelTable;

constexpr float kInfinity = __builtin_huge_valf();

enum Kind { kConv, kSparseConv, kDepthwise, kMaxPool, kAveragePool };

// One layer of a chain: a square kernel, padded by half of it.
struct Layer {
  Kind kind;
  int32_t kernel, stride, channels;
  bool residual = false;  // adds the layer's input
};

LoweredMatrix SingleWeights(const std::vector<float>& dense, int32_t rows) {
  LoweredMatrix matrix;
  matrix.rows = rows;
  matrix.columns = static_cast<int32_t>(dense.size()) / rows;
  matrix.block = 1;
  for (int32_t i = 0; i < static_cast<int32_t>(dense.size()); i++) {
    if (dense[i] == 0.0f) continue;
    matrix.block_row.push_back(i / matrix.columns);
    matrix.block_column.push_back(i % matrix.columns);
    matrix.values.push_back(dense[i]);
  }
  return matrix;
}

struct Chain {
  Dims dims;
  std::vector<Layer> layers;
  std::vector<std::vector<float>> weights, bias;
  std::vector<Dims> out;

  Chain(Dims input, std::vector<Layer> chain, Random* random) : dims(std::move(input)), layers(std::move(chain)) {
    Dims in = dims;
    for (const Layer& layer : layers) {
      const int32_t fan_in =
          layer.kernel * layer.kernel * (layer.kind == kConv || layer.kind == kSparseConv ? in[3] : 1);
      weights.push_back(random->Floats(static_cast<size_t>(fan_in) * layer.channels));
      for (float& w : weights.back()) {
        w = layer.kind == kSparseConv && random->Chance(0.6) ? 0.0f : w / static_cast<float>(fan_in);
      }
      bias.push_back(random->Floats(layer.channels));
      const int32_t pad = layer.kernel / 2 * 2;
      in = {in[0], (in[1] + pad - layer.kernel) / layer.stride + 1, (in[2] + pad - layer.kernel) / layer.stride + 1,
            layer.channels};
      out.push_back(in);
    }
  }

  Tensor Expected(const Tensor& input) const {
    Tensor in = input;
    for (size_t l = 0; l < layers.size(); l++) {
      const Layer& layer = layers[l];
      Tensor to(out[l]);
      const int32_t channels = in.dims[3], k = layer.kernel;
      for (int32_t y = 0; y < to.dims[1]; y++) {
        for (int32_t x = 0; x < to.dims[2]; x++) {
          for (int32_t r = 0; r < layer.channels; r++) {
            const bool pools = layer.kind == kMaxPool || layer.kind == kAveragePool;
            double sum = pools ? 0.0 : bias[l][r], most = -kInfinity;
            int32_t pixels = 0;
            for (int32_t ky = 0; ky < k; ky++) {
              for (int32_t kx = 0; kx < k; kx++) {
                const int32_t from_y = y * layer.stride + ky - k / 2, from_x = x * layer.stride + kx - k / 2;
                if (from_y < 0 || from_y >= in.dims[1] || from_x < 0 || from_x >= in.dims[2]) continue;
                if (pools) {
                  sum += in.At(0, from_y, from_x, r);
                  most = std::max<double>(most, in.At(0, from_y, from_x, r));
                  pixels++;
                  continue;
                }
                if (layer.kind == kDepthwise) {
                  sum +=
                      static_cast<double>(weights[l][(ky * k + kx) * layer.channels + r]) * in.At(0, from_y, from_x, r);
                  continue;
                }
                const float* w = &weights[l][((static_cast<size_t>(r) * k + ky) * k + kx) * channels];
                const float* pixel = &in.data[in.Index(0, from_y, from_x, 0)];
                for (int32_t c = 0; c < channels; c++) sum += static_cast<double>(w[c]) * pixel[c];
              }
            }
            if (layer.kind == kMaxPool) sum = most;
            if (layer.kind == kAveragePool) sum /= pixels;
            if (layer.residual) sum += in.At(0, y, x, r);
            to.At(0, y, x, r) = static_cast<float>(sum);
          }
        }
      }
      in = std::move(to);
    }
    return in;
  }

  void Build(Graph* graph) const {
    int value = graph->AddInput(dims);
    int32_t channels = dims[3];
    for (size_t l = 0; l < layers.size(); l++) {
      const Layer& layer = layers[l];
      const int32_t pad = layer.kernel / 2;
      const Border border = {pad, pad, pad, pad};
      const int output = graph->AddValue(out[l]);
      if (layer.kind == kMaxPool || layer.kind == kAveragePool) {
        ops::PoolOptions options;
        options.maximum = layer.kind == kMaxPool;
        options.window_height = options.window_width = layer.kernel;
        options.stride_height = options.stride_width = layer.stride;
        graph->AddOp(
            std::make_unique<ops::PoolOp>(graph->Planar(value), output, options, border, -kInfinity, kInfinity));
      } else if (layer.kind == kDepthwise) {
        ops::DepthwiseOptions options;
        options.kernel_height = options.kernel_width = layer.kernel;
        options.stride_height = options.stride_width = layer.stride;
        graph->AddOp(std::make_unique<ops::DepthwiseConv>(graph->Planar(value), output, options, border,
                                                          weights[l].data(), bias[l].data(), -kInfinity, kInfinity));
      } else {
        ConvOptions options;
        options.kernel_height = options.kernel_width = layer.kernel;
        options.stride_height = options.stride_width = layer.stride;
        ops::Weights w;
        if (layer.kind == kConv) w.dense = weights[l].data();
        if (layer.kind == kSparseConv) w.sparse = SingleWeights(weights[l], layer.channels);
        w.rows = layer.channels;
        w.columns = layer.kernel * layer.kernel * channels;
        w.bias = bias[l].data();
        auto conv = std::make_unique<ops::Conv>(value, output, options, border, w, -kInfinity, kInfinity);
        if (layer.residual) conv->FuseResidual(value, -kInfinity, kInfinity);
        graph->AddOp(std::move(conv));
      }
      value = output;
      channels = layer.channels;
    }
    graph->AddOutput(value);
  }

  void Test(Random* random) const {
    const Tensor input(dims, random);
    const Tensor expected = Expected(input);
    for (const KernelTable* level : Levels()) {
      Tensor one_thread;
      struct Case {
        int threads;
        int64_t shared;
      };
      // One thread, threads that share rows of groups, and threads that share ops.
      std::vector<Case> cases = {{1, 0}, {2, 0}};
      if (!kSlow) cases.insert(cases.end(), {{5, 0}, {3, INT64_MAX}});
      for (const auto& [threads, shared] : cases) {
        Graph graph;
        Build(&graph);
        graph::BandLimits limits;
        limits.shared = shared;
        graph.SetBandLimits(limits);
        std::string error;
        ASSERT_TRUE(graph.Prepare(*level, threads, &error)) << error;
        const Tensor got = RunTwice(&graph, {&input}, {out.back()}, threads)[0];
        for (size_t i = 0; i < expected.data.size(); i++) {
          ASSERT_NEAR(got.data[i], expected.data[i], 1e-4) << level->name << " at " << i;
        }
        if (one_thread.data.empty()) one_thread = got;
        ASSERT_EQ(got.data, one_thread.data) << level->name << ", " << threads << " threads";
      }
    }
  }
};

TEST(Bands, SeparableNetwork) {
  Random random(1);
  Chain({1, 300, 290, 3},
        {{kConv, 3, 2, 26},
         {kDepthwise, 3, 1, 26},
         {kConv, 1, 1, 37},
         {kDepthwise, 3, 2, 37},
         {kConv, 1, 1, 90},
         {kDepthwise, 5, 1, 90}},
        &random)
      .Test(&random);
}

TEST(Bands, RowsShorterThanACacheLine) {
  Random random(4);
  Chain({1, 20000, 9, 3}, {{kConv, 5, 2, 26}, {kDepthwise, 3, 1, 26}, {kConv, 3, 2, 31}}, &random).Test(&random);
  Chain({1, 20000, 9, 3}, {{kConv, 5, 2, 26}, {kDepthwise, 3, 1, 26}}, &random).Test(&random);
}

TEST(Bands, NetworkOfSquareKernels) {
  Random random(2);
  Chain({1, 113, 127, 24},
        {{kConv, 3, 1, 25}, {kConv, 3, 1, 27}, {kConv, 1, 1, 25}, {kConv, 5, 1, 22}, {kConv, 3, 2, 60}}, &random)
      .Test(&random);
}

TEST(Bands, Pools) {
  Random random(5);
  Chain({1, 199, 211, 9}, {{kConv, 3, 1, 30}, {kMaxPool, 3, 2, 30}, {kConv, 3, 1, 33}, {kAveragePool, 2, 2, 33}},
        &random)
      .Test(&random);
  Chain({1, 199, 211, 27}, {{kAveragePool, 3, 1, 27}, {kConv, 1, 1, 31}, {kMaxPool, 2, 2, 31}, {kConv, 3, 2, 9}},
        &random)
      .Test(&random);
}

// Tiles of several rows of the image: more of them in the whole image than in a band.
TEST(Bands, SingleWeights) {
  Random random(6);
  Chain({1, 112, 112, 3}, {{kConv, 3, 1, 64}, {kSparseConv, 3, 1, 64}, {kMaxPool, 2, 2, 64}, {kSparseConv, 3, 1, 70}},
        &random)
      .Test(&random);
  Chain({1, 120, 125, 40}, {{kSparseConv, 5, 1, 41}, {kSparseConv, 3, 2, 60}, {kSparseConv, 1, 1, 20}}, &random)
      .Test(&random);
  // Bands of a row or two, slices of few channels.
  Chain({1, 28, 28, 256}, {{kConv, 1, 1, 700}, {kSparseConv, 3, 1, 5}, {kSparseConv, 3, 1, 700}}, &random)
      .Test(&random);
}

TEST(Bands, Residuals) {
  Random random(3);
  Chain({1, 149, 141, 22},
        {{kConv, 1, 1, 30}, {kConv, 3, 1, 30, true}, {kDepthwise, 3, 1, 30}, {kConv, 1, 1, 30, true}}, &random)
      .Test(&random);
}

// An op that needs one row more on either side, as a 3 x 3 kernel does, and is particular about where it is cut.
class Rows : public graph::Op {
 public:
  Rows(int input, int output, int32_t height) : Op({input}, output), height_(height) {}
  const char* name() const override { return "rows"; }
  bool Prepare(const Graph&, const KernelTable&, int) override { return true; }
  void Run(const graph::RunContext&) const override {}
  bool InputRows(size_t, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const override {
    *in_begin = std::max(0, begin - 1);
    *in_end = std::min(height_, end + 1);
    return true;
  }
  bool MayCut(int32_t row) const override { return row % 3 == 1; }
  bool CutsClean(int32_t row, const graph::Planes&) const override { return row % 2 == 0; }

 private:
  int32_t height_;
};

// A chain of layers as the planner sees it.
struct Ops {
  std::vector<graph::Value> values;
  std::vector<std::unique_ptr<graph::Op>> ops;

  Ops(int32_t height, int32_t width, const std::vector<int32_t>& channels) : values(channels.size()) {
    for (size_t v = 0; v < values.size(); v++) {
      values[v].dims = {1, height, width, channels[v]};
      values[v].layout = graph::Layout::kPlanar;
    }
  }

  Bands Plan(int threads) {
    graph::Planner planner(&values, *Levels()[0]);
    for (const auto& op : ops) op->Constrain(&planner);
    EXPECT_TRUE(planner.SetPlanes());
    std::vector<bool> pinned(values.size(), false);
    pinned.back() = true;
    graph::BandLimits limits;
    limits.shared = 0;
    return graph::PlanBands(ops, values, pinned, threads, limits);
  }
};

// Every row of every op is written once in its share, in order, and by one share alone if it is the last op; none is
// read before it is there, windows hold what is read, and cuts are where they may be.
TEST(Bands, StepsAreComplete) {
  constexpr int32_t kHeight = 101;
  constexpr int kOps = 5;
  for (int threads : {1, 2, 3}) {
    Ops chain(kHeight, 64, std::vector<int32_t>(kOps + 1, 64));
    for (int i = 0; i < kOps; i++) chain.ops.push_back(std::make_unique<Rows>(i, i + 1, kHeight));
    const Bands bands = chain.Plan(threads);
    ASSERT_EQ(bands.groups.size(), 1u);
    ASSERT_EQ(bands.groups[0].shares.size(), static_cast<size_t>(threads));
    int32_t next = 0;
    for (const std::vector<Step>& steps : bands.groups[0].shares) {
      ASSERT_GT(steps.size(), static_cast<size_t>(2 * kOps));
      std::vector<int32_t> from(kOps + 1, -1), done(kOps + 1, 0), base(kOps + 1, 0);
      from[0] = 0;
      done[0] = kHeight;  // the input
      for (const Step& step : steps) {
        if (step.op < 0) {
          ASSERT_GT(step.begin, base[step.value]);
          base[step.value] = step.begin;
          continue;
        }
        const int value = step.op + 1;
        if (from[value] < 0) from[value] = done[value] = step.begin;
        ASSERT_EQ(step.begin, done[value]);
        ASSERT_GT(step.end, step.begin);
        ASSERT_TRUE(step.begin == 0 || step.begin % 3 == 1);
        ASSERT_TRUE(step.end == kHeight || step.end % 3 == 1);
        int32_t in_begin, in_end;
        chain.ops[step.op]->InputRows(0, step.begin, step.end, &in_begin, &in_end);
        ASSERT_LE(in_end, done[step.op]);
        ASSERT_GE(in_begin, from[step.op]);
        ASSERT_GE(in_begin, base[step.op]);
        done[value] = step.end;
        if (bands.window[value] > 0) {
          ASSERT_LE(step.end - base[value], bands.window[value]);
        }
      }
      ASSERT_EQ(from[kOps], next);
      next = done[kOps];
      ASSERT_TRUE(next == kHeight || next % 2 == 0);
    }
    EXPECT_EQ(next, kHeight);
    for (int v = 1; v < kOps; v++) EXPECT_GT(bands.window[v], 0);
    EXPECT_EQ(bands.window[kOps], 0);
  }
}

// More shares than are worth the rows that they make twice: every op runs whole.
TEST(Bands, SharesAreNotTooSmall) {
  Ops chain(101, 64, std::vector<int32_t>(6, 64));
  for (int i = 0; i < 5; i++) chain.ops.push_back(std::make_unique<Rows>(i, i + 1, 101));
  const Bands bands = chain.Plan(16);
  ASSERT_EQ(bands.groups.size(), 5u);
  for (const Group& group : bands.groups) {
    ASSERT_EQ(group.shares.size(), 1u);
    ASSERT_EQ(group.shares[0].size(), 1u);
    EXPECT_LT(group.shares[0][0].end, 0);
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
