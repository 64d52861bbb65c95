// What is fused into what, by ops that only say what they are and note what they were given.
#include "tflite_delegate/graph/fusion.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/graph/op.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::Border;
using graph::Op;

// A producer takes what `takes` names: r(esidual), s(hift), c(lamp), p(ad).
class FakeOp : public Op {
 public:
  FakeOp(std::string kind, std::vector<int> op_inputs, int op_output)
      : Op(std::move(op_inputs), op_output), kind_(std::move(kind)) {}
  const char* name() const override { return kind_.c_str(); }
  bool Prepare(const graph::Graph&, const kernels::KernelTable&, int) override { return true; }
  void Run(const graph::RunContext&) const override {}

  bool IsAdd(float* low, float* high) const override {
    *low = -2.0f;
    *high = 3.0f;
    return kind_ == "add";
  }
  bool IsClamp(float* low, float* high) const override {
    *low = 0.0f;
    *high = 6.0f;
    return kind_ == "clamp";
  }
  int ShiftsInput(int* shift, float* low, float* high) const override {
    *shift = 19;
    *low = -1.0f;
    *high = 1.0f;
    return kind_ == "shift" ? 1 : -1;
  }
  bool IsZeroPad(Border* border) const override {
    *border = {1, 2, 3, 4};
    return kind_ == "pad";
  }
  bool FuseResidual(int residual, float low, float high) override {
    if (kind_.find('r') == std::string::npos || kind_.size() > 3 || inputs.size() > 1) return false;
    EXPECT_EQ(low, -2.0f);
    EXPECT_EQ(high, 3.0f);
    inputs.push_back(residual);
    taken += "+" + std::to_string(residual);
    return true;
  }
  bool FuseShift(int shift, float low, float high) override {
    if (kind_.find('s') == std::string::npos || kind_.size() > 3) return false;
    EXPECT_EQ(shift, 19);
    EXPECT_EQ(low, -1.0f);
    EXPECT_EQ(high, 1.0f);
    taken += "~";
    return true;
  }
  bool FuseClamp(float low, float high) override {
    if (kind_.find('c') == std::string::npos || kind_.size() > 3) return false;
    EXPECT_EQ(low, 0.0f);
    EXPECT_EQ(high, 6.0f);
    taken += "|";
    return true;
  }
  bool FuseZeroPad(const Border& border) override {
    if (kind_.find('p') == std::string::npos || kind_.size() > 3) return false;
    EXPECT_EQ(border.top, 1);
    EXPECT_EQ(border.left, 2);
    EXPECT_EQ(border.bottom, 3);
    EXPECT_EQ(border.right, 4);
    taken += "#";
    return true;
  }

  std::string taken;

 private:
  std::string kind_;
};

class FusionTest : public ::testing::Test {
 public:
  // Values are small numbers; 0 is what comes from outside.
  FusionTest& Add(const char* kind, std::vector<int> inputs, int output) {
    ops_.push_back(std::make_unique<FakeOp>(kind, std::move(inputs), output));
    return *this;
  }

  // One word an op: its kind, what it took, its inputs and its output.
  std::string Fused(const std::vector<int>& outputs) {
    graph::Fuse(&ops_, 20, outputs);
    std::string text;
    for (const auto& op : ops_) {
      if (op == nullptr) return "null";
      text += (text.empty() ? "" : " ") + std::string(op->name()) + static_cast<FakeOp*>(op.get())->taken + "(";
      for (size_t i = 0; i < op->inputs.size(); i++) text += (i > 0 ? "," : "") + std::to_string(op->inputs[i]);
      text += ")" + std::to_string(op->output);
    }
    return text;
  }

 protected:
  std::vector<std::unique_ptr<Op>> ops_;
};

TEST_F(FusionTest, NothingToFuse) {
  EXPECT_EQ(Fused({}), "");
  EXPECT_EQ(Add("rcp", {0}, 1).Add("rcp", {1}, 2).Fused({2}), "rcp(0)1 rcp(1)2");
}

TEST_F(FusionTest, AClampGoesIntoItsProducer) {
  EXPECT_EQ(Add("c", {0}, 1).Add("clamp", {1}, 2).Add("c", {2}, 3).Fused({3}), "c|(0)2 c(2)3");
}

TEST_F(FusionTest, TwoClampsGoIntoOneProducer) {
  EXPECT_EQ(Add("c", {0}, 1).Add("clamp", {1}, 2).Add("clamp", {2}, 3).Fused({3}), "c||(0)3");
}

TEST_F(FusionTest, AClampStaysWhereItsInputIsSeen) {
  EXPECT_EQ(Add("c", {0}, 1).Add("clamp", {1}, 2).Add("x", {1, 2}, 3).Fused({3}), "c(0)1 clamp(1)2 x(1,2)3");
}

TEST_F(FusionTest, AClampStaysWhereItsInputIsAResult) {
  EXPECT_EQ(Add("c", {0}, 1).Add("clamp", {1}, 2).Fused({1, 2}), "c(0)1 clamp(1)2");
}

TEST_F(FusionTest, AClampStaysWhereTheProducerWillNot) {
  EXPECT_EQ(Add("x", {0}, 1).Add("clamp", {1}, 2).Fused({2}), "x(0)1 clamp(1)2");
}

TEST_F(FusionTest, AClampOfAnInputStays) { EXPECT_EQ(Add("clamp", {0}, 1).Fused({1}), "clamp(0)1"); }

TEST_F(FusionTest, AnAdditionGoesIntoTheLaterProducer) {
  EXPECT_EQ(Add("r", {0}, 1).Add("r", {0}, 2).Add("add", {1, 2}, 3).Fused({3}), "r(0)1 r+1(0,1)3");
}

TEST_F(FusionTest, WhicheverOperandItIs) {
  EXPECT_EQ(Add("r", {0}, 1).Add("r", {0}, 2).Add("add", {2, 1}, 3).Fused({3}), "r(0)1 r+1(0,1)3");
}

TEST_F(FusionTest, AnAdditionOfAnInput) { EXPECT_EQ(Add("r", {0}, 1).Add("add", {0, 1}, 2).Fused({2}), "r+0(0,0)2"); }

TEST_F(FusionTest, TheEarlierProducerTakesItsPlaceBehindTheLater) {
  EXPECT_EQ(Add("r", {0}, 1).Add("x", {0}, 2).Add("add", {1, 2}, 3).Fused({3}), "x(0)2 r+2(0,2)3");
  ops_.clear();
  EXPECT_EQ(Add("r", {0}, 1).Add("r", {0}, 2).Add("x", {2}, 4).Add("add", {1, 2}, 3).Fused({3, 4}),
            "r(0)2 x(2)4 r+2(0,2)3");
}

TEST_F(FusionTest, AnAdditionOfAValueToItselfStays) {
  EXPECT_EQ(Add("r", {0}, 1).Add("add", {1, 1}, 2).Fused({2}), "r(0)1 add(1,1)2");
}

TEST_F(FusionTest, AnAdditionStaysWhereBothOperandsAreSeen) {
  EXPECT_EQ(Add("r", {0}, 1).Add("r", {0}, 2).Add("add", {1, 2}, 3).Fused({1, 2, 3}), "r(0)1 r(0)2 add(1,2)3");
}

TEST_F(FusionTest, OneResidualIsEnough) {
  EXPECT_EQ(Add("r", {0}, 1).Add("r", {0}, 2).Add("add", {1, 2}, 3).Add("add", {3, 0}, 4).Fused({4}),
            "r(0)1 r+1(0,1)3 add(3,0)4");
}

TEST_F(FusionTest, AnAdditionAndTheClampBehindIt) {
  EXPECT_EQ(Add("rc", {0}, 1).Add("rc", {1}, 2).Add("add", {2, 0}, 3).Add("clamp", {3}, 4).Fused({4}),
            "rc(0)1 rc+0|(1,0)4");
}

TEST_F(FusionTest, AShiftGoesIntoItsProducer) {
  EXPECT_EQ(Add("sc", {0}, 1).Add("shift", {19, 1}, 2).Add("clamp", {2}, 3).Fused({3}), "sc~|(0)3");
}

TEST_F(FusionTest, AShiftStaysWhereItsInputIsSeenOrItsProducerWillNot) {
  EXPECT_EQ(Add("s", {0}, 1).Add("shift", {19, 1}, 2).Fused({1, 2}), "s(0)1 shift(19,1)2");
  ops_.clear();
  EXPECT_EQ(Add("x", {0}, 1).Add("shift", {19, 1}, 2).Fused({2}), "x(0)1 shift(19,1)2");
}

TEST_F(FusionTest, APadGoesIntoItsConsumer) {
  EXPECT_EQ(Add("x", {0}, 1).Add("pad", {1}, 2).Add("p", {2}, 3).Fused({3}), "x(0)1 p#(1)3");
}

TEST_F(FusionTest, APadOfAnInput) { EXPECT_EQ(Add("pad", {0}, 1).Add("p", {1}, 2).Fused({2}), "p#(0)2"); }

TEST_F(FusionTest, APadGoesIntoAllItsConsumers) {
  EXPECT_EQ(Add("pad", {0}, 1).Add("p", {1}, 2).Add("p", {1}, 3).Fused({2, 3}), "p#(0)2 p#(0)3");
}

TEST_F(FusionTest, APadStaysForThoseWhoNeedIt) {
  EXPECT_EQ(Add("pad", {0}, 1).Add("p", {1}, 2).Add("x", {1}, 3).Fused({2, 3}), "pad(0)1 p#(0)2 x(1)3");
}

TEST_F(FusionTest, APadThatIsAResultStays) {
  EXPECT_EQ(Add("pad", {0}, 1).Add("p", {1}, 2).Fused({1, 2}), "pad(0)1 p#(0)2");
}

TEST_F(FusionTest, APadIsNotTakenThroughASecondInput) {
  EXPECT_EQ(Add("pad", {0}, 1).Add("p", {0, 1}, 2).Fused({2}), "pad(0)1 p(0,1)2");
}

TEST_F(FusionTest, AbsentInputs) {
  EXPECT_EQ(Add("p", {-1, 0, -1}, 1).Add("c", {}, 2).Add("clamp", {2}, 3).Fused({1, 3}), "p(-1,0,-1)1 c|()3");
}

TEST_F(FusionTest, PadConvolutionAdditionClamp) {
  EXPECT_EQ(Add("rcp", {0}, 1)
                .Add("pad", {1}, 2)
                .Add("rcp", {2}, 3)
                .Add("add", {3, 1}, 4)
                .Add("clamp", {4}, 5)
                .Add("pad", {5}, 6)
                .Add("rcp", {6}, 7)
                .Fused({7}),
            "rcp(0)1 rcp#+1|(1,1)5 rcp#(5)7");
}

// Whatever was fused, each op finds its inputs made before it, every value is made once, and the results are there.
TEST_F(FusionTest, RandomGraphsStayInOrder) {
  const char* kinds[] = {"x", "rcp", "rc", "c", "r", "p", "add", "add", "clamp", "pad"};
  Random random(1);
  for (int round = 0; round < 3000; round++) {
    SCOPED_TRACE(round);
    ops_.clear();
    const int count = 1 + random.Below(18);
    for (int i = 1; i <= count; i++) {
      const std::string kind = kinds[random.Below(10)];
      std::vector<int> inputs = {random.Below(i)};
      if (kind == "add") inputs.push_back(random.Below(i));
      Add(kind.c_str(), inputs, i);
    }
    std::vector<int> outputs = {count};
    for (int i = 1; i < count; i++) {
      if (random.Chance(0.15)) outputs.push_back(i);
    }
    const std::string text = Fused(outputs);
    ASSERT_NE(text, "null");
    std::vector<int> made(20, 0);
    made[0] = 1;
    for (const auto& op : ops_) {
      for (int v : op->inputs) EXPECT_EQ(made[v], 1) << text;
      EXPECT_EQ(made[op->output]++, 0) << text;
    }
    for (int v : outputs) EXPECT_EQ(made[v], 1) << text;
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
