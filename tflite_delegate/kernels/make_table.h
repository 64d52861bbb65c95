// Instantiates every kernel template for one CPU level. Included by kernels_<level>.cc only, which is compiled with
// that level's instructions.
#ifndef TFLITE_DELEGATE_KERNELS_MAKE_TABLE_H_
#define TFLITE_DELEGATE_KERNELS_MAKE_TABLE_H_

#include "tflite_delegate/kernels/depthwise_impl.h"
#include "tflite_delegate/kernels/elementwise_impl.h"
#include "tflite_delegate/kernels/gemv_impl.h"
#include "tflite_delegate/kernels/kernels.h"
#include "tflite_delegate/kernels/pool_impl.h"
#include "tflite_delegate/kernels/recurrent_impl.h"
#include "tflite_delegate/kernels/reduce_impl.h"
#include "tflite_delegate/kernels/spmm_impl.h"
#include "tflite_delegate/kernels/spmm_rows_impl.h"
#include "tflite_delegate/kernels/strided_impl.h"

namespace block_sparse {
namespace kernels {

template <class Simd>
constexpr KernelTable MakeKernelTable(const char* name) {
  return {name,
          Simd::kLanes,
          MakeSpmmKernels<Simd>(),
          MakeSpmmRowsKernels<Simd>(),
          MakeGemvKernels<Simd>(),
          MakeDepthwiseKernels<Simd>(),
          MakeElementwiseKernels<Simd>(),
          MakePoolKernels<Simd>(),
          Reduce<Simd>::Table(),
          MakeStridedKernels<Simd>(),
          Recurrent<Simd>::Table()};
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_MAKE_TABLE_H_
