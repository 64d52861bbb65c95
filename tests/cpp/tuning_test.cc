// The choice among an op's tilings: what is measured, what is kept, and what is read back.
#include "tflite_delegate/graph/tuning.h"

#include <time.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/graph_testing.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/thread_pool.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Graph;
using graph::Tuning;

// Takes as long as its tiling has milliseconds.
class SlowOp : public MixOp {
 public:
  SlowOp(int input, int op_output, std::string key, std::vector<int> milliseconds)
      : MixOp({input}, op_output), key_(std::move(key)), milliseconds_(std::move(milliseconds)) {}
  int Tilings() const override { return static_cast<int>(milliseconds_.size()); }
  std::string TilingKey(const Graph&) const override { return key_; }
  void SetTiling(int tiling, bool again) override {
    next_ = tiling;
    last_ = !again;
  }
  bool Prepare(const Graph& graph, const kernels::KernelTable& kernels, int num_threads) override {
    EXPECT_FALSE(done_) << "prepared again after the last time";
    tiling = next_;
    done_ = last_;
    return MixOp::Prepare(graph, kernels, num_threads);
  }

  int tiling = -1;

 protected:
  void Compute(const graph::RunContext& context) const override {
    const timespec pause = {0, milliseconds_[static_cast<size_t>(tiling)] * 1000000};
    nanosleep(&pause, nullptr);
    MixOp::Compute(context);
  }

 private:
  std::string key_;
  std::vector<int> milliseconds_;
  int next_ = 0;
  bool last_ = true, done_ = false;
};

class TunedGraph {
 public:
  // A chain of an op of each kind.
  explicit TunedGraph(const std::vector<std::pair<std::string, std::vector<int>>>& kinds) : input_(dims_) {
    int value = graph_.Planar(graph_.AddInput(dims_));
    for (const auto& [key, milliseconds] : kinds) {
      const int output = graph_.AddValue(dims_);
      auto op = std::make_unique<SlowOp>(value, output, key, milliseconds);
      ops_.push_back(op.get());
      graph_.AddOp(std::move(op));
      value = output;
    }
    graph_.AddOutput(value);
  }

  std::vector<int> Tilings(Tuning* tuning) {
    const kernels::KernelTable& level = *Levels()[0];
    std::string error;
    graph::ThreadPool pool(1);
    EXPECT_TRUE(graph_.Prepare(level, 1, &error, tuning)) << error;
    needed_ = graph_.NeedsTuning();
    EXPECT_TRUE(graph_.Tune(level, &pool, tuning, &error)) << error;
    EXPECT_FALSE(graph_.NeedsTuning());
    EXPECT_TRUE(graph_.Profile().empty());
    Tensor exact = input_;
    for (size_t i = 0; i < ops_.size(); i++) exact = MixOp::Exact({&exact});
    EXPECT_EQ(RunTwice(&graph_, {&input_}, {dims_}, 1)[0].data, exact.data);
    std::vector<int> tilings;
    for (const SlowOp* op : ops_) tilings.push_back(op->tiling);
    return tilings;
  }
  bool needed() const { return needed_; }

 private:
  const Dims dims_ = {1, 2, 3, 4};
  Graph graph_;
  Tensor input_;
  std::vector<SlowOp*> ops_;
  bool needed_ = false;
};

TEST(Tuning, TakesTheFastest) {
  Tuning tuning("here", "");
  TunedGraph graph({{"a", {3, 0, 3}}, {"b", {0, 3}}, {"c", {2, 4, 6, 0}}});
  EXPECT_EQ(graph.Tilings(&tuning), (std::vector<int>{1, 0, 3}));
  EXPECT_TRUE(graph.needed());
  EXPECT_EQ(tuning.Text(), "1 a on here\n0 b on here\n3 c on here\n");
}

// The second of them alone would take the other.
TEST(Tuning, TakesWhatIsFastestForAllOfAKind) {
  Tuning tuning("here", "");
  TunedGraph graph({{"a", {9, 1}}, {"a", {1, 4}}});
  EXPECT_EQ(graph.Tilings(&tuning), (std::vector<int>{1, 1}));
}

TEST(Tuning, WhatIsKnownIsNotMeasured) {
  Tuning tuning("here", "2 a on here\n1 a on there\n1 b on there\n");
  TunedGraph known({{"a", {0, 0, 5}}, {"a", {0, 0, 5}}});
  EXPECT_EQ(known.Tilings(&tuning), (std::vector<int>{2, 2}));
  EXPECT_FALSE(known.needed());
  TunedGraph other({{"a", {0, 0, 5}}, {"b", {5, 5, 0}}});
  EXPECT_EQ(other.Tilings(&tuning), (std::vector<int>{2, 2}));
  EXPECT_TRUE(other.needed());
  EXPECT_EQ(tuning.Text(), "2 a on here\n1 a on there\n2 b on here\n1 b on there\n");
}

TEST(Tuning, AnOpHasTheTilingThatTheTextNames) {
  Tuning tuning("here", "7 a on here\n");
  TunedGraph graph({{"a", {3, 0}}});
  EXPECT_EQ(graph.Tilings(&tuning), (std::vector<int>{1})) << "it has two";
}

TEST(Tuning, WithoutAnyTilings) {
  Tuning tuning("here", "");
  TunedGraph graph({{std::string("a"), std::vector<int>{0}}});
  EXPECT_EQ(graph.Tilings(&tuning), (std::vector<int>{0}));
  EXPECT_FALSE(graph.needed());
  EXPECT_EQ(tuning.Text(), "");
}

TEST(Tuning, ReadsWhatItCan) {
  const std::string bad =
      std::string("\n\n3\n4 \n x\n-1 a on m\n+1 a on m\n100 a on m\n99999999999999999999 a on m\n") +
      "1a on m\n 1 a on m\n\0\xff 1 a on m\n" + std::string(1, '\0') + "2 b on m\n5 c on m";
  const Tuning tuning("m", bad);
  EXPECT_EQ(tuning.Find("a"), -1);
  EXPECT_EQ(tuning.Find(""), -1);
  EXPECT_EQ(tuning.Find("c"), 5);
  EXPECT_EQ(Tuning("m", tuning.Text()).Text(), tuning.Text());
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
