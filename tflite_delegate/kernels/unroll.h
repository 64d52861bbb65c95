// Loops laid out in full by the compiler's front end.
#ifndef TFLITE_DELEGATE_KERNELS_UNROLL_H_
#define TFLITE_DELEGATE_KERNELS_UNROLL_H_

#include <type_traits>
#include <utility>

#define BLOCK_SPARSE_INLINE inline __attribute__((always_inline))
// Behind a lambda's parameters.
#define BLOCK_SPARSE_LAMBDA __attribute__((always_inline))

namespace block_sparse {
namespace kernels {

// Calls fn(0), .., fn(kCount - 1) with compile-time indices. A loop would do the same later, after the compiler has
// decided which arrays live in registers.
template <int... kIndex, class Fn>
BLOCK_SPARSE_INLINE void Unroll(std::integer_sequence<int, kIndex...>, const Fn& fn) {
  (fn(std::integral_constant<int, kIndex>()), ...);
}
template <int kCount, class Fn>
BLOCK_SPARSE_INLINE void Unroll(const Fn& fn) {
  Unroll(std::make_integer_sequence<int, kCount>(), fn);
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_UNROLL_H_
