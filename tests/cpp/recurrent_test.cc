// The gates' kernels and the recurrent ops, on every CPU level, against loops in double precision.
#include "tflite_delegate/kernels/recurrent.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/node_testing.h"
#include "tests/cpp/sparse_model.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Dims;

double Logistic(double v) { return 1 / (1 + std::exp(-v)); }

class RecurrentTest : public ::testing::TestWithParam<const kernels::KernelTable*> {
 protected:
  const kernels::KernelTable& level() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Levels, RecurrentTest, ::testing::ValuesIn(Levels()), LevelName);

// Each gate in memory of its own, guarded, of all magnitudes at which a gate is neither open nor shut.
struct Gates {
  Gates(int gates, size_t units, Random* random) {
    for (int g = 0; g < gates; g++) {
      memory.emplace_back(units);
      for (size_t i = 0; i < units; i++) memory.back()[i] = std::ldexp(random->Float(), 4 - random->Below(30));
    }
    for (const Guarded<float>& gate : memory) run.push_back(gate.data());
  }
  double at(int gate, size_t i) const { return memory[static_cast<size_t>(gate)][i]; }

  std::deque<Guarded<float>> memory;
  std::vector<const float*> run;
};

TEST_P(RecurrentTest, Kernels) {
  Random random(1);
  const kernels::RecurrentKernels& kernels = level().recurrent;
  for (size_t units : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100}) {
    SCOPED_TRACE(units);
    const int64_t n = static_cast<int64_t>(units);
    const Gates input(4, units, &random), state(4, units, &random);
    Guarded<float> h(random.Floats(units)), next(units), cell(units);
    const std::vector<float> before(h.data(), h.data() + units);
    kernels.reset(input.run[1], state.run[1], h.data(), next.data(), n);
    for (size_t i = 0; i < units; i++) {
      EXPECT_NEAR(next[i], Logistic(input.at(1, i) + state.at(1, i)) * before[i], 1e-6);
    }
    next.ExpectCanaries();
    kernels.lstm(input.run.data(), state.run.data(), h.data(), cell.data(), next.data(), n);
    for (size_t i = 0; i < units; i++) {
      const auto gate = [&](int g) { return input.at(g, i) + state.at(g, i); };
      const double c = Logistic(gate(1)) * before[i] + Logistic(gate(0)) * std::tanh(gate(2));
      EXPECT_NEAR(cell[i], c, 2e-6);
      EXPECT_NEAR(next[i], Logistic(gate(3)) * std::tanh(c), 2e-6);
    }
    next.ExpectCanaries();
    cell.ExpectCanaries();
    // In place, as the ops call them.
    kernels.gru(input.run.data(), state.run.data(), h.data(), h.data(), n);
    for (size_t i = 0; i < units; i++) {
      const double z = Logistic(input.at(0, i) + state.at(0, i)), r = Logistic(input.at(1, i) + state.at(1, i));
      const double c = std::tanh(input.at(2, i) + r * state.at(2, i));
      EXPECT_NEAR(h[i], z * before[i] + (1 - z) * c, 2e-6);
      h[i] = before[i];
    }
    kernels.update(input.run.data(), state.run[0], state.run[2], h.data(), h.data(), n);
    for (size_t i = 0; i < units; i++) {
      const double z = Logistic(input.at(0, i) + state.at(0, i));
      EXPECT_NEAR(h[i], z * before[i] + (1 - z) * std::tanh(input.at(2, i) + state.at(2, i)), 2e-6);
    }
    h.ExpectCanaries();
  }
}

TEST_P(RecurrentTest, WhatIsNoNumberShowsInItsUnitAlone) {
  Random random(2);
  const std::vector<float> input = random.Floats(20), state = random.Floats(20), h = {0, 0, kNan, 0, 0};
  const float* in[4] = {&input[0], &input[5], &input[10], &input[15]};
  const float* part[4] = {&state[0], &state[5], &state[10], &state[15]};
  std::vector<float> next(5), cell(5);
  level().recurrent.gru(in, part, h.data(), next.data(), 5);
  for (size_t i = 0; i < 5; i++) EXPECT_EQ(std::isnan(next[i]), i == 2);
  level().recurrent.lstm(in, part, h.data(), cell.data(), next.data(), 5);
  for (size_t i = 0; i < 5; i++) EXPECT_EQ(std::isnan(next[i]), i == 2);
}

// A layer as a model holds it, and the dense matrices it stands for.
struct Layer {
  Layer(bool is_lstm, int32_t input_columns, int32_t layer_units, bool after, bool sequences, bool biased,
        Random* random)
      : lstm(is_lstm), reset_after(after), return_sequences(sequences), columns(input_columns), units(layer_units) {
    const int32_t rows = gates() * units, stored = reset_after ? rows : 2 * units;
    const auto matrix = [&](int32_t r, int32_t c) {
      return RandomModel(r, c, r < 4 ? 2 : 4, false, 0.15, "none", false, random);
    };
    kernel = matrix(rows, columns);
    recurrent = matrix(stored, units);
    if (!reset_after) candidate = matrix(units, units);
    if (biased) {
      bias = random->Floats(rows);
      recurrent_bias = random->Floats(stored);
    }
    options.Int("version", 1).Int("units", units).Bool("return_sequences", return_sequences);
    if (!lstm) options.Bool("reset_after", reset_after);
  }
  int32_t gates() const { return lstm ? 4 : 3; }

  bool lstm, reset_after, return_sequences;
  int32_t columns, units;
  SparseModel kernel, recurrent, candidate;
  std::vector<float> bias, recurrent_bias;
  FlexMapBuilder options;
};

// A matrix input of the node, and its options under a key; dense where it holds nothing, which no values tensor can.
void AddMatrix(const SparseModel& model, const char* key, int32_t rows, int32_t columns, NodeTester* node,
               FlexMapBuilder* options) {
  if (model.values.empty()) {
    node->Constant({rows, columns}, std::vector<float>(model.dense.begin(), model.dense.end()));
  } else {
    node->Constant({static_cast<int32_t>(model.values.size())}, model.values);
    options->Blob(key, model.options);
  }
}

NodeTester MakeNode(const Layer& layer, const Dims& input, const std::vector<float>& x, const std::vector<float>& h,
                    const std::vector<float>& c, FlexMapBuilder options, const std::vector<float>& mask = {}) {
  NodeTester node(layer.lstm ? "BlockSparseLSTM" : "BlockSparseGRU");
  const int32_t rows = layer.gates() * layer.units, stored = layer.reset_after ? rows : 2 * layer.units;
  node.Input(input, x);
  AddMatrix(layer.kernel, "kernel", rows, layer.columns, &node, &options);
  AddMatrix(layer.recurrent, "recurrent_kernel", stored, layer.units, &node, &options);
  if (layer.reset_after) {
    node.Absent();
  } else {
    AddMatrix(layer.candidate, "candidate_kernel", layer.units, layer.units, &node, &options);
  }
  for (const std::vector<float>* bias : {&layer.bias, &layer.recurrent_bias}) {
    bias->empty() ? node.Absent() : node.Constant({static_cast<int32_t>(bias->size())}, *bias);
  }
  const int32_t batch = static_cast<int32_t>(h.size()) / layer.units;
  node.Input({batch, layer.units}, h);
  if (layer.lstm) node.Input({batch, layer.units}, c);
  if (!mask.empty()) node.Input({static_cast<int32_t>(mask.size()) / batch, batch, 1}, mask);
  return std::move(node.Outputs(layer.lstm ? 3 : 2).CustomOptions(options.Finish()));
}

std::vector<double> Product(const SparseModel& model, const std::vector<float>& bias, const double* x, int32_t rows,
                            int32_t columns) {
  std::vector<double> y(bias.begin(), bias.end());
  y.resize(static_cast<size_t>(rows), 0.0);
  for (int32_t r = 0; r < rows; r++) {
    for (int32_t k = 0; k < columns; k++) y[r] += model.dense[static_cast<size_t>(r) * columns + k] * x[k];
  }
  return y;
}

// One step of one vector of the batch.
void Step(const Layer& layer, const float* input, std::vector<double>* h, std::vector<double>* c) {
  const int32_t units = layer.units, rows = layer.gates() * units;
  const std::vector<double> x(input, input + layer.columns), before = *h;
  const std::vector<double> a = Product(layer.kernel, layer.bias, x.data(), rows, layer.columns);
  const std::vector<double> b =
      Product(layer.recurrent, layer.recurrent_bias, before.data(), layer.reset_after ? rows : 2 * units, units);
  std::vector<double> reset(before);
  for (int32_t u = 0; u < units; u++) reset[u] *= Logistic(a[units + u] + b[units + u]);
  std::vector<double> candidate;
  if (!layer.reset_after) candidate = Product(layer.candidate, {}, reset.data(), units, units);
  for (int32_t u = 0; u < units; u++) {
    const auto gate = [&](int g) { return a[g * units + u] + b[g * units + u]; };
    if (layer.lstm) {
      (*c)[u] = Logistic(gate(1)) * (*c)[u] + Logistic(gate(0)) * std::tanh(gate(2));
      (*h)[u] = Logistic(gate(3)) * std::tanh((*c)[u]);
      continue;
    }
    const double r = Logistic(gate(1)), z = Logistic(gate(0));
    const double from_state = layer.reset_after ? r * b[2 * units + u] : candidate[u];
    (*h)[u] = z * before[u] + (1 - z) * std::tanh(a[2 * units + u] + from_state);
  }
}

void ExpectNear(const std::vector<float>& got, const std::vector<double>& exact) {
  ASSERT_EQ(got.size(), exact.size());
  for (size_t i = 0; i < got.size(); i++) ASSERT_NEAR(got[i], exact[i], 5e-6) << "value " << i;
}

TEST_P(RecurrentTest, Layers) {
  Random random(3);
  for (int kind = 0; kind < 3; kind++) {
    const bool lstm = kind == 2, reset_after = kind != 1;
    for (int32_t units : {1, 5, 18, 33}) {
      for (int32_t steps : {1, 2, 9}) {
        for (int32_t batch : {1, 3}) {
          for (bool sequences : {false, true}) {
            if (kSlow && random.Chance(0.5)) continue;
            SCOPED_TRACE(::testing::Message()
                         << (lstm ? "LSTM " : "GRU ") << units << " units, reset_after " << reset_after << ", " << steps
                         << " steps of " << batch << (sequences ? ", sequences" : ""));
            const Layer layer(lstm, 1 + random.Below(20), units, reset_after, sequences, random.Chance(0.7), &random);
            const std::vector<float> x = random.Floats(steps * batch * layer.columns);
            const std::vector<float> first = random.Floats(batch * units), cell = random.Floats(batch * units);
            NodeTester node = MakeNode(layer, {steps, batch, layer.columns}, x, first, cell, layer.options);
            std::vector<std::vector<float>> one;
            for (int threads : {1, 3}) {
              ASSERT_EQ(node.Run(level(), threads), "");
              EXPECT_EQ(node.output_dims(0), (Dims{sequences ? steps : 1, batch, units}));
              EXPECT_EQ(node.output_dims(1), (Dims{batch, units}));
              for (size_t i = 0; i < (lstm ? 3u : 2u); i++) {
                if (threads == 1) one.push_back(node.output(i));
                EXPECT_TRUE(SameBits(node.output(i), one[i])) << threads << " threads";
              }
            }
            std::vector<double> all(one[0].size()), h_last, c_last;
            for (int32_t n = 0; n < batch; n++) {
              std::vector<double> h(&first[n * units], &first[n * units] + units);
              std::vector<double> c(&cell[n * units], &cell[n * units] + units);
              for (int32_t t = 0; t < steps; t++) {
                Step(layer, &x[static_cast<size_t>(t * batch + n) * layer.columns], &h, &c);
                const size_t at = static_cast<size_t>((sequences ? t * batch : 0) + n) * units;
                std::copy(h.begin(), h.end(), all.begin() + static_cast<std::ptrdiff_t>(at));
              }
              h_last.insert(h_last.end(), h.begin(), h.end());
              c_last.insert(c_last.end(), c.begin(), c.end());
            }
            ExpectNear(one[0], all);
            ExpectNear(one[1], h_last);
            if (lstm) ExpectNear(one[2], c_last);
          }
        }
      }
    }
  }
}

// Steps that do not count leave states and outputs as they were: at the beginning, where outputs are zero whatever the
// states are, in between, at the end and throughout. What stands in their input does not matter.
TEST_P(RecurrentTest, MaskedLayers) {
  Random random(7);
  const int32_t steps = 7, batch = 4, units = 18;
  const char* const masks[batch] = {"0010110", "1111000", "1000001", "0000000"};
  for (int kind = 0; kind < 3; kind++) {
    const bool lstm = kind == 2;
    for (bool sequences : {false, true}) {
      for (bool zero : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "kind " << kind << ", sequences " << sequences << ", zero " << zero);
        const Layer layer(lstm, 5, units, kind != 1, sequences, true, &random);
        FlexMapBuilder options = layer.options;
        if (zero) options.Bool("zero_output_for_mask", true);
        std::vector<float> x = random.Floats(steps * batch * 5), mask;
        for (int32_t t = 0; t < steps; t++) {
          for (int32_t n = 0; n < batch; n++) {
            mask.push_back(masks[n][t] == '1');
            if (masks[n][t] == '0') x[static_cast<size_t>(t * batch + n) * 5 + 2] = kNan;
          }
        }
        for (int32_t used : {batch, 1}) {  // with a batch of 1, whole steps do not count
          const std::vector<float> first = random.Floats(used * units), cell = random.Floats(used * units);
          std::vector<float> one_x, one_mask;
          for (int32_t i = 0; i < steps * batch; i++) {
            if (i % batch >= used) continue;
            one_mask.push_back(mask[static_cast<size_t>(i)]);
            one_x.insert(one_x.end(), &x[static_cast<size_t>(i) * 5], &x[static_cast<size_t>(i) * 5] + 5);
          }
          NodeTester node = MakeNode(layer, {steps, used, 5}, one_x, first, cell, options, one_mask);
          ASSERT_EQ(node.Run(level(), 2), "");
          std::vector<double> all(node.output(0).size()), h_last, c_last;
          for (int32_t n = 0; n < used; n++) {
            std::vector<double> h(&first[n * units], &first[n * units] + units), out(units);
            std::vector<double> c(&cell[n * units], &cell[n * units] + units);
            for (int32_t t = 0; t < steps; t++) {
              if (masks[n][t] == '1') {
                Step(layer, &x[static_cast<size_t>(t * batch + n) * 5], &h, &c);
                out = h;
              } else if (zero) {
                out.assign(units, 0.0);
              }
              const size_t at = static_cast<size_t>((sequences ? t * used : 0) + n) * units;
              std::copy(out.begin(), out.end(), all.begin() + static_cast<std::ptrdiff_t>(at));
            }
            h_last.insert(h_last.end(), h.begin(), h.end());
            c_last.insert(c_last.end(), c.begin(), c.end());
          }
          ExpectNear(node.output(0), all);
          ExpectNear(node.output(1), h_last);
          if (lstm) ExpectNear(node.output(2), c_last);
        }
      }
    }
  }
}

// Large enough that rows and units are really divided.
TEST_P(RecurrentTest, ThreadsDoNotChangeABit) {
  Random random(4);
  const int32_t units = kSlow ? 300 : 700, batch = kSlow ? 7 : 3, steps = 2, columns = 70;
  for (bool lstm : {false, true}) {
    const Layer layer(lstm, columns, units, true, true, true, &random);
    const std::vector<float> x = random.Floats(steps * batch * columns);
    const std::vector<float> h = random.Floats(batch * units), c = random.Floats(batch * units);
    NodeTester node = MakeNode(layer, {steps, batch, columns}, x, h, c, layer.options);
    std::vector<float> one;
    for (int threads : {1, 2, 3}) {
      ASSERT_EQ(node.Run(level(), threads), "");
      if (threads == 1) one = node.output();
      EXPECT_TRUE(SameBits(node.output(), one)) << threads << " threads";
    }
  }
}

TEST(BlockSparseRecurrent, IsRefusedWithAReason) {
  Random random(5);
  const Layer gru(false, 6, 8, true, true, true, &random), lstm(true, 6, 8, true, true, true, &random);
  const auto claim = [&](const Layer& layer, const Dims& input, int32_t state, FlexMapBuilder options) {
    const std::vector<float> x = random.Floats(static_cast<size_t>(graph::Count(input)));
    const std::vector<float> h = random.Floats(state * layer.units);
    return MakeNode(layer, input, x, h, h, options).Claim();
  };
  EXPECT_EQ(claim(gru, {4, 2, 6}, 2, gru.options), "");
  EXPECT_EQ(claim(lstm, {4, 2, 6}, 2, lstm.options), "");
  EXPECT_EQ(claim(gru, {4, 2, 6}, 3, gru.options), "a state has the shape 3 x 8; expected 2 x 8");
  EXPECT_EQ(claim(lstm, {4, 2, 6}, 3, lstm.options), "a state has the shape 3 x 8; expected 2 x 8");
  EXPECT_EQ(claim(gru, {4, 6}, 2, gru.options), "the input has 2 dimensions; expected 3");
  EXPECT_EQ(claim(gru, {4, 2, 7}, 2, gru.options), "key \"kernel\": the matrix is 24 x 6; expected 24 x 7");
  FlexMapBuilder options = gru.options;
  EXPECT_EQ(claim(gru, {4, 2, 6}, 2, options.Int("units", 9)), "key \"kernel\": the matrix is 24 x 6; expected 27 x 6");
  options = gru.options;
  EXPECT_EQ(claim(gru, {4, 2, 6}, 2, options.Bool("reset_after", false)),
            "key \"recurrent_kernel\": the matrix is 24 x 8; expected 16 x 8");
  options = gru.options;
  EXPECT_EQ(claim(gru, {4, 2, 6}, 2, options.Blob("candidate_kernel", {1})),
            "key \"candidate_kernel\" stands beside \"reset_after\"; expected one of the two");
  options = lstm.options;
  EXPECT_EQ(claim(lstm, {4, 2, 6}, 2, options.Blob("candidate_kernel", {1})),
            "key \"candidate_kernel\" is there; expected none, as an LSTM has no such matrix");
  options = lstm.options;
  EXPECT_EQ(claim(lstm, {4, 2, 6}, 2, options.Blob("loop_outputs", {1, 2, 3})),
            "key \"loop_outputs\" has 3 bytes; expected a multiple of 4");
  Layer other = gru;
  other.bias.pop_back();
  EXPECT_EQ(claim(other, {4, 2, 6}, 2, gru.options), "the bias has 23 values; expected gates * units = 24");
  // As a model for another layer's inputs.
  NodeTester node("BlockSparseLSTM");
  node.Input({1, 1, 1}, {0.0f}).Outputs(2);
  EXPECT_EQ(node.Claim(), "it must have 8 inputs, or a mask behind them, and 3 outputs");
  const std::vector<float> x = random.Floats(4 * 2 * 6), h = random.Floats(2 * 8);
  const auto masked = [&](int32_t values) {
    return MakeNode(gru, {4, 2, 6}, x, h, {}, gru.options, random.Floats(values)).Claim();
  };
  EXPECT_EQ(masked(8), "");
  EXPECT_EQ(masked(6), "the mask is not 4 x 2 x 1, as the input's steps and batch");
}

// Whatever a byte of the options is changed to, the node is claimed or refused, and reads nothing that is not its own.
TEST(BlockSparseRecurrent, SurvivesDamagedOptions) {
  Random random(6);
  const Layer layer(false, 6, 8, true, true, false, &random);
  const std::vector<float> x = random.Floats(4 * 6), h = random.Floats(8);
  FlexMapBuilder all = layer.options;
  all.Blob("kernel", layer.kernel.options).Blob("recurrent_kernel", layer.recurrent.options);
  const std::vector<uint8_t> options = all.Finish();
  for (size_t i = 0; i < options.size(); i++) {
    for (int change : {1, 0x80, 0xff}) {
      std::vector<uint8_t> damaged = options;
      damaged[i] = static_cast<uint8_t>(damaged[i] ^ change);
      NodeTester node = MakeNode(layer, {4, 1, 6}, x, h, {}, layer.options);
      node.CustomOptions(damaged);
      node.Claim();
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
