// Depthwise convolution of planar images: every output plane is one input plane under its own small kernel.
#ifndef TFLITE_DELEGATE_KERNELS_DEPTHWISE_H_
#define TFLITE_DELEGATE_KERNELS_DEPTHWISE_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

// Output planes [first, first + count) of one image; plane c is made from input plane c / multiplier. The image needs
// no zeros around it: what lies between its rows is never used.
struct DepthwiseArgs {
  const float* x;  // first pixel of plane 0
  float* y;        // first pixel of plane 0
  int32_t x_plane, x_row, x_height, x_width;
  int32_t y_plane, y_row, y_height, y_width;
  int32_t y_run;  // floats that may be written from a plane's first pixel on; reaches at least to its last
  int32_t first, count, multiplier;
  int32_t pad_top, pad_left;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  const float* weights;   // for each output plane its bias, then its kernel row by row
  const int32_t* inside;  // -1 or 0 for each column of the padded image: is it inside? As many as DepthwiseInside says
  float low, high;
};

using DepthwiseKernel = void (*)(const DepthwiseArgs&);

struct DepthwiseKernels {
  // 3 x 3 (index 0) and 5 x 5 (index 1). Stride 1 takes any dilation, stride 2 none. The padding is at most
  // kDepthwiseMaxReach on any side, and so is (kernel - 1) * dilation. They read whole vectors: up to
  // kDepthwiseMaxReach floats before the first plane and 4 * kMaxLanes past the last run.
  DepthwiseKernel stride1[2], stride2[2];
  // Output rows that those, without dilation, take at a time. The order that a row's sum is in depends on its place
  // among them: a run that ends at a multiple of these from its image's top, and not just before the last row, and one
  // that begins there, give the same bits as one run of both.
  int32_t rows;
  // Anything; touches the images' pixels only.
  DepthwiseKernel any;
};

constexpr int32_t kDepthwiseMaxReach = 16;

// Output rows that the fastest of them take at a time; it divides the heights of most networks.
constexpr int32_t kDepthwiseRows = 7;

// Entries of DepthwiseArgs::inside.
constexpr int32_t DepthwiseInside(int32_t y_width, int32_t stride) { return y_width * stride + 64; }

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_DEPTHWISE_H_
