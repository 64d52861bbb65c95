// FULLY_CONNECTED, BlockSparseFullyConnected, RESHAPE and its kin, MEAN and its kin, SOFTMAX: each as a node of its
// own, on every CPU level, against loops in double precision.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/format_testing.h"
#include "tests/cpp/kernel_testing.h"
#include "tests/cpp/node_testing.h"
#include "tests/cpp/sparse_model.h"

namespace block_sparse {
namespace testing {

using graph::Dims;

class VectorOps : public ::testing::TestWithParam<const kernels::KernelTable*> {
 protected:
  const kernels::KernelTable& level() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Levels, VectorOps, ::testing::ValuesIn(Levels()), LevelName);

void ExpectNear(const std::vector<float>& got, const std::vector<double>& exact, double tolerance) {
  ASSERT_EQ(got.size(), exact.size());
  for (size_t i = 0; i < got.size(); i++) {
    if (std::isnan(exact[i])) {
      EXPECT_TRUE(std::isnan(got[i])) << "value " << i << " is " << got[i];
    } else if (std::isinf(exact[i])) {
      EXPECT_EQ(got[i], exact[i]) << "value " << i;
    } else {
      EXPECT_NEAR(got[i], exact[i], tolerance) << "value " << i;
    }
  }
}

std::vector<double> FullyConnected(const std::vector<float>& x, const std::vector<double>& weights,
                                   const std::vector<float>& bias, int32_t rows, int32_t columns, double low,
                                   double high) {
  std::vector<double> y;
  for (size_t n = 0; n * columns < x.size(); n++) {
    for (int32_t r = 0; r < rows; r++) {
      double sum = bias.empty() ? 0.0 : bias[r];
      for (int32_t c = 0; c < columns; c++) {
        sum += weights[static_cast<size_t>(r) * columns + c] * x[n * columns + c];
      }
      y.push_back(std::isnan(sum) ? sum : std::min(high, std::max(low, sum)));
    }
  }
  return y;
}

TfLiteFullyConnectedParams FullyConnectedParams(TfLiteFusedActivation activation, bool keep_num_dims) {
  TfLiteFullyConnectedParams params = {};
  params.activation = activation;
  params.keep_num_dims = keep_num_dims;
  return params;
}

struct Clamp {
  TfLiteFusedActivation activation;
  const char* name;
  double low, high;
};
constexpr Clamp kClamps[] = {{kTfLiteActNone, "none", -kInfinity, kInfinity},
                             {kTfLiteActRelu, "relu", 0.0, kInfinity},
                             {kTfLiteActReluN1To1, "relu_n1_to_1", -1.0, 1.0},
                             {kTfLiteActRelu6, "relu6", 0.0, 6.0}};

TEST_P(VectorOps, DenseFullyConnected) {
  Random random(1);
  for (int32_t rows : {1, 7, 10, 64}) {
    for (int32_t columns : {1, 5, 16, 67}) {
      for (int32_t batch : {1, 2, 5, 17}) {
        const Clamp& clamp = kClamps[random.Below(4)];
        SCOPED_TRACE(::testing::Message() << rows << " x " << columns << ", batch " << batch << ", " << clamp.name);
        const std::vector<float> x = random.Floats(batch * columns), weights = random.Floats(rows * columns);
        const std::vector<float> bias = random.Floats(random.Chance(0.5) ? rows : 0);
        NodeTester node(kTfLiteBuiltinFullyConnected);
        node.Input({batch, columns}, x).Constant({rows, columns}, weights);
        bias.empty() ? node.Absent() : node.Constant({rows}, bias);
        node.Params(FullyConnectedParams(clamp.activation, false));
        const std::vector<double> exact = FullyConnected(x, std::vector<double>(weights.begin(), weights.end()), bias,
                                                         rows, columns, clamp.low, clamp.high);
        for (int threads : {1, 3}) {
          ASSERT_EQ(node.Run(level(), threads), "");
          EXPECT_EQ(node.output_dims(), (Dims{batch, rows}));
          ExpectNear(node.output(), exact, 1e-5);
        }
      }
    }
  }
}

TEST_P(VectorOps, FullyConnectedShapes) {
  Random random(2);
  const std::vector<float> x = random.Floats(2 * 3 * 4 * 5), weights = random.Floats(6 * 5);
  const std::vector<double> exact =
      FullyConnected(x, std::vector<double>(weights.begin(), weights.end()), {}, 6, 5, -kInfinity, kInfinity);
  for (bool keep : {false, true}) {
    for (bool planar : {false, true}) {
      NodeTester node(kTfLiteBuiltinFullyConnected);
      node.Input({2, 3, 4, 5}, x).Constant({6, 5}, weights).Planar(planar);
      node.Params(FullyConnectedParams(kTfLiteActNone, keep));
      ASSERT_EQ(node.Run(level(), 1), "");
      EXPECT_EQ(node.output_dims(), (keep ? Dims{2, 3, 4, 6} : Dims{24, 6}));
      ExpectNear(node.output(), exact, 1e-5);
    }
  }
}

TEST(FullyConnected, IsRefusedWithAReason) {
  const std::vector<float> x(10), weights(30), bias(6);
  const auto claim = [&](const Dims& input, const Dims& matrix, int32_t bias_size, bool constant,
                         TfLiteFullyConnectedParams params) {
    NodeTester node(kTfLiteBuiltinFullyConnected);
    node.Input(input, x);
    constant ? node.Constant(matrix, weights) : node.Input(matrix, weights);
    node.Constant({bias_size}, std::vector<float>(bias.begin(), bias.begin() + bias_size));
    return node.Params(params).Claim();
  };
  const TfLiteFullyConnectedParams plain = FullyConnectedParams(kTfLiteActNone, false);
  EXPECT_EQ(claim({2, 5}, {6, 5}, 6, true, plain), "");
  EXPECT_EQ(claim({2, 5}, {6, 5}, 6, false, plain), "the weights is not constant");
  EXPECT_EQ(claim({2, 5}, {6, 5}, 5, true, plain), "its bias has another size");
  EXPECT_EQ(claim({1, 10}, {5, 6}, 5, true, plain), "its input does not fit its weights");
  EXPECT_EQ(claim({5, 2}, {6, 5}, 6, true, plain), "");
  EXPECT_EQ(claim({5, 2}, {6, 5}, 6, true, FullyConnectedParams(kTfLiteActNone, true)),
            "its input does not fit its weights");
  EXPECT_EQ(claim({2, 5}, {6, 5}, 6, true, FullyConnectedParams(kTfLiteActTanh, false)),
            "its fused activation is not a clamp");
  TfLiteFullyConnectedParams shuffled = plain;
  shuffled.weights_format = kTfLiteFullyConnectedWeightsFormatShuffled4x16Int8;
  EXPECT_EQ(claim({2, 5}, {6, 5}, 6, true, shuffled), "its weights are shuffled");
}

// --- Block-sparse ---

TEST_P(VectorOps, BlockSparseFullyConnected) {
  Random random(3);
  for (bool aligned : {false, true}) {
    for (int32_t block : {2, 3, 4, 8, 16}) {
      for (int32_t rows : {16, 29, 70}) {
        for (int32_t columns : {3, 40}) {
          for (int32_t batch : {1, 3, 9}) {
            const Clamp& clamp = kClamps[random.Below(4)];
            SCOPED_TRACE(::testing::Message()
                         << rows << " x " << columns << ", block " << block << (aligned ? " aligned" : "") << ", batch "
                         << batch << ", " << clamp.name);
            const SparseModel model = RandomModel(rows, columns, block, aligned, 0.2, clamp.name, true, &random);
            if (model.values.empty()) continue;
            const std::vector<float> x = random.Floats(batch * columns);
            const std::vector<float> bias = random.Floats(random.Chance(0.5) ? rows : 0);
            NodeTester node("BlockSparseFullyConnected");
            node.Input({batch, columns}, x).Constant({static_cast<int32_t>(model.values.size())}, model.values);
            bias.empty() ? node.Absent() : node.Constant({rows}, bias);
            node.CustomOptions(model.options);
            std::vector<float> one;
            for (int threads : {1, 2, 3, 8}) {
              ASSERT_EQ(node.Run(level(), threads), "");
              EXPECT_EQ(node.output_dims(), (Dims{batch, rows}));
              if (threads == 1) one = node.output();
              EXPECT_TRUE(SameBits(node.output(), one)) << threads << " threads";
            }
            ExpectNear(one, FullyConnected(x, model.dense, bias, rows, columns, clamp.low, clamp.high), 1e-5);
          }
        }
      }
    }
  }
}

// Large enough that the rows are really cut.
TEST_P(VectorOps, ThreadsDoNotChangeABit) {
  Random random(4);
  const int32_t rows = 517, columns = 600;
  const std::vector<float> x = random.Floats(2 * columns), weights = random.Floats(rows * columns);
  const SparseModel model = RandomModel(rows, columns, 4, false, 0.2, "relu", false, &random);
  std::vector<float> dense_one, sparse_one;
  for (int threads : {1, 2, 3, 8}) {
    NodeTester dense(kTfLiteBuiltinFullyConnected);
    dense.Input({2, columns}, x).Constant({rows, columns}, weights);
    ASSERT_EQ(dense.Params(FullyConnectedParams(kTfLiteActRelu, false)).Run(level(), threads), "");
    NodeTester sparse("BlockSparseFullyConnected");
    sparse.Input({2, columns}, x).Constant({static_cast<int32_t>(model.values.size())}, model.values);
    ASSERT_EQ(sparse.CustomOptions(model.options).Run(level(), threads), "");
    if (threads == 1) {
      dense_one = dense.output();
      sparse_one = sparse.output();
    }
    EXPECT_TRUE(SameBits(dense.output(), dense_one)) << threads << " threads";
    EXPECT_TRUE(SameBits(sparse.output(), sparse_one)) << threads << " threads";
  }
}

TEST(BlockSparseFullyConnected, IsRefusedWithAReason) {
  Random random(5);
  const SparseModel model = RandomModel(8, 6, 4, false, 0.5, "none", false, &random);
  const auto claim = [&](const Dims& input, int32_t bias, const std::vector<uint8_t>& options) {
    NodeTester node("BlockSparseFullyConnected");
    node.Input(input, random.Floats(static_cast<size_t>(graph::Count(input))));
    node.Constant({static_cast<int32_t>(model.values.size())}, model.values);
    bias == 0 ? node.Absent() : node.Constant({bias}, random.Floats(bias));
    return node.CustomOptions(options).Claim();
  };
  EXPECT_EQ(claim({2, 6}, 8, model.options), "");
  EXPECT_EQ(claim({2, 6}, 7, model.options), "the bias has 7 values, but `rows` is 8");
  EXPECT_EQ(claim({2, 7}, 0, model.options),
            "`columns` is 6, but the input has 14 values, which is not a multiple of it");
  EXPECT_NE(claim({2, 6}, 0, {1, 2, 3}), "");
}

// --- Shapes ---

TfLiteReshapeParams NoReshapeParams() { return {}; }

TEST_P(VectorOps, Reshape) {
  Random random(6);
  const std::vector<float> x = random.Floats(2 * 3 * 4 * 5);
  struct Case {
    std::vector<int32_t> shape;
    Dims dims;
  };
  for (const Case& c :
       {Case{{2, 60}, {2, 60}}, Case{{-1, 5}, {24, 5}}, Case{{120}, {120}}, Case{{2, -1, 2}, {2, 30, 2}},
        Case{{5, 4, 3, 2}, {5, 4, 3, 2}}, Case{{1, 1, 120, 1, 1}, {1, 1, 120, 1, 1}}}) {
    for (bool planar : {false, true}) {
      NodeTester node(kTfLiteBuiltinReshape);
      node.Input({2, 3, 4, 5}, x).Constant({static_cast<int32_t>(c.shape.size())}, c.shape);
      ASSERT_EQ(node.Params(NoReshapeParams()).Planar(planar).Run(level(), 1), "");
      EXPECT_EQ(node.output_dims(), c.dims);
      EXPECT_TRUE(SameBits(node.output(), x));
    }
  }
}

TEST_P(VectorOps, ReshapeByParameters) {
  TfLiteReshapeParams params = {};
  params.num_dimensions = 2;
  params.shape[0] = 3;
  params.shape[1] = -1;
  NodeTester node(kTfLiteBuiltinReshape);
  ASSERT_EQ(node.Input({6}, {1, 2, 3, 4, 5, 6}).Params(params).Run(level(), 1), "");
  EXPECT_EQ(node.output_dims(), (Dims{3, 2}));
  EXPECT_EQ(node.output(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST(Reshape, IsRefusedWithAReason) {
  const auto claim = [](const std::vector<int32_t>& shape) {
    NodeTester node(kTfLiteBuiltinReshape);
    node.Input({2, 6}, std::vector<float>(12)).Constant({static_cast<int32_t>(shape.size())}, shape);
    return node.Params(NoReshapeParams()).Claim();
  };
  EXPECT_EQ(claim({12}), "");
  EXPECT_EQ(claim({11}), "12 values do not fit its new shape");
  EXPECT_EQ(claim({5, -1}), "12 values do not fit its new shape");
  EXPECT_EQ(claim({-1, -1}), "its new shape has an empty or a second unknown dimension");
  EXPECT_EQ(claim({0, 12}), "its new shape has an empty or a second unknown dimension");
  EXPECT_EQ(claim({-2}), "its new shape has an empty or a second unknown dimension");
  EXPECT_EQ(claim({INT32_MAX, INT32_MAX, INT32_MAX}), "its new shape has an empty or a second unknown dimension");
  NodeTester variable(kTfLiteBuiltinReshape);
  EXPECT_EQ(variable.Input({4}, std::vector<float>(4)).Input({1}, {0.0f}).Claim(), "the new shape is not int32");
}

TEST_P(VectorOps, SqueezeAndExpandDims) {
  const std::vector<float> x = {1, 2, 3, 4, 5, 6};
  TfLiteSqueezeParams params = {};
  NodeTester all(kTfLiteBuiltinSqueeze);
  ASSERT_EQ(all.Input({1, 2, 1, 3}, x).Params(params).Run(level(), 1), "");
  EXPECT_EQ(all.output_dims(), (Dims{2, 3}));
  params.num_squeeze_dims = 1;
  params.squeeze_dims[0] = -2;
  NodeTester one(kTfLiteBuiltinSqueeze);
  ASSERT_EQ(one.Input({1, 2, 1, 3}, x).Params(params).Planar(true).Run(level(), 1), "");
  EXPECT_EQ(one.output_dims(), (Dims{1, 2, 3}));
  EXPECT_EQ(one.output(), x);
  params.squeeze_dims[0] = 1;
  EXPECT_EQ(NodeTester(kTfLiteBuiltinSqueeze).Input({1, 2, 1, 3}, x).Params(params).Claim(),
            "it squeezes a dimension that is not 1");
  for (const auto& [axis, dims] : {std::pair<int32_t, Dims>{0, {1, 2, 3}}, {1, {2, 1, 3}}, {-1, {2, 3, 1}}}) {
    NodeTester expand(kTfLiteBuiltinExpandDims);
    ASSERT_EQ(expand.Input({2, 3}, x).Constant({}, std::vector<int32_t>{axis}).Run(level(), 1), "");
    EXPECT_EQ(expand.output_dims(), dims);
    EXPECT_EQ(expand.output(), x);
  }
  EXPECT_EQ(NodeTester(kTfLiteBuiltinExpandDims).Input({2, 3}, x).Constant({}, std::vector<int32_t>{3}).Claim(),
            "it has no such axis");
}

// --- Reductions ---

enum class Fold { kMean, kSum, kMax };

// Over the axes `first` .. `last`.
std::vector<double> Reduced(const std::vector<float>& x, const Dims& dims, int32_t first, int32_t last, Fold fold) {
  int64_t outer = 1, count = 1, inner = 1;
  for (int32_t i = 0; i < static_cast<int32_t>(dims.size()); i++) {
    (i < first ? outer : i <= last ? count : inner) *= dims[i];
  }
  std::vector<double> y;
  for (int64_t n = 0; n < outer; n++) {
    for (int64_t i = 0; i < inner; i++) {
      double all = fold == Fold::kMax ? -kInfinity : 0.0;
      for (int64_t k = 0; k < count; k++) {
        const double value = x[(n * count + k) * inner + i];
        all = fold == Fold::kMax ? std::max(all, value) : all + value;
      }
      y.push_back(fold == Fold::kMean ? all / static_cast<double>(count) : all);
    }
  }
  return y;
}

TEST_P(VectorOps, Reductions) {
  Random random(7);
  struct Case {
    Dims dims;
    std::vector<int32_t> axes;
    int32_t first, last;
  };
  const Case cases[] = {{{1, 7, 7, 37}, {1, 2}, 1, 2},
                        {{2, 3, 5, 9}, {2, 1}, 1, 2},
                        {{2, 1, 1, 70}, {1, 2}, 1, 2},
                        {{1, 8, 8, 3}, {-3, -2, 1}, 1, 2},
                        {{1, 14, 14, 5}, {1, 2}, 1, 2},
                        {{3, 17, 1, 2}, {1, 2}, 1, 2},
                        {{1, 112, 100, 2}, {1, 2}, 1, 2},
                        {{2, 3, 5, 67}, {3}, 3, 3},
                        {{2, 3, 5, 7}, {1}, 1, 1},
                        {{2, 3, 5, 7}, {0, 1, 2, 3}, 0, 3},
                        {{4, 130}, {0}, 0, 0},
                        {{4, 130}, {1}, 1, 1},
                        {{2, 9, 33}, {1}, 1, 1},
                        {{2, 9, 33}, {}, 3, 2},
                        {{5}, {0}, 0, 0}};
  for (const Case& c : cases) {
    const std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(c.dims)));
    for (Fold fold : {Fold::kMean, Fold::kSum, Fold::kMax}) {
      const int code = fold == Fold::kMean  ? kTfLiteBuiltinMean
                       : fold == Fold::kSum ? kTfLiteBuiltinSum
                                            : kTfLiteBuiltinReduceMax;
      const std::vector<double> exact = Reduced(x, c.dims, c.first, c.last, fold);
      for (bool keep : {false, true}) {
        for (bool planar : {false, true}) {
          SCOPED_TRACE(::testing::Message()
                       << ::testing::PrintToString(c.dims) << " axes " << ::testing::PrintToString(c.axes)
                       << (keep ? " keep" : "") << (planar ? " planar" : "") << " code " << code);
          TfLiteReducerParams params = {};
          params.keep_dims = keep;
          NodeTester node(code);
          node.Input(c.dims, x).Constant({static_cast<int32_t>(c.axes.size())}, c.axes).Params(params).Planar(planar);
          Dims dims;
          for (int32_t i = 0; i < static_cast<int32_t>(c.dims.size()); i++) {
            const bool reduced = i >= c.first && i <= c.last;
            if (!reduced || keep) dims.push_back(reduced ? 1 : c.dims[i]);
          }
          std::vector<float> one;
          for (int threads : {1, 3}) {
            ASSERT_EQ(node.Run(level(), threads), "");
            EXPECT_EQ(node.output_dims(), dims);
            ExpectNear(node.output(), exact, fold == Fold::kMax ? 0.0 : fold == Fold::kMean ? 1e-6 : 2e-3);
            if (threads == 1) one = node.output();
            EXPECT_TRUE(SameBits(node.output(), one));
          }
        }
      }
    }
  }
}

TEST_P(VectorOps, MaximumOfNegativesIsNotThePaddingsZero) {
  for (int32_t size : {1, 3, 5, 17, 100}) {
    TfLiteReducerParams params = {};
    NodeTester node(kTfLiteBuiltinReduceMax);
    node.Input({1, size, 1, 2}, std::vector<float>(2 * size, -3.0f));
    node.Constant({2}, std::vector<int32_t>{1, 2}).Params(params).Planar(true);
    ASSERT_EQ(node.Run(level(), 1), "");
    EXPECT_EQ(node.output(), (std::vector<float>{-3.0f, -3.0f}));
  }
}

TEST(Reductions, AreRefusedWithAReason) {
  const auto claim = [](const std::vector<int32_t>& axes) {
    TfLiteReducerParams params = {};
    NodeTester node(kTfLiteBuiltinMean);
    node.Input({2, 3, 4, 5}, std::vector<float>(120));
    return node.Constant({static_cast<int32_t>(axes.size())}, axes).Params(params).Claim();
  };
  EXPECT_EQ(claim({1, 2}), "");
  EXPECT_EQ(claim({1, 3}), "the axes are not neighbours");
  EXPECT_EQ(claim({4}), "it has no such axis");
  EXPECT_EQ(claim({-5}), "it has no such axis");
}

// --- Softmax ---

std::vector<double> Softmax(const std::vector<float>& x, int32_t count, double beta) {
  std::vector<double> y;
  for (size_t at = 0; at < x.size(); at += count) {
    double max = -kInfinity, sum = 0.0;
    for (int32_t i = 0; i < count; i++) max = std::max<double>(max, x[at + i]);
    for (int32_t i = 0; i < count; i++) sum += std::exp((x[at + i] - max) * beta);
    for (int32_t i = 0; i < count; i++) y.push_back(std::exp((x[at + i] - max) * beta) / sum);
  }
  return y;
}

TEST_P(VectorOps, Softmax) {
  Random random(8);
  for (const Dims& dims :
       {Dims{1, 1000}, Dims{1, 1}, Dims{3, 7}, Dims{2, 3, 17}, Dims{2, 3, 5, 10}, Dims{16}, Dims{300, 33}}) {
    for (float scale : {1.0f, 30.0f, 200.0f}) {
      for (float beta : {1.0f, 0.5f, 0.0f}) {
        std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(dims)));
        for (float& v : x) v *= scale;
        TfLiteSoftmaxParams params = {beta};
        const std::vector<double> exact = testing::Softmax(x, dims.back(), beta);
        for (bool planar : {false, true}) {
          NodeTester node(kTfLiteBuiltinSoftmax);
          ASSERT_EQ(node.Input(dims, x).Params(params).Planar(planar).Run(level(), 2), "");
          EXPECT_EQ(node.output_dims(), dims);
          ASSERT_EQ(node.output().size(), exact.size());
          for (size_t i = 0; i < exact.size(); i++) {
            // The difference of two inputs is rounded to their size, which the exponential then multiplies.
            ASSERT_NEAR(node.output()[i], exact[i], exact[i] * (1e-6 + 1.2e-7 * scale * beta) + 2e-38);
          }
        }
      }
    }
  }
}

TEST_P(VectorOps, SoftmaxOfExtremes) {
  const auto run = [&](const std::vector<float>& x) {
    NodeTester node(kTfLiteBuiltinSoftmax);
    EXPECT_EQ(node.Input({static_cast<int32_t>(x.size())}, x).Params(TfLiteSoftmaxParams{1.0f}).Run(level(), 1), "");
    return node.output();
  };
  EXPECT_EQ(run({-1e30f, 3e38f, -3e38f}), (std::vector<float>{0.0f, 1.0f, 0.0f}));
  EXPECT_EQ(run({-kInfinity, 2.0f, 2.0f, -kInfinity}), (std::vector<float>{0.0f, 0.5f, 0.5f, 0.0f}));
  EXPECT_EQ(run({0.0f, -1000.0f}), (std::vector<float>{1.0f, 0.0f}));
  for (float hostile : {kNan, kInfinity}) {
    for (float v : run({1.0f, hostile, 2.0f})) EXPECT_TRUE(std::isnan(v) || hostile == kInfinity) << v;
  }
  for (float v : run({-kInfinity, -kInfinity})) EXPECT_TRUE(std::isnan(v));
}

TEST(Softmax, IsRefusedWithAReason) {
  const auto claim = [](float beta) {
    return NodeTester(kTfLiteBuiltinSoftmax)
        .Input({4}, std::vector<float>(4))
        .Params(TfLiteSoftmaxParams{beta})
        .Claim();
  };
  EXPECT_EQ(claim(1.0f), "");
  EXPECT_EQ(claim(-1.0f), "its beta is out of range");
  EXPECT_EQ(claim(kNan), "its beta is out of range");
}

}  // namespace testing
}  // namespace block_sparse
