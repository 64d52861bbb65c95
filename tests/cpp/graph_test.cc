// The internal graph: layouts, borders, the memory plan, and results in the caller's memory.
#include "tflite_delegate/graph/graph.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/graph_testing.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/graph/layout_ops.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Graph;
using graph::Layout;
using graph::Op;

// A graph, and the same computed on whole tensors.
class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  Graph& graph() { return graph_; }
  const Dims& dims(int value) const { return graph_.value(value).dims; }
  bool planar(int value) const { return graph_.value(value).layout == Layout::kPlanar; }

  int Input(const Dims& dims) {
    inputs_.push_back(std::make_unique<Tensor>(dims, &random_));
    return Is(graph_.AddInput(dims), *inputs_.back());
  }
  int Constant(const Dims& dims) {
    constants_.push_back(std::make_unique<Tensor>(dims, &random_));
    return Is(graph_.AddConstant(dims, constants_.back()->data.data()), *constants_.back());
  }
  int Planar(int value) { return Is(graph_.Planar(value), Tensor(exact_[value])); }
  int Interleaved(int value) { return Is(graph_.Interleaved(value), Tensor(exact_[value])); }

  int Mix(const std::vector<int>& inputs, int in_place = -1, size_t scratch = 0, bool interleaved = false) {
    std::vector<const Tensor*> in;
    for (int v : inputs) in.push_back(&exact_[v]);
    const Tensor exact = MixOp::Exact(in);
    const int output = Is(graph_.AddValue(exact.dims, interleaved), exact);
    if (in_place >= 0 && planar(inputs[in_place]) != planar(output)) in_place = -1;
    return Add(std::make_unique<MixOp>(inputs, output, in_place, &trace_), scratch);
  }
  int Window(int input, const Border& border, size_t scratch = 0) {
    const Tensor exact = WindowOp::Exact(exact_[input], border);
    const int output = Is(graph_.AddValue(exact.dims), exact);
    return Add(std::make_unique<WindowOp>(input, output, border, &trace_), scratch);
  }
  int Resample(int input, const Dims& dims, int32_t min_row, size_t scratch = 0) {
    const Tensor exact = ResampleOp::Exact(exact_[input], dims);
    const int output = Is(graph_.AddValue(dims), exact);
    return Add(std::make_unique<ResampleOp>(input, output, min_row, &trace_), scratch);
  }
  int Concatenation(const std::vector<int>& inputs, size_t scratch = 0) {
    std::vector<const Tensor*> in;
    for (int v : inputs) in.push_back(&exact_[v]);
    const Tensor exact = ConcatenationOp::Exact(in);
    const int output = Is(graph_.AddValue(exact.dims), exact);
    concatenations_.push_back(std::make_unique<std::vector<int>>(inputs));
    auto op = std::make_unique<ConcatenationOp>(inputs, output, &trace_);
    last_concatenation_ = op.get();
    return Add(std::move(op), scratch);
  }
  void Output(int value) {
    outputs_.push_back(exact_[value]);
    graph_.AddOutput(value);
  }

  // Prepares, runs and checks results and memory.
  void Check(int threads = 1) {
    std::string error;
    ASSERT_TRUE(graph_.Prepare(*Levels()[0], threads, &error)) << error;
    std::vector<const Tensor*> inputs;
    for (const auto& t : inputs_) inputs.push_back(t.get());
    std::vector<Dims> output_dims;
    for (const Tensor& t : outputs_) output_dims.push_back(t.dims);
    const std::vector<Tensor> got = RunTwice(&graph_, inputs, output_dims, threads);
    for (size_t i = 0; i < got.size(); i++) {
      EXPECT_EQ(FirstDifference(got[i], outputs_[i]), "") << "result " << i << " of\n" << Text();
    }
    CheckMemory();
  }

  const Trace& trace() const { return trace_; }
  const ConcatenationOp* last_concatenation() const { return last_concatenation_; }

 private:
  // "" where two tensors are the same to the bit.
  static std::string FirstDifference(const Tensor& got, const Tensor& exact) {
    for (size_t i = 0; i < exact.data.size(); i++) {
      if (BitsOf(got.data[i]) == BitsOf(exact.data[i])) continue;
      std::string text;
      for (int32_t d : exact.dims) text += std::to_string(d) + " ";
      return text + "float " + std::to_string(i) + " is " + std::to_string(got.data[i]) + " instead of " +
             std::to_string(exact.data[i]);
    }
    return "";
  }
  // The ops as they ran, a line each.
  std::string Text() const {
    std::string text;
    for (const auto& op : graph_.ops()) {
      text += std::to_string(op->output) + " = " + op->name() + "(";
      for (int v : op->inputs) text += " " + std::to_string(v);
      text += " )";
      for (int32_t d : dims(op->output)) text += " " + std::to_string(d);
      text += op->InPlaceInput() >= 0 ? ", in place of " + std::to_string(op->inputs[op->InPlaceInput()]) + "\n" : "\n";
    }
    return text;
  }

  // Notes what a value should hold.
  int Is(int value, const Tensor& exact) {
    exact_[value] = exact;
    return value;
  }
  int Add(std::unique_ptr<TestOp> op, size_t scratch) {
    const int output = op->output;
    op->scratch_floats = scratch;
    graph_.AddOp(std::move(op));
    return output;
  }

  // No two pieces of memory that are in use at the same time overlap, but for those that must.
  void CheckMemory() const {
    struct Life {
      int value;  // -1: scratch
      const float *begin, *end;
      int first, last;  // ops
    };
    const auto& ops = graph_.ops();
    std::map<const Op*, int> at;
    std::map<int, std::pair<int, int>> life;
    for (size_t i = 0; i < ops.size(); i++) {
      at[ops[i].get()] = static_cast<int>(i);
      for (int v : ops[i]->inputs) life[v].second = static_cast<int>(i);
      if (life.count(ops[i]->output) == 0) life[ops[i]->output] = {static_cast<int>(i), static_cast<int>(i)};
    }
    std::set<std::pair<int, const float*>> seen;
    std::vector<Life> lives;
    const size_t half = trace_.accesses.size() / 2;  // of the second run
    for (size_t i = half; i < trace_.accesses.size(); i++) {
      const Trace::Access& access = trace_.accesses[i];
      const int op = at[access.op];
      if (access.value >= 0 && !seen.insert({access.value, access.begin}).second) continue;
      if (access.value >= 0 && graph_.value(access.value).constant != nullptr) continue;
      const auto [first, last] = access.value >= 0 ? life[access.value] : std::pair(op, op);
      lives.push_back({access.value, access.begin, access.end, first, last});
    }
    for (size_t i = 0; i < lives.size(); i++) {
      for (size_t j = 0; j < i; j++) {
        const Life &a = lives[i].first <= lives[j].first ? lives[i] : lives[j],
                   &b = &a == &lives[i] ? lives[j] : lives[i];
        if (a.value >= 0 && a.value == b.value) continue;
        if (a.end <= b.begin || b.end <= a.begin || a.last < b.first) continue;
        // In place: b takes over from a at the op that reads a for the last time.
        const bool in_place = a.value >= 0 && b.value >= 0 && a.last == b.first && a.begin == b.begin &&
                              ops[a.last]->output == b.value && ops[a.last]->InPlaceInput() >= 0 &&
                              ops[a.last]->inputs[ops[a.last]->InPlaceInput()] == a.value;
        EXPECT_TRUE(in_place || IsPart(a.value, b.value) || IsPart(b.value, a.value))
            << "values " << a.value << " (ops " << a.first << " to " << a.last << ") and " << b.value << " (ops "
            << b.first << " to " << b.last << ") share memory";
      }
    }
  }

  // Is `part` an input of a concatenation that makes `whole`, or of one that makes a part of it?
  bool IsPart(int part, int whole) const {
    for (const auto& op : graph_.ops()) {
      if (op->output != whole || !op->ConcatenatesChannels()) continue;
      for (int v : op->inputs) {
        if (v == part || IsPart(part, v)) return true;
      }
    }
    return false;
  }

  Random random_;
  Graph graph_;
  Trace trace_;
  std::vector<std::unique_ptr<Tensor>> inputs_, constants_;
  std::vector<std::unique_ptr<std::vector<int>>> concatenations_;
  const ConcatenationOp* last_concatenation_ = nullptr;
  std::map<int, Tensor> exact_;
  std::vector<Tensor> outputs_;
};

TEST(Graph, ThereAndBack) {
  for (const Dims& dims :
       {Dims{1, 1, 2, 1}, {1, 7, 5, 3}, {3, 2, 33, 18}, {2, 17, 16, 33}, {1, 1, 1, 5}, {4, 1, 1, 1}}) {
    Model model(1);
    const int input = model.Input(dims);
    const int planar = model.Planar(input);
    EXPECT_EQ(planar == input, dims[1] * dims[2] == 1);
    EXPECT_EQ(model.graph().Planar(input), planar);  // made once
    EXPECT_EQ(model.graph().Planar(planar), planar);
    model.Output(planar);
    model.Check(1 + dims[0]);
  }
}

TEST(Graph, ResultsThatAreInputsConstantsOrEachOther) {
  Model model(2);
  const int input = model.Input({2, 3, 4, 5}), constant = model.Constant({1, 2, 3, 4});
  const int mix = model.Mix({input, input});
  model.Output(input);
  model.Output(input);
  model.Output(mix);
  model.Output(constant);
  model.Output(mix);
  model.Output(model.Interleaved(mix));
  model.Output(model.Planar(input));
  model.Check();
  EXPECT_EQ(model.graph().input_count(), 1u);
  EXPECT_EQ(model.graph().output_count(), 7u);
}

TEST(Graph, AResultMayBeReadOn) {
  Model model(3);
  const int input = model.Input({1, 1, 1, 40});
  const int first = model.Mix({input}, 0);  // may not take the caller's memory
  const int second = model.Mix({first}, 0);
  model.Output(first);
  model.Output(model.Mix({second, first}, 0));
  model.Output(model.Mix({second, input}, 1));
  model.Check();
}

TEST(Graph, AGraphWithoutOps) {
  Model model(4);
  model.Output(model.Input({1, 2, 2, 3}));
  model.Check();
  Graph empty;
  std::string error;
  EXPECT_TRUE(empty.Prepare(*Levels()[0], 1, &error)) << error;
  graph::ThreadPool pool(1);
  empty.Run(nullptr, nullptr, &pool);
}

TEST(Graph, UnusedOpsDoNotRun) {
  Model model(5);
  const int input = model.Input({1, 4, 4, 2});
  const int used = model.Mix({input});
  const int unused = model.Mix({used});
  model.Mix({unused, used});
  model.Planar(model.Input({1, 9, 9, 9}));
  model.Output(model.Mix({used}));
  model.Check();
  EXPECT_EQ(model.trace().ran.size(), 4u);    // two ops, two runs
  EXPECT_EQ(model.graph().ops().size(), 3u);  // and a transposition
}

TEST(Graph, BordersAreZeroForThoseWhoAskForThem) {
  for (const Border& border : {Border{1, 1, 1, 1}, {0, 0, 2, 3}, {2, 3, 0, 0}, {0, 1, 0, 0}, {3, 0, 0, 1}}) {
    for (const auto& [height, width] : {std::pair(1, 2), {5, 5}, {15, 30}, {31, 14}, {16, 16}, {2, 40}}) {
      Model model(6);
      const int input = model.Planar(model.Input({2, height, width, 3}));
      const int before = model.Mix({input});
      const int window = model.Window(before, border);
      // Of the same planes, but without a border of its own; and one that is in the way of a missing zero.
      const int other = model.Window(model.Mix({window, before}), {1, 0, 0, 1});
      model.Output(model.Mix({other, input}, 0));
      model.Output(before);
      model.Check(2);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

// A border is zeroed within the value's own memory.
TEST(Graph, ZeroBordersStayInside) {
  for (const Border& border :
       {Border{1, 1, 1, 1}, {2, 2, 2, 2}, {0, 0, 1, 1}, {0, 0, 0, 1}, {0, 2, 0, 0}, {3, 0, 1, 2}}) {
    for (int32_t height = 1; height < 64; height += kSlow ? 5 : 1) {
      for (int32_t width = 2; width < 64; width += kSlow ? 3 : 1) {
        SCOPED_TRACE(::testing::Message() << height << " x " << width);
        Graph graph;
        const Dims dims = {1, height, width, 1};
        const int input = graph.AddInput(dims);
        const int image = graph.Planar(input);
        const int output = graph.AddValue(dims);
        graph.AddOp(std::make_unique<WindowOp>(image, output, border));
        graph.AddOutput(output);
        std::string error;
        ASSERT_TRUE(graph.Prepare(*Levels()[0], 1, &error)) << error;
        const Op* zero = nullptr;
        for (const auto& op : graph.ops()) {
          if (std::string(op->name()) == "zero_border") zero = op.get();
        }
        ASSERT_NE(zero, nullptr);
        const graph::Value& value = graph.value(image);
        Guarded<float> memory(static_cast<size_t>(value.planes.plane));
        std::fill(memory.data(), memory.data() + memory.size(), 7.0f);
        std::vector<float*> data(20, memory.data());
        graph::ThreadPool pool(1);
        zero->Run({data.data(), nullptr, &pool});  // past the end it would fault
        memory.ExpectCanaries();
        const View view(value, memory.data());
        for (int32_t y = -border.top; y < height + border.bottom; y++) {
          for (int32_t x = -border.left; x < width + border.right; x++) {
            const bool inside = y >= 0 && y < height && x >= 0 && x < width;
            ASSERT_EQ(view.At(0, y, x, 0), inside ? 7.0f : 0.0f) << y << " " << x;
          }
        }
      }
    }
  }
}

TEST(Graph, PartsOfAConcatenationAreMadeInTheirPlace) {
  for (int batch : {1, 3}) {
    Model model(7);
    const int input = model.Input({batch, 6, 7, 4});
    const int a = model.Mix({input}), b = model.Resample(a, {batch, 6, 7, 9}, 0), c = model.Window(a, {1, 1, 1, 1});
    const int whole = model.Concatenation({b, a, c});
    model.Output(whole);
    model.Output(model.Mix({a, c}));  // parts are still read on their own
    model.Check();
    EXPECT_EQ(model.last_concatenation()->copied, 0);
  }
}

TEST(Graph, ConcatenationsOfConcatenations) {
  // As in a densely connected network: each one takes all that was made so far.
  for (int batch : {1, 2}) {
    Model model(8);
    int all = model.Mix({model.Input({batch, 5, 6, 3})});
    for (int i = 0; i < 5; i++) {
      const int more = model.Window(model.Resample(all, {batch, 5, 6, 2 + i}, 0), {1, 1, 1, 1});
      all = model.Concatenation({all, more});
    }
    model.Output(all);
    model.Check();
  }
}

TEST(Graph, OnePartInTwoPlaces) {
  Model model(9);
  const int input = model.Planar(model.Input({2, 3, 3, 2}));
  const int a = model.Mix({input}), b = model.Mix({a, input});
  const int twice = model.Concatenation({a, b, a});
  const int other = model.Concatenation({b, a});
  model.Output(model.Mix({model.Concatenation({twice, other, input}), model.Concatenation({other, input, twice})}));
  model.Output(twice);
  model.Check();
}

TEST(Graph, APartIsNotOverwrittenInPlace) {
  Model model(10);
  const int a = model.Mix({model.Input({1, 4, 5, 3})});
  const int b = model.Mix({a});
  const int whole = model.Concatenation({a, b});
  const int over_a = model.Mix({a}, 0), over_b = model.Mix({b, over_a}, 0);  // before the whole is read
  model.Output(model.Mix({whole}, 0));
  model.Output(over_a);
  model.Output(over_b);
  model.Check();
}

TEST(Graph, AChainLivesInTwoBuffers) {
  const Dims dims = {1, 20, 20, 8};
  Model model(11);
  int value = model.Mix({model.Input(dims)});
  for (int i = 0; i < 30; i++) value = model.Mix({value});
  model.Output(value);
  model.Check();
  const size_t one = static_cast<size_t>(model.graph().value(value).planes.batch);
  EXPECT_GE(model.graph().arena_bytes(), 2 * one * sizeof(float));
  EXPECT_LT(model.graph().arena_bytes(), 3 * one * sizeof(float));
}

TEST(Graph, AChainInPlaceLivesInOne) {
  const Dims dims = {1, 20, 20, 8};
  Model model(12);
  int value = model.Mix({model.Input(dims)});
  for (int i = 0; i < 30; i++) value = model.Mix({value}, 0);
  model.Output(value);
  model.Check();
  const size_t one = static_cast<size_t>(model.graph().value(value).planes.batch);
  EXPECT_LT(model.graph().arena_bytes(), 2 * one * sizeof(float));
}

TEST(Graph, ScratchMemoryIsOfOneOpOnly) {
  Model model(13);
  const int a = model.Mix({model.Input({1, 6, 6, 6})}, -1, 1000);
  const int b = model.Mix({a}, -1, 5000);
  model.Output(model.Mix({a, b}, 1, 3));
  model.Check();
  EXPECT_LT(model.graph().arena_bytes(), 8000 * sizeof(float));
}

TEST(Graph, RandomGraphs) {
  const int rounds = kSlow ? 150 : 1500;
  for (int round = 0; round < rounds; round++) {
    SCOPED_TRACE(round);
    Random random(static_cast<uint64_t>(round));
    Model model(static_cast<uint64_t>(round));
    const int32_t batch = 1 + random.Below(3);
    const auto dims = [&] {
      if (random.Chance(0.1)) return Dims{batch, 1, 1, 1 + random.Below(9)};
      return random.Chance(0.6) ? Dims{batch, 5, 7, 1 + random.Below(4)}
                                : Dims{batch, 1 + random.Below(17), 1 + random.Below(17), 1 + random.Below(5)};
    };
    std::vector<int> values;
    for (int i = 1 + random.Below(2); i > 0; i--) values.push_back(model.Input(dims()));
    if (random.Chance(0.3)) values.push_back(model.Constant(dims()));
    const auto pick = [&] { return values[random.Below(static_cast<int32_t>(values.size()))]; };
    // Others of the same shape, but for the channels if `channels` is false.
    const auto alike = [&](int value, bool channels) {
      std::vector<int> found;
      for (int v : values) {
        Dims a = model.dims(v), b = model.dims(value);
        if (!channels) a[3] = b[3];
        if (a == b) found.push_back(v);
      }
      return found[random.Below(static_cast<int32_t>(found.size()))];
    };
    for (int i = 1 + random.Below(14); i > 0; i--) {
      int value = random.Chance(0.5) ? values.back() : pick();
      const size_t scratch = random.Chance(0.2) ? static_cast<size_t>(1 + random.Below(500)) : 0;
      switch (random.Below(8)) {
        case 0:
          value = random.Chance(0.5) ? model.Planar(value) : model.Interleaved(value);
          break;
        case 1:
        case 2:
        case 3: {
          std::vector<int> inputs = {value};
          while (random.Chance(0.4)) inputs.push_back(alike(value, true));
          value =
              model.Mix(inputs, random.Below(static_cast<int32_t>(inputs.size()) + 1) - 1, scratch, random.Chance(0.1));
          break;
        }
        case 4:
          value = model.Planar(value);
          if (!model.planar(value)) break;
          value = model.Window(value, {random.Below(3), random.Below(3), random.Below(3), random.Below(3)}, scratch);
          break;
        case 5:
          value = model.Resample(value, dims(), random.Below(25), scratch);
          break;
        default: {
          std::vector<int> inputs = {model.Planar(value)};
          if (!model.planar(inputs[0])) break;
          do inputs.push_back(model.Planar(alike(value, false)));
          while (random.Chance(0.4));
          value = model.Concatenation(inputs, scratch);
          if (model.dims(value)[3] > 60) continue;  // unused: values would grow without end
        }
      }
      values.push_back(value);
    }
    model.Output(values.back());
    while (random.Chance(0.5)) model.Output(pick());
    model.Check(1 + random.Below(3));
    if (::testing::Test::HasFailure()) return;
  }
}

class RefusingOp : public MixOp {
 public:
  using MixOp::MixOp;
  const char* name() const override { return "mimosa"; }
  bool Prepare(const Graph&, const kernels::KernelTable&, int) override { return false; }
};

TEST(Graph, SaysWhatCannotBePrepared) {
  Graph graph;
  const int input = graph.AddInput({1, 2, 2, 1});
  const int output = graph.AddValue({1, 2, 2, 1});
  graph.AddOp(std::make_unique<RefusingOp>(std::vector<int>{input}, output));
  graph.AddOutput(output);
  std::string error;
  EXPECT_FALSE(graph.Prepare(*Levels()[0], 1, &error));
  EXPECT_NE(error.find("mimosa"), std::string::npos) << error;
}

TEST(Graph, RefusesWhatCannotBeAddressed) {
  Graph graph;
  const int input = graph.AddInput({1, 1 << 14, 1 << 14, 9});
  graph.AddOutput(graph.Planar(input));
  std::string error;
  EXPECT_FALSE(graph.Prepare(*Levels()[0], 1, &error));
  EXPECT_NE(error.find("too large"), std::string::npos) << error;
}

TEST(Graph, Profiles) {
  Model model(14);
  const int value = model.Mix({model.Planar(model.Input({1, 4, 6, 2}))});
  model.Output(model.Window(value, {1, 1, 1, 1}));
  std::string error;
  ASSERT_TRUE(model.graph().Prepare(*Levels()[0], 1, &error)) << error;
  model.graph().EnableProfile(true);
  EXPECT_TRUE(model.graph().Profile().empty());
  std::vector<float> in(48), out(48);
  const float* inputs[] = {in.data()};
  float* outputs[] = {out.data()};
  graph::ThreadPool pool(1);
  for (int i = 0; i < 3; i++) model.graph().Run(inputs, outputs, &pool);
  const std::vector<std::string> lines = model.graph().Profile();
  ASSERT_EQ(lines.size(), 5u);
  const char* names[] = {"to_planar", "mix", "zero_border", "window", "to_interleaved"};
  for (size_t i = 0; i < 5; i++) {
    EXPECT_NE(lines[i].find(names[i]), std::string::npos) << lines[i];
    EXPECT_NE(lines[i].find("1x4x6x2"), std::string::npos) << lines[i];
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
