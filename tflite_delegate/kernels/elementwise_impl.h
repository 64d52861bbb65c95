// The kernels behind elementwise.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_ELEMENTWISE_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_ELEMENTWISE_IMPL_H_

#include <utility>

#include "tflite_delegate/kernels/elementwise.h"
#include "tflite_delegate/kernels/unroll.h"
#include "tflite_delegate/kernels/vector_math.h"

namespace block_sparse {
namespace kernels {

template <class Simd>
class Elementwise {
  using Vec = typename Simd::Vec;
  using Math = VectorMath<Simd>;
  static constexpr int kLanes = Simd::kLanes;

  // step(i, load, store) for every vector, the last of which may be shorter.
  template <class Step>
  static BLOCK_SPARSE_INLINE void ForEachVector(int64_t n, const Step& step) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      step(
          i, [](const float* p) BLOCK_SPARSE_LAMBDA { return Simd::Load(p); },
          [](float* p, Vec v) BLOCK_SPARSE_LAMBDA { Simd::Store(p, v); });
    }
    if (i == n) return;
    const int left = static_cast<int>(n - i);
    step(
        i, [left](const float* p) BLOCK_SPARSE_LAMBDA { return Simd::LoadN(p, left); },
        [left](float* p, Vec v) BLOCK_SPARSE_LAMBDA { Simd::StoreN(p, v, left); });
  }

  template <int kOp>
  static BLOCK_SPARSE_INLINE Vec Apply(Vec a, Vec b) {
    if constexpr (kOp == kAdd) return Simd::Add(a, b);
    if constexpr (kOp == kSub) return Simd::Sub(a, b);
    if constexpr (kOp == kMul) return Simd::Mul(a, b);
    if constexpr (kOp == kDiv) return Simd::Div(a, b);
  }

  template <int kOp, bool kScalarA, bool kScalarB>
  static void RunBinary(const float* a, const float* b, float* y, int64_t n, float low, float high) {
    const Vec lowest = Simd::Set1(low), highest = Simd::Set1(high);
    const Vec all_a = kScalarA ? Simd::Set1(*a) : Simd::Zero(), all_b = kScalarB ? Simd::Set1(*b) : Simd::Zero();
    ForEachVector(n, [&](int64_t i, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      const Vec left = kScalarA ? all_a : load(a + i), right = kScalarB ? all_b : load(b + i);
      store(y + i, Simd::Clamp(Apply<kOp>(left, right), lowest, highest));
    });
  }

  template <int kFunction>
  static BLOCK_SPARSE_INLINE Vec Apply(Vec x, Vec p, Vec q) {
    const Vec zero = Simd::Zero();
    if constexpr (kFunction == kClamp) return Simd::Clamp(x, p, q);
    if constexpr (kFunction == kLeakyRelu) return Simd::Select(Simd::Less(x, zero), Simd::Mul(x, p), x);
    if constexpr (kFunction == kElu)
      return Simd::Select(Simd::Less(x, zero), Math::Expm1OfNegative(Simd::Min(zero, x)), x);
    if constexpr (kFunction == kHardSwish) {
      const Vec gate = Simd::Clamp(Simd::Add(x, Simd::Set1(3.0f)), zero, Simd::Set1(6.0f));
      return Simd::Mul(x, Simd::Mul(gate, Simd::Set1(1.0f / 6)));
    }
    if constexpr (kFunction == kLogistic) return Math::Logistic(x);
    if constexpr (kFunction == kTanh) return Math::Tanh(x);
  }

  template <int kFunction>
  static void RunUnary(const float* x, float* y, int64_t n, float p, float q) {
    const Vec all_p = Simd::Set1(p), all_q = Simd::Set1(q);
    ForEachVector(n, [&](int64_t i, auto load, auto store)
                         BLOCK_SPARSE_LAMBDA { store(y + i, Apply<kFunction>(load(x + i), all_p, all_q)); });
  }

  static void Prelu(const float* x, const float* slope, float* y, int64_t n) {
    ForEachVector(n, [&](int64_t i, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      const Vec v = load(x + i);
      store(y + i, Simd::Select(Simd::Less(v, Simd::Zero()), Simd::Mul(v, load(slope + i)), v));
    });
  }

  static void ScaleShift(const float* x, float scale, float shift, float* y, int64_t n, float low, float high) {
    const Vec lowest = Simd::Set1(low), highest = Simd::Set1(high);
    const Vec scales = Simd::Set1(scale), shifts = Simd::Set1(shift);
    ForEachVector(n, [&](int64_t i, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      store(y + i, Simd::Clamp(Simd::Add(Simd::Mul(load(x + i), scales), shifts), lowest, highest));
    });
  }

  static void Lerp(const float* a, const float* b, float t, float* y, int64_t n) {
    const Vec to_a = Simd::Set1(1.0f - t), to_b = Simd::Set1(t);
    ForEachVector(n, [&](int64_t i, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      store(y + i, Simd::Fma(Simd::Mul(load(a + i), to_a), load(b + i), to_b));
    });
  }

  template <int... kOp, int... kFunction>
  static constexpr ElementwiseKernels Table(std::integer_sequence<int, kOp...>,
                                            std::integer_sequence<int, kFunction...>) {
    return {{RunBinary<kOp, false, false>...},
            {RunBinary<kOp, false, true>...},
            {RunBinary<kOp, true, false>...},
            {RunUnary<kFunction>...},
            Prelu,
            ScaleShift,
            Lerp};
  }

 public:
  static constexpr ElementwiseKernels Table() {
    return Table(std::make_integer_sequence<int, kBinaryCount>(), std::make_integer_sequence<int, kUnaryCount>());
  }
};

template <class Simd>
constexpr ElementwiseKernels MakeElementwiseKernels() {
  return Elementwise<Simd>::Table();
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_ELEMENTWISE_IMPL_H_
