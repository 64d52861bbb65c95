// GCC 12 takes the undefined source operand inside its own AVX-512 intrinsics for a use of an uninitialised variable.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "tflite_delegate/kernels/make_table.h"
#include "tflite_delegate/kernels/simd_avx512.h"

namespace block_sparse {
namespace kernels {

extern const KernelTable kTable_avx512;
constexpr KernelTable kTable_avx512 = MakeKernelTable<avx512::Simd>("avx512");

}  // namespace kernels
}  // namespace block_sparse
