// Transcendental functions of vectors, to a few units in the last place.
#ifndef TFLITE_DELEGATE_KERNELS_VECTOR_MATH_H_
#define TFLITE_DELEGATE_KERNELS_VECTOR_MATH_H_

#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

template <class Simd>
class VectorMath {
  using Vec = typename Simd::Vec;

  // v = n ln 2 + r, |r| <= ln 2 / 2. Returns (exp(r) - 1 - r) / r^2.
  static BLOCK_SPARSE_INLINE Vec Reduce(Vec v, Vec* n, Vec* r) {
    *n = Simd::Round(Simd::Mul(v, Simd::Set1(1.44269504f)));
    // ln 2 in two parts: n times the first is exact.
    *r = Simd::Fma(Simd::Fma(v, *n, Simd::Set1(-0.693145752f)), *n, Simd::Set1(-1.42860677e-6f));
    Vec p = Simd::Set1(1.0f / 5040);
    constexpr float kTerms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f};
    for (float term : kTerms) p = Simd::Fma(Simd::Set1(term), p, *r);
    return p;
  }

 public:
  // For v <= 0; NaN for NaN.
  static BLOCK_SPARSE_INLINE Vec ExpOfNegative(Vec v) {
    v = Simd::Max(Simd::Set1(-104.0f), v);  // exp(-104) is below the least denormal
    Vec n, r;
    const Vec p = Reduce(v, &n, &r);
    const Vec one = Simd::Set1(1.0f);
    return Simd::Scale(Simd::Fma(one, r, Simd::Fma(one, r, p)), n);
  }

  // exp(v) - 1 for v <= 0, accurate near 0; NaN for NaN.
  static BLOCK_SPARSE_INLINE Vec Expm1OfNegative(Vec v) {
    v = Simd::Max(Simd::Set1(-20.0f), v);  // -1 from here on
    Vec n, r;
    const Vec p = Reduce(v, &n, &r);
    const Vec scale = Simd::Scale(Simd::Set1(1.0f), n);
    const Vec expm1 = Simd::Fma(r, Simd::Mul(r, r), p);
    return Simd::Fma(Simd::Sub(scale, Simd::Set1(1.0f)), scale, expm1);
  }

  static BLOCK_SPARSE_INLINE Vec Logistic(Vec v) {
    // e = exp(-|v|) cannot overflow; below 0 the result is e / (1 + e).
    const Vec e = ExpOfNegative(Simd::Sub(Simd::Zero(), Simd::Abs(v)));
    const Vec one = Simd::Set1(1.0f);
    return Simd::Div(Simd::Select(Simd::Less(v, Simd::Zero()), e, one), Simd::Add(one, e));
  }

  static BLOCK_SPARSE_INLINE Vec Tanh(Vec v) {
    // With t = exp(-2|v|) - 1, tanh|v| is -t / (2 + t).
    const Vec t = Expm1OfNegative(Simd::Mul(Simd::Set1(-2.0f), Simd::Abs(v)));
    return Simd::WithSign(Simd::Abs(Simd::Div(t, Simd::Add(Simd::Set1(2.0f), t))), v);
  }
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_VECTOR_MATH_H_
