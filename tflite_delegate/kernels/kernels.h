// The kernel table: one instance a CPU level, chosen at run time.
//
// Each level is one simd_<level>.h (a struct Simd, below) and one kernels_<level>.cc that instantiates every template
// for it; adding a level is adding those two files and a line in cpu.cc. Tests and benchmarks iterate over the table.
//
// Simd: Vec is a vector of kLanes floats, of which the CPU has kRegisters. Load and Store take any alignment; LoadN and
// StoreN touch the first n lanes only, LoadBetween(p, first, end) lanes [first, end), and load zeros elsewhere. Turn(v,
// n) has lane (i + n) mod kLanes of v in lane i. (NEON needs neither: gemv_impl.h.) Max(bound, v), Min(bound, v) and
// Clamp give NaN where v is NaN. Fma(sum, a, b) is sum + a * b. Weights<B> holds the B weights of a block in kRegisters
// registers; its Fma<k>(sum, x) is sum + x * weight[k]. Sums(v, to) gives the sum of each of v[0] to v[3]. A Mask says
// which lanes; in memory it is -1 or 0 a lane. FmaWhere leaves the sum as it is where the mask is not set, whatever a
// holds there. LoadEven(p) takes p[0], p[2], ..., LoadPairs also p[1], p[3], ..., both in an order that suits the CPU
// and that LoadEvenMask shares; InOrder restores it. NextEven(even, p) is LoadEven(p + 2) where even is LoadEven(p).
// LoadThrees(p, parts) takes p[k], p[3 + k], p[6 + k], ... to parts[k], in order; Unzip(a, b) the even and the odd
// lanes of a and b, in order. InRegister(v) is v, which the compiler must not load again for each use of it.
// Shift<n>(v, next), where kShifts, is lanes n and on of v, then the first n of next. Scale(v, n) is v * 2^n, n
// integral, |n| <= 250, with gradual underflow (Round gives such n). MaxOrNan(a, b) is NaN where either is. Rows<B> is
// a vector of B floats, one a row: Fma(sum, a, x) is sum + a * *x, Replace<k>(v, with) takes lane k of `with`.
//
// Kernels are stateless: no allocation, no threads; the caller picks the part of the output. They know no TFLite type.
#ifndef TFLITE_DELEGATE_KERNELS_KERNELS_H_
#define TFLITE_DELEGATE_KERNELS_KERNELS_H_

#include <cstdint>

#include "tflite_delegate/kernels/depthwise.h"
#include "tflite_delegate/kernels/elementwise.h"
#include "tflite_delegate/kernels/gemv.h"
#include "tflite_delegate/kernels/pool.h"
#include "tflite_delegate/kernels/recurrent.h"
#include "tflite_delegate/kernels/reduce.h"
#include "tflite_delegate/kernels/spmm.h"
#include "tflite_delegate/kernels/spmm_rows.h"
#include "tflite_delegate/kernels/strided.h"

namespace block_sparse {
namespace kernels {

// Planes are laid out so that whole vectors of any level may be written past their last pixel.
constexpr int kMaxLanes = 16;

struct KernelTable {
  const char* name;  // as in the delegate's option `cpu`
  int lanes;
  SpmmKernels spmm;
  SpmmRowsKernels spmm_rows;
  GemvKernels gemv;
  DepthwiseKernels depthwise;
  ElementwiseKernels elementwise;
  PoolKernels pool;
  ReduceKernels reduce;
  StridedKernels strided;
  RecurrentKernels recurrent;
};

// The best table this CPU can run, or the one named ("auto" is the best); null if the name is unknown or the CPU
// cannot run it.
const KernelTable* SelectKernels(const char* name);

// All tables built into this library that this CPU can run, best first, null-terminated.
const KernelTable* const* AvailableKernels();

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_KERNELS_H_
