// Blocks' weights in the order in which a kernel for unaligned blocks reads them.
#ifndef TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_
#define TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_

#include <cstdint>
#include <cstring>

#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

// Weight q of each block goes to place (q + turn) mod kBlock. Block b is the order[b]-th of `from`, or without an order
// the b-th.
template <int kBlock>
void RotateBlocks(const float* from, const uint32_t* order, uint32_t blocks, int32_t turn, float* to) {
  if (blocks == 0) return;  // an empty matrix has no values to point to
  if (order == nullptr && turn == 0) {
    memcpy(to, from, static_cast<size_t>(blocks) * kBlock * sizeof(float));
    return;
  }
  for (uint32_t b = 0; b < blocks; b++, to += kBlock) {
    const float* w = from + static_cast<size_t>(order == nullptr ? b : order[b]) * kBlock;
    // Neither a loop nor a call of memcpy: for so few they would take longer than all else.
    Unroll<kBlock>([&](auto q) BLOCK_SPARSE_LAMBDA { to[(q + turn) & (kBlock - 1)] = w[q]; });
  }
}

// By the logarithm of the block.
inline constexpr void (*kRotateBlocks[])(const float*, const uint32_t*, uint32_t, int32_t, float*) = {
    RotateBlocks<1>, RotateBlocks<2>, RotateBlocks<4>, RotateBlocks<8>};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_
