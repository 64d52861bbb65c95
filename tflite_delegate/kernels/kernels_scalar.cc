#include "tflite_delegate/kernels/make_table.h"
#include "tflite_delegate/kernels/simd_scalar.h"

namespace block_sparse {
namespace kernels {

extern const KernelTable kTable_scalar;
constexpr KernelTable kTable_scalar = MakeKernelTable<scalar::Simd>("scalar");

}  // namespace kernels
}  // namespace block_sparse
