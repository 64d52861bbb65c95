// Addition, subtraction, multiplication and division of two values, one of which may be stretched over the other.
#ifndef TFLITE_DELEGATE_OPS_BINARY_H_
#define TFLITE_DELEGATE_OPS_BINARY_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/kernels/elementwise.h"
#include "tflite_delegate/ops/image.h"

namespace block_sparse {
namespace ops {

// NumPy's rule: shapes are aligned at their ends, and a dimension of 1 stretches. False if they do not fit.
bool BroadcastDims(const graph::Dims& a, const graph::Dims& b, graph::Dims* out);

// Adds the op and the conversions of layout it needs; returns its output, or -1 if the shapes do not fit.
int AddBinary(graph::Graph* graph, kernels::Binary kind, int a, int b, float low, float high);

class BinaryOp : public graph::Op {
 public:
  // If the output is planar, each operand is planar of the same height and width (its batch or channels may be 1), one
  // value a channel and image at most, or a constant of the size of the output or one of its images. Otherwise both are
  // interleaved. `full_a`, `full_b`: the operand has the output's shape and is not constant. `a_channel`: the operand,
  // 0 or 1, that is a constant number a channel, or one for all, of a planar output; -1: neither.
  BinaryOp(kernels::Binary kind, int a, int b, int output, bool full_a, bool full_b, int a_channel, float low,
           float high);

  const char* name() const override;
  void Constrain(graph::Planner* planner) override;
  int InPlaceInput() const override;
  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override;
  void Run(const graph::RunContext& context) const override;
  bool IsAdd(float* low, float* high) const override;
  int ShiftsInput(int* shift, float* low, float* high) const override;
  bool FuseShift(int shift, float low, float high) override;
  bool FuseClamp(float low, float high) override;

 private:
  static constexpr int kMaxDims = 5;
  // Where a planar output's operand has its planes, or its one value a channel.
  struct Operand {
    bool planes = false;
    int64_t batch_step = 0, channel_step = 0;
    int32_t origin = 0;
    std::vector<float> packed;  // a constant image, made planar
  };

  void PrepareOperand(const graph::Value& value, Operand* operand) const;
  void RunScaleShift(const graph::RunContext& context) const;
  void RunPlanar(const graph::RunContext& context) const;
  void RunInterleaved(const graph::RunContext& context) const;

  kernels::Binary kind_;
  float low_, high_;
  bool full_[2];
  int a_channel_;
  const kernels::ElementwiseKernels* kernels_ = nullptr;
  bool planar_ = false;
  Image image_;
  Operand operands_[3];  // the third: added to the product of the others
  // Interleaved: the output as a nest of loops, outermost first, and each operand's step in each.
  std::array<int64_t, kMaxDims> extent_ = {}, step_a_ = {}, step_b_ = {};
};

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_BINARY_H_
