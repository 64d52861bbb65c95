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

// Weight q goes to place (q + turn) mod kBlock, 0 <= turn < kBlock. No loop, no call of memcpy, and a block of 4 as two
// numbers (its first weight is in the lowest bits): for so few weights all else takes longer than to move them.
template <int kBlock>
BLOCK_SPARSE_INLINE void RotateBlock(const float* from, int32_t turn, float* to) {
  if constexpr (kBlock == 4) {
    uint64_t half[2];
    __builtin_memcpy(half, from, sizeof half);
    const uint64_t low = (turn & 2) == 0 ? half[0] : half[1], high = (turn & 2) == 0 ? half[1] : half[0];
    const int up = 32 * (turn & 1);  // shifted by 64 in two steps, as in one it would not be defined
    half[0] = low << up | high >> 1 >> (63 - up);
    half[1] = high << up | low >> 1 >> (63 - up);
    __builtin_memcpy(to, half, sizeof half);
  } else {
    Unroll<kBlock>([&](auto q) BLOCK_SPARSE_LAMBDA { to[(q + turn) & (kBlock - 1)] = from[q]; });
  }
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_ROTATE_BLOCKS_H_
