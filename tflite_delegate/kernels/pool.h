// Windows that slide over planar images and keep a maximum or an average.
#ifndef TFLITE_DELEGATE_KERNELS_POOL_H_
#define TFLITE_DELEGATE_KERNELS_POOL_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

// `count` planes. Touches the images' pixels only. Every window has a pixel inside the image.
struct PoolArgs {
  const float* x;  // first pixel of the first plane
  float* y;
  int32_t x_plane, x_row, x_height, x_width;
  int32_t y_plane, y_row, y_height, y_width;
  int32_t count;
  int32_t pad_top, pad_left;
  int32_t window_height, window_width;
  int32_t stride_height, stride_width;
  float outside;         // maximum: what pixels outside the image count for; -infinity: nothing. Average: 0
  const float* columns;  // average: image columns in the window at each output column, then kMaxLanes more
  float low, high;
  float* scratch;  // as many as PoolScratch says, 64-byte aligned
};

using PoolKernel = void (*)(const PoolArgs&);

struct PoolKernels {
  PoolKernel max, average;
};

constexpr int32_t PoolScratch(int32_t x_width, int32_t y_width, int32_t window_width, int32_t stride_width) {
  return x_width + y_width * stride_width + 2 * window_width + 64;
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_POOL_H_
