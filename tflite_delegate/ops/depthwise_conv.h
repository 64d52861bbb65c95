// Depthwise convolution of planar images.
#ifndef TFLITE_DELEGATE_OPS_DEPTHWISE_CONV_H_
#define TFLITE_DELEGATE_OPS_DEPTHWISE_CONV_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/kernels/depthwise.h"
#include "tflite_delegate/ops/image.h"

namespace block_sparse {
namespace ops {

struct DepthwiseOptions {
  int32_t kernel_height = 1, kernel_width = 1;
  int32_t stride_height = 1, stride_width = 1;
  int32_t dilation_height = 1, dilation_width = 1;
  int32_t multiplier = 1;  // output channels an input channel
};

class DepthwiseConv : public graph::Op {
 public:
  // Weights are TFLite's, [kernel height][kernel width][output channels], bias may be null; both must outlive Prepare.
  // `border` holds the padding on each side; what lies beyond it on the right and below is taken as zeros too.
  DepthwiseConv(int input, int output, const DepthwiseOptions& options, const graph::Border& border,
                const float* weights, const float* bias, float low, float high);

  const char* name() const override { return "depthwise_conv"; }
  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override;
  void Run(const graph::RunContext& context) const override { RunRows(context, 0, output_.height); }
  void Constrain(graph::Planner* planner) override;
  bool InputRows(size_t i, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const override;
  void RunRows(const graph::RunContext& context, int32_t begin, int32_t end) const override;
  // A kernel adds the rows of the image up in an order that depends on where in its run a row is.
  void SetRuns(const std::vector<int32_t>& ends) override { run_ends_ = ends; }
  bool MayCut(int32_t row) const override {
    return run_ends_.empty() || std::binary_search(run_ends_.begin(), run_ends_.end(), row);
  }
  bool CutsClean(int32_t, const graph::Planes&) const override { return true; }
  bool FuseClamp(float low, float high) override;
  bool FuseZeroPad(const graph::Border& border) override;

 private:
  kernels::DepthwiseKernel Choose(const kernels::DepthwiseKernels& kernels) const;
  int32_t CutAt(int32_t begin, int32_t end, int32_t index, int32_t parts) const;

  DepthwiseOptions options_;
  graph::Border border_;
  const float *weights_, *bias_;
  float low_, high_;
  int32_t input_height_ = 0;
  std::vector<int32_t> run_ends_;  // rows; none: one run of all
  Image input_, output_;
  kernels::DepthwiseKernel kernel_ = nullptr;
  int32_t strip_rows_ = 0;  // that the kernel takes at a time, where threads share the rows; else 0
  std::vector<float> packed_;
  std::vector<int32_t> inside_;
};

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_DEPTHWISE_CONV_H_
