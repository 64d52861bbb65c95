// Functions of one or two numbers, applied to runs of them.
#ifndef TFLITE_DELEGATE_KERNELS_ELEMENTWISE_H_
#define TFLITE_DELEGATE_KERNELS_ELEMENTWISE_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

enum Binary { kAdd, kSub, kMul, kDiv, kBinaryCount };

// y[i] = clamp(a[i] op b[i]), for n numbers. y may be a or b.
using BinaryKernel = void (*)(const float* a, const float* b, float* y, int64_t n, float low, float high);

enum Unary {
  kClamp,      // to [p, q]
  kLeakyRelu,  // slope p below 0
  kElu,
  kHardSwish,
  kLogistic,
  kTanh,
  kUnaryCount
};

// y[i] = f(x[i]), for n numbers. y may be x. NaN stays NaN; infinities give the limits, hard swish excepted: -infinity
// gives NaN, as TFLite's x * relu6(x + 3) / 6 does.
using UnaryKernel = void (*)(const float* x, float* y, int64_t n, float p, float q);

struct ElementwiseKernels {
  BinaryKernel vector_vector[kBinaryCount];
  BinaryKernel vector_scalar[kBinaryCount];  // b is one number for all
  BinaryKernel scalar_vector[kBinaryCount];  // a is
  UnaryKernel unary[kUnaryCount];
  // y[i] = x[i] < 0 ? x[i] * slope[i] : x[i]
  void (*prelu)(const float* x, const float* slope, float* y, int64_t n);
  // y[i] = clamp(x[i] * scale + shift), rounded after each, as by two kernels. y may be x.
  void (*scale_shift)(const float* x, float scale, float shift, float* y, int64_t n, float low, float high);
  // y[i] = a[i] * (1 - t) + b[i] * t
  void (*lerp)(const float* a, const float* b, float t, float* y, int64_t n);
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_ELEMENTWISE_H_
