// ADD and its kin, activations, PAD, CONCATENATION, pooling and resizing: each as a node of its own, in both layouts,
// on every CPU level, against loops that follow TFLite's reference kernels. And in chains, between rows full of NaN.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/graph_testing.h"
#include "tests/cpp/kernel_testing.h"
#include "tests/cpp/node_testing.h"
#include "tflite_delegate/ops/binary.h"
#include "tflite_delegate/ops/concat.h"
#include "tflite_delegate/ops/pad.h"
#include "tflite_delegate/ops/resize.h"
#include "tflite_delegate/ops/unary.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Dims;

class PlanarOps : public ::testing::TestWithParam<const kernels::KernelTable*> {
 protected:
  const kernels::KernelTable& level() const { return *GetParam(); }

  // The node's output, the same for 1 and 3 threads and in both layouts.
  std::vector<float> Run(const std::function<void(NodeTester*)>& set_up, int builtin_code, const Dims& expected) const {
    std::vector<float> first;
    for (bool planar : {false, true}) {
      for (int threads : {1, 3}) {
        NodeTester node(builtin_code);
        set_up(&node);
        node.Planar(planar);
        EXPECT_EQ(node.Run(level(), threads), "");
        EXPECT_EQ(node.output_dims(), expected);
        if (first.empty()) first = node.output();
        EXPECT_TRUE(SameBits(first, node.output())) << (planar ? "planar" : "interleaved") << ", threads " << threads;
      }
    }
    return first;
  }
};
INSTANTIATE_TEST_SUITE_P(Levels, PlanarOps, ::testing::ValuesIn(Levels()), LevelName);

void ExpectNear(const std::vector<float>& got, const std::vector<double>& exact, double tolerance) {
  ASSERT_EQ(got.size(), exact.size());
  for (size_t i = 0; i < got.size(); i++) {
    if (std::isnan(exact[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << "value " << i << " is " << got[i];
    } else {
      ASSERT_NEAR(got[i], exact[i], tolerance * std::max(1.0, std::fabs(exact[i]))) << "value " << i;
    }
  }
}

std::string Show(const Dims& dims) {
  std::string text;
  for (int32_t d : dims) text += (text.empty() ? "" : " x ") + std::to_string(d);
  return text;
}

// Value of a tensor at the output's index i, stretched.
float Stretched(const std::vector<float>& values, const Dims& dims, const Dims& out, size_t i) {
  size_t at = 0, step = 1;
  for (size_t d = 0; d < out.size(); d++) {
    const size_t index = i % out[out.size() - 1 - d];
    i /= out[out.size() - 1 - d];
    if (d >= dims.size()) continue;
    const int32_t extent = dims[dims.size() - 1 - d];
    at += (extent == 1 ? 0 : index) * step;
    step *= extent;
  }
  return values[at];
}

TEST_P(PlanarOps, Binary) {
  struct Case {
    Dims a, b, out;
  };
  const Case kCases[] = {{{2, 5, 7, 3}, {2, 5, 7, 3}, {2, 5, 7, 3}},
                         {{1, 5, 7, 3}, {3}, {1, 5, 7, 3}},
                         {{2, 5, 7, 3}, {1}, {2, 5, 7, 3}},
                         {{2, 5, 7, 3}, {}, {2, 5, 7, 3}},
                         {{2, 5, 7, 3}, {2, 1, 1, 3}, {2, 5, 7, 3}},
                         {{2, 1, 1, 3}, {2, 5, 7, 3}, {2, 5, 7, 3}},
                         {{2, 5, 7, 3}, {1, 1, 1, 3}, {2, 5, 7, 3}},
                         {{2, 5, 7, 3}, {1, 5, 7, 3}, {2, 5, 7, 3}},
                         {{2, 5, 7, 3}, {2, 5, 7, 1}, {2, 5, 7, 3}},
                         {{2, 5, 7, 1}, {1, 1, 1, 4}, {2, 5, 7, 4}},
                         {{1, 5, 7, 3}, {5, 1, 3}, {1, 5, 7, 3}},
                         {{1, 1, 7, 3}, {2, 5, 1, 1}, {2, 5, 7, 3}},
                         {{1, 1, 1, 33}, {1, 1, 1, 33}, {1, 1, 1, 33}},
                         {{4, 33}, {33}, {4, 33}},
                         {{4, 33}, {4, 1}, {4, 33}},
                         {{2, 3, 4, 5, 6}, {4, 1, 6}, {2, 3, 4, 5, 6}},
                         {{1, 40, 40, 20}, {1, 40, 40, 20}, {1, 40, 40, 20}},
                         {{7}, {1}, {7}},
                         {{1, 8, 8, 1}, {1, 8, 8, 1}, {1, 8, 8, 1}},
                         {{5, 7, 3}, {2, 5, 7, 3}, {2, 5, 7, 3}},
                         {{1}, {1, 4, 4, 2}, {1, 4, 4, 2}}};
  constexpr int kCodes[] = {kTfLiteBuiltinAdd, kTfLiteBuiltinSub, kTfLiteBuiltinMul, kTfLiteBuiltinDiv};
  Random random(1);
  int turn = 0;
  for (const Case& c : kCases) {
    for (int op = 0; op < 4; op++) {
      for (int constant : {0, 1, 2}) {  // none, a, b
        const TfLiteFusedActivation activation = turn++ % 2 == 0 ? kTfLiteActNone : kTfLiteActRelu6;
        SCOPED_TRACE(::testing::Message()
                     << "op " << op << ", " << Show(c.a) << " and " << Show(c.b) << ", constant " << constant);
        const std::vector<float> a = random.Floats(static_cast<size_t>(graph::Count(c.a)));
        std::vector<float> b = random.Floats(static_cast<size_t>(graph::Count(c.b)));
        const std::vector<float> got = Run(
            [&](NodeTester* node) {
              if (constant == 1) {
                node->Constant(c.a, a).Input(c.b, b);
              } else if (constant == 2) {
                node->Input(c.a, a).Constant(c.b, b);
              } else {
                node->Input(c.a, a).Input(c.b, b);
              }
              // All four have the activation first.
              TfLiteAddParams params = {};
              params.activation = activation;
              node->Params(params);
            },
            kCodes[op], c.out);
        std::vector<double> exact;
        for (size_t i = 0; i < static_cast<size_t>(graph::Count(c.out)); i++) {
          const double left = Stretched(a, c.a, c.out, i), right = Stretched(b, c.b, c.out, i);
          const double v = op == 0 ? left + right : op == 1 ? left - right : op == 2 ? left * right : left / right;
          exact.push_back(activation == kTfLiteActNone ? v : std::min(6.0, std::max(0.0, v)));
        }
        ExpectNear(got, exact, 1e-6);
      }
    }
  }
}

TEST_P(PlanarOps, Activations) {
  Random random(2);
  struct Function {
    int code;
    std::function<double(double)> exact;
  };
  const Function kFunctions[] = {
      {kTfLiteBuiltinRelu, [](double x) { return std::max(0.0, x); }},
      {kTfLiteBuiltinRelu6, [](double x) { return std::min(6.0, std::max(0.0, x)); }},
      {kTfLiteBuiltinReluN1To1, [](double x) { return std::min(1.0, std::max(-1.0, x)); }},
      {kTfLiteBuiltinElu, [](double x) { return x < 0 ? std::expm1(x) : x; }},
      {kTfLiteBuiltinHardSwish, [](double x) { return x * std::min(6.0, std::max(0.0, x + 3)) / 6; }},
      {kTfLiteBuiltinLogistic, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {kTfLiteBuiltinTanh, [](double x) { return std::tanh(x); }},
      {kTfLiteBuiltinLeakyRelu, [](double x) { return x < 0 ? x * 0.3f : x; }},
  };
  for (const Dims& dims : {Dims{1, 5, 7, 3}, Dims{2, 9, 4, 5}, Dims{1, 1, 1, 19}, Dims{3, 29}, Dims{1, 60, 60, 10}}) {
    for (const Function& function : kFunctions) {
      SCOPED_TRACE(::testing::Message() << "operator " << function.code << ", " << Show(dims));
      std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(dims)));
      for (float& v : x) v *= 10.0f;
      const std::vector<float> got = Run(
          [&](NodeTester* node) {
            TfLiteLeakyReluParams params = {};
            params.alpha = 0.3f;
            node->Input(dims, x).Params(params);
          },
          function.code, dims);
      std::vector<double> exact;
      for (float v : x) exact.push_back(function.exact(v));
      ExpectNear(got, exact, 1e-6);
    }
    for (bool per_channel : {false, true}) {
      const size_t channels = per_channel ? static_cast<size_t>(dims.back()) : 1;
      const std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(dims))),
                               slopes = random.Floats(channels);
      const Dims shape =
          dims.size() == 4 ? Dims{1, 1, static_cast<int32_t>(channels)} : Dims{static_cast<int32_t>(channels)};
      const std::vector<float> got =
          Run([&](NodeTester* node) { node->Input(dims, x).Constant(shape, slopes); }, kTfLiteBuiltinPrelu, dims);
      std::vector<double> exact;
      for (size_t i = 0; i < x.size(); i++) exact.push_back(x[i] < 0 ? x[i] * slopes[i % channels] : x[i]);
      ExpectNear(got, exact, 1e-6);
    }
  }
}

TEST_P(PlanarOps, Pad) {
  struct Case {
    Dims in;
    std::vector<int32_t> padding;
  };
  const Case kCases[] = {{{2, 5, 7, 3}, {0, 0, 1, 2, 3, 4, 0, 0}},
                         {{2, 5, 7, 3}, {1, 0, 0, 1, 0, 0, 2, 1}},
                         {{1, 1, 1, 3}, {0, 0, 1, 1, 1, 1, 0, 0}},
                         {{1, 20, 20, 9}, {0, 0, 0, 1, 0, 1, 0, 0}},
                         {{4, 6}, {1, 2, 0, 3}},
                         {{5}, {2, 2}},
                         {{1, 4, 4, 2}, {0, 0, 0, 0, 0, 0, 0, 0}}};
  Random random(3);
  for (const Case& c : kCases) {
    for (float value : {0.0f, -1.5f}) {
      SCOPED_TRACE(Show(c.in));
      const std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(c.in)));
      const int32_t rank = static_cast<int32_t>(c.in.size());
      Dims out;
      for (int32_t d = 0; d < rank; d++) out.push_back(c.in[d] + c.padding[2 * d] + c.padding[2 * d + 1]);
      std::vector<double> exact;
      for (int64_t i = 0; i < graph::Count(out); i++) {
        int64_t left = i, at = 0, step = 1;
        bool inside = true;
        for (int32_t d = rank - 1; d >= 0; d--) {
          const int64_t index = left % out[d] - c.padding[2 * d];
          left /= out[d];
          inside = inside && index >= 0 && index < c.in[d];
          at += index * step;
          step *= c.in[d];
        }
        exact.push_back(inside ? x[static_cast<size_t>(at)] : value);
      }
      const std::vector<float> got = Run(
          [&](NodeTester* node) {
            node->Input(c.in, x).Constant({rank, 2}, c.padding);
            if (value != 0.0f) node->Constant({1}, std::vector<float>{value});
          },
          value == 0.0f ? kTfLiteBuiltinPad : kTfLiteBuiltinPadv2, out);
      ExpectNear(got, exact, 0);
    }
  }
}

TEST_P(PlanarOps, Concatenation) {
  Random random(4);
  for (const Dims& dims : {Dims{2, 5, 7, 3}, Dims{1, 1, 1, 4}, Dims{1, 18, 3, 2}, Dims{3, 8}, Dims{6}}) {
    const int32_t rank = static_cast<int32_t>(dims.size());
    for (int32_t axis = -1; axis < rank; axis++) {
      SCOPED_TRACE(::testing::Message() << Show(dims) << ", axis " << axis);
      const int32_t along = axis < 0 ? axis + rank : axis;
      const int32_t kSizes[] = {dims[along], 1, 4};
      std::vector<Dims> parts;
      std::vector<std::vector<float>> data;
      Dims out = dims;
      out[along] = 0;
      for (int32_t size : kSizes) {
        parts.push_back(dims);
        parts.back()[along] = size;
        out[along] += size;
        data.push_back(random.Floats(static_cast<size_t>(graph::Count(parts.back()))));
      }
      const std::vector<float> got = Run(
          [&](NodeTester* node) {
            TfLiteConcatenationParams params = {};
            params.axis = axis;
            node->Input(parts[0], data[0]).Input(parts[1], data[1]).Constant(parts[2], data[2]).Params(params);
          },
          kTfLiteBuiltinConcatenation, out);
      int64_t inner = 1;
      for (int32_t d = along + 1; d < rank; d++) inner *= dims[d];
      std::vector<double> exact;
      for (int64_t i = 0; i < graph::Count(out); i++) {
        int64_t index = i / inner % out[along];
        const int64_t outer = i / inner / out[along];
        size_t part = 0;
        while (index >= parts[part][along]) index -= parts[part++][along];
        exact.push_back(data[part][static_cast<size_t>((outer * parts[part][along] + index) * inner + i % inner)]);
      }
      ExpectNear(got, exact, 0);
    }
  }
}

TEST_P(PlanarOps, Pooling) {
  Random random(5);
  for (const Dims& dims : {Dims{2, 9, 12, 3}, Dims{1, 7, 7, 20}, Dims{1, 1, 1, 5}, Dims{1, 33, 2, 4}}) {
    for (int window : {1, 2, 3, 7}) {
      for (int stride : {1, 2, 3}) {
        for (TfLitePadding padding : {kTfLitePaddingSame, kTfLitePaddingValid}) {
          const bool same = padding == kTfLitePaddingSame;
          Dims out = dims;
          int before[2];
          for (int d : {0, 1}) {
            out[1 + d] = same ? (dims[1 + d] + stride - 1) / stride : (dims[1 + d] - window + stride) / stride;
            before[d] = same ? std::max(0, (out[1 + d] - 1) * stride + window - dims[1 + d]) / 2 : 0;
          }
          if (!same && (window > dims[1] || window > dims[2])) continue;
          SCOPED_TRACE(::testing::Message() << Show(dims) << ", window " << window << ", stride " << stride << ", "
                                            << (same ? "same" : "valid"));
          const std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(dims)));
          TfLitePoolParams params = {};
          params.padding = padding;
          params.stride_height = params.stride_width = stride;
          params.filter_height = params.filter_width = window;
          params.activation = stride == 2 ? kTfLiteActRelu : kTfLiteActNone;
          std::vector<double> max, average;
          for (int n = 0; n < out[0]; n++) {
            for (int oy = 0; oy < out[1]; oy++) {
              for (int ox = 0; ox < out[2]; ox++) {
                for (int c = 0; c < out[3]; c++) {
                  double most = -kInfinity, sum = 0, pixels = 0;
                  for (int iy = oy * stride - before[0]; iy < oy * stride - before[0] + window; iy++) {
                    for (int ix = ox * stride - before[1]; ix < ox * stride - before[1] + window; ix++) {
                      if (iy < 0 || iy >= dims[1] || ix < 0 || ix >= dims[2]) continue;
                      const float v = x[((static_cast<size_t>(n) * dims[1] + iy) * dims[2] + ix) * dims[3] + c];
                      most = std::max<double>(most, v);
                      sum += v;
                      pixels++;
                    }
                  }
                  const double low = params.activation == kTfLiteActRelu ? 0.0 : -kInfinity;
                  max.push_back(std::max(low, most));
                  average.push_back(std::max(low, sum / pixels));
                }
              }
            }
          }
          const auto set_up = [&](NodeTester* node) { node->Input(dims, x).Params(params); };
          ExpectNear(Run(set_up, kTfLiteBuiltinMaxPool2d, out), max, 0);
          ExpectNear(Run(set_up, kTfLiteBuiltinAveragePool2d, out), average, 1e-6);
        }
      }
    }
  }
}

TEST_P(PlanarOps, Resizing) {
  Random random(6);
  for (const Dims& dims : {Dims{2, 5, 7, 3}, Dims{1, 1, 1, 3}, Dims{1, 8, 8, 2}}) {
    for (const Dims& size : {Dims{5, 7}, Dims{10, 14}, Dims{1, 1}, Dims{3, 20}, Dims{16, 2}}) {
      for (const auto& [align, half] :
           {std::make_pair(false, false), std::make_pair(true, false), std::make_pair(false, true)}) {
        SCOPED_TRACE(::testing::Message() << Show(dims) << " to " << Show(size) << (align ? ", corners aligned" : "")
                                          << (half ? ", half pixel centers" : ""));
        const std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(dims)));
        const Dims out = {dims[0], size[0], size[1], dims[3]};
        const auto scale = [align = align](int in, int to) {
          return align && to > 1 ? static_cast<float>(in - 1) / (to - 1) : static_cast<float>(in) / to;
        };
        std::vector<double> bilinear, nearest;
        for (int n = 0; n < out[0]; n++) {
          for (int oy = 0; oy < out[1]; oy++) {
            for (int ox = 0; ox < out[2]; ox++) {
              for (int c = 0; c < out[3]; c++) {
                const auto pixel = [&](int y, int px) -> double {
                  return x[((static_cast<size_t>(n) * dims[1] + y) * dims[2] + px) * dims[3] + c];
                };
                const int to[2] = {oy, ox};
                int lower[2], upper[2], near[2];
                float at[2];
                for (int d : {0, 1}) {
                  const float s = scale(dims[1 + d], out[1 + d]);
                  at[d] = half ? (to[d] + 0.5f) * s - 0.5f : to[d] * s;
                  lower[d] = std::max(static_cast<int>(std::floor(at[d])), 0);
                  upper[d] = std::min(static_cast<int>(std::ceil(at[d])), dims[1 + d] - 1);
                  const float offset = half ? 0.5f : 0.0f;
                  near[d] = std::min(
                      static_cast<int>(align ? std::round((to[d] + offset) * s) : std::floor((to[d] + offset) * s)),
                      dims[1 + d] - 1);
                  if (half) near[d] = std::max(0, near[d]);
                }
                const double dy = at[0] - lower[0], dx = at[1] - lower[1];
                bilinear.push_back(pixel(lower[0], lower[1]) * (1 - dy) * (1 - dx) +
                                   pixel(upper[0], lower[1]) * dy * (1 - dx) +
                                   pixel(lower[0], upper[1]) * (1 - dy) * dx + pixel(upper[0], upper[1]) * dy * dx);
                nearest.push_back(pixel(near[0], near[1]));
              }
            }
          }
        }
        const auto set_up = [&](NodeTester* node) {
          TfLiteResizeBilinearParams params = {};
          params.align_corners = align;
          params.half_pixel_centers = half;
          node->Input(dims, x).Constant({2}, std::vector<int32_t>{size[0], size[1]}).Params(params);
        };
        ExpectNear(Run(set_up, kTfLiteBuiltinResizeBilinear, out), bilinear, 1e-6);
        const auto set_up_nearest = [&](NodeTester* node) {
          TfLiteResizeNearestNeighborParams params = {};
          params.align_corners = align;
          params.half_pixel_centers = half;
          node->Input(dims, x).Constant({2}, std::vector<int32_t>{size[0], size[1]}).Params(params);
        };
        ExpectNear(Run(set_up_nearest, kTfLiteBuiltinResizeNearestNeighbor, out), nearest, 0);
      }
    }
  }
}

// A multiplication by a constant a channel and the addition of another are one op, with the bits that two would have.
TEST_P(PlanarOps, ScaleAndShift) {
  struct Case {
    Dims scale, shift;
    bool seen, fused;  // the product is a result as well
  };
  const Case kCases[] = {{{5}, {5}, false, true},         {{1, 1, 1, 5}, {5}, false, true}, {{5}, {5}, true, false},
                         {{9, 14, 5}, {5}, false, false}, {{5}, {9, 14, 5}, false, false},  {{1}, {5}, false, true},
                         {{5}, {}, false, true}};
  Random random(8);
  const Dims dims = {2, 9, 14, 5};
  const Tensor x(dims, &random);
  for (const Case& c : kCases) {
    for (bool swapped : {false, true}) {
      for (float high : {0.25f, static_cast<float>(kInfinity)}) {
        SCOPED_TRACE(::testing::Message() << Show(c.scale) << ", " << Show(c.shift) << (c.seen ? ", seen" : ""));
        const std::vector<float> scale = random.Floats(static_cast<size_t>(graph::Count(c.scale)));
        const std::vector<float> shift = random.Floats(static_cast<size_t>(graph::Count(c.shift)));
        Tensor product(dims), sum(dims);
        for (size_t i = 0; i < x.data.size(); i++) {
          volatile float rounded = x.data[i] * Stretched(scale, c.scale, dims, i);
          product.data[i] = rounded;
          sum.data[i] = std::min(high, product.data[i] + Stretched(shift, c.shift, dims, i));
        }
        graph::Graph graph;
        const int input = graph.Planar(graph.AddInput(dims));
        const int scales = graph.AddConstant(c.scale, scale.data()), shifts = graph.AddConstant(c.shift, shift.data());
        const int scaled = ops::AddBinary(&graph, kernels::kMul, swapped ? scales : input, swapped ? input : scales,
                                          -kInfinity, kInfinity);
        const int shifted = ops::AddBinary(&graph, kernels::kAdd, swapped ? shifts : scaled, swapped ? scaled : shifts,
                                           -kInfinity, high);
        graph.AddOutput(shifted);
        if (c.seen) graph.AddOutput(scaled);
        std::string error;
        ASSERT_TRUE(graph.Prepare(level(), 2, &error)) << error;
        const auto adds = [](const auto& op) { return std::string(op->name()) == "add"; };
        EXPECT_EQ(std::any_of(graph.ops().begin(), graph.ops().end(), adds), !c.fused);
        const std::vector<Dims> results(c.seen ? 2 : 1, dims);
        const std::vector<Tensor> got = RunTwice(&graph, {&x}, results, 2);
        EXPECT_TRUE(SameBits(got[0].data, sum.data));
        if (c.seen) {
          EXPECT_TRUE(SameBits(got[1].data, product.data));
        }
      }
    }
  }
}

// What lies between the rows, whatever it is, stays out of the images.
TEST_P(PlanarOps, NothingFromBetweenTheRows) {
  Random random(7);
  const Dims dims = {2, 9, 14, 5};
  const Tensor x(dims, &random);
  // An image of that size whose rows are farther apart, NaN between them.
  const auto poisoned = [&](graph::Graph* graph, int input) {
    const int value = graph->AddValue(dims);
    graph->AddOp(std::make_unique<ResampleOp>(graph->Planar(input), value, 19));
    return value;
  };
  using AddOps = std::function<int(graph::Graph*, int)>;
  const AddOps kOps[] = {
      [](graph::Graph* g, int v) { return ops::AddUnary(g, kernels::kTanh, v); },
      [](graph::Graph* g, int v) { return ops::AddBinary(g, kernels::kAdd, v, v, -kInfinity, kInfinity); },
      [](graph::Graph* g, int v) { return ops::AddPad(g, v, {{{0, 0}, {1, 2}, {2, 1}, {0, 0}}}, 0.0f); },
      [](graph::Graph* g, int v) { return ops::AddConcat(g, {v, v}, 3); },
      [](graph::Graph* g, int v) { return ops::AddConcat(g, {v, v}, 2); },
      [](graph::Graph* g, int v) { return ops::AddResize(g, v, {true, false, true, 13, 40}); },
  };
  for (const AddOps& add : kOps) {
    std::vector<std::vector<Tensor>> outputs;
    for (bool poison : {false, true}) {
      graph::Graph graph;
      const int input = graph.AddInput(dims);
      const int output = add(&graph, poison ? poisoned(&graph, input) : graph.Planar(input));
      const Dims out_dims = graph.value(output).dims;
      graph.AddOutput(output);
      std::string error;
      ASSERT_TRUE(graph.Prepare(level(), 2, &error)) << error;
      outputs.push_back(RunTwice(&graph, {&x}, {out_dims}, 2));
    }
    EXPECT_TRUE(SameBits(outputs[0][0].data, outputs[1][0].data)) << "op " << &add - kOps;
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
