// A block's weights in the order in which a kernel for unaligned blocks reads them.
#ifndef TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_
#define TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_

#include <cstdint>
#include <type_traits>

#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

// Calls `work` with the block's height as a constant: 1, 2, 4 or 8.
template <class Work>
void WithBlock(int32_t block, const Work& work) {
  switch (block) {
    case 1:
      return work(std::integral_constant<int, 1>());
    case 2:
      return work(std::integral_constant<int, 2>());
    case 4:
      return work(std::integral_constant<int, 4>());
    default:
      return work(std::integral_constant<int, 8>());
  }
}

// Weight q goes to place (q + turn) mod kBlock. Neither a loop nor a call of memcpy: for so few they would take longer
// than all else.
template <int kBlock>
BLOCK_SPARSE_INLINE void RotateBlock(const float* from, int32_t turn, float* to) {
  Unroll<kBlock>([&](auto q) BLOCK_SPARSE_LAMBDA { to[(q + turn) & (kBlock - 1)] = from[q]; });
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_
