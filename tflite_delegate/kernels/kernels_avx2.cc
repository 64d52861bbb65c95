#include "tflite_delegate/kernels/make_table.h"
#include "tflite_delegate/kernels/simd_avx2.h"

namespace block_sparse {
namespace kernels {

extern const KernelTable kTable_avx2;
constexpr KernelTable kTable_avx2 = MakeKernelTable<avx2::Simd>("avx2");

}  // namespace kernels
}  // namespace block_sparse
