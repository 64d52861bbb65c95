// Maximum and average over windows that slide over planar images.
#ifndef TFLITE_DELEGATE_OPS_POOL_H_
#define TFLITE_DELEGATE_OPS_POOL_H_

#include <cstdint>
#include <vector>

#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/kernels/kernels.h"
#include "tflite_delegate/ops/image.h"

namespace block_sparse {
namespace ops {

struct PoolOptions {
  bool maximum = false;
  int32_t window_height = 1, window_width = 1;
  int32_t stride_height = 1, stride_width = 1;
};

class PoolOp : public graph::Op {
 public:
  // Pixels outside the image do not count; every window has one inside. `border`: how far windows reach over each side.
  PoolOp(int input, int output, const PoolOptions& options, const graph::Border& border, float low, float high);

  const char* name() const override { return options_.maximum ? "max_pool" : "average_pool"; }
  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override;
  size_t ScratchFloats() const override { return scratch_ * tasks_; }
  void Run(const graph::RunContext& context) const override { RunRows(context, 0, output_.height); }
  void Constrain(graph::Planner* planner) override;
  bool InputRows(size_t i, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const override;
  void RunRows(const graph::RunContext& context, int32_t begin, int32_t end) const override;
  bool CutsClean(int32_t, const graph::Planes&) const override { return true; }
  bool ComputesLittle() const override { return true; }
  bool FuseClamp(float low, float high) override;
  bool FuseZeroPad(const graph::Border& border) override;

 private:
  PoolOptions options_;
  graph::Border border_;
  bool zeros_outside_ = false;  // they do count, as zeros
  float low_, high_;
  int32_t input_height_ = 0;
  Image input_, output_;
  const kernels::KernelTable* kernels_ = nullptr;
  bool whole_ = false;  // one window, the whole image
  std::vector<float> columns_;
  size_t scratch_ = 0;
  int32_t tasks_ = 1;
};

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_POOL_H_
