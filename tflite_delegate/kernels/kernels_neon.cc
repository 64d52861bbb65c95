#include "tflite_delegate/kernels/make_table.h"
#include "tflite_delegate/kernels/simd_neon.h"

namespace block_sparse {
namespace kernels {

extern const KernelTable kTable_neon;
constexpr KernelTable kTable_neon = MakeKernelTable<neon::Simd>("neon");

}  // namespace kernels
}  // namespace block_sparse
