// The kernels behind reduce.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_REDUCE_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_REDUCE_IMPL_H_

#include "tflite_delegate/kernels/reduce.h"
#include "tflite_delegate/kernels/unroll.h"
#include "tflite_delegate/kernels/vector_math.h"

namespace block_sparse {
namespace kernels {

template <class Simd>
class Reduce {
  using Vec = typename Simd::Vec;
  static constexpr int kLanes = Simd::kLanes;

  struct Sum {
    static constexpr float kStart = 0.0f;
    static Vec Fold(Vec all, Vec x) { return Simd::Add(all, x); }
    static float AllLanes(Vec v) { return Simd::Sum(v); }
  };
  struct Max {
    static constexpr float kStart = -__builtin_huge_valf();
    static Vec Fold(Vec all, Vec x) { return Simd::Max(all, x); }
    static float AllLanes(Vec v) {
      float lanes[kLanes];
      Simd::Store(lanes, v);
      float all = lanes[0];
      for (int i = 1; i < kLanes; i++) all = all > lanes[i] ? all : lanes[i];
      return all;
    }
  };

  // The first n lanes from p, the others such that they change nothing.
  template <class Op>
  static BLOCK_SPARSE_INLINE Vec LoadFirst(const float* p, int n) {
    if constexpr (Op::kStart == 0.0f) {
      return Simd::LoadN(p, n);
    } else {
      float lanes[kLanes];
      for (int i = 0; i < kLanes; i++) lanes[i] = i < n ? p[i] : Op::kStart;
      return Simd::Load(lanes);
    }
  }

  // Some chains of folds, so that none waits for the one before it.
  static constexpr int kChains = 4;

  template <class Op>
  static BLOCK_SPARSE_INLINE void Run(const float* x, int32_t count, Vec (&all)[kChains]) {
    int32_t i = 0;
    for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
      Unroll<kChains>([&](auto k) BLOCK_SPARSE_LAMBDA { all[k] = Op::Fold(all[k], Simd::Load(x + i + k * kLanes)); });
    }
    for (; i + kLanes <= count; i += kLanes) all[0] = Op::Fold(all[0], Simd::Load(x + i));
    if (i < count) all[1] = Op::Fold(all[1], LoadFirst<Op>(x + i, count - i));
  }

  template <class Op>
  static float Plane(const float* x, int32_t height, int32_t width, int32_t row) {
    Vec all[kChains];
    Unroll<kChains>([&](auto k) BLOCK_SPARSE_LAMBDA { all[k] = Simd::Set1(Op::kStart); });
    if (row == width) {
      Run<Op>(x, height * width, all);
    } else {
      for (int32_t y = 0; y < height; y++, x += row) Run<Op>(x, width, all);
    }
    return Op::AllLanes(Op::Fold(Op::Fold(all[0], all[1]), Op::Fold(all[2], all[3])));
  }

  template <class Op>
  static void Vectors(const float* x, int32_t count, int32_t width, float* y) {
    int32_t i = 0;
    for (; i + kChains * kLanes <= width; i += kChains * kLanes) {
      Vec all[kChains];
      Unroll<kChains>([&](auto k) BLOCK_SPARSE_LAMBDA { all[k] = Simd::Set1(Op::kStart); });
      const float* from = x + i;
      for (int32_t n = 0; n < count; n++, from += width) {
        Unroll<kChains>([&](auto k) BLOCK_SPARSE_LAMBDA { all[k] = Op::Fold(all[k], Simd::Load(from + k * kLanes)); });
      }
      Unroll<kChains>([&](auto k) BLOCK_SPARSE_LAMBDA { Simd::Store(y + i + k * kLanes, all[k]); });
    }
    for (; i < width; i += kLanes) {
      const int lanes = width - i < kLanes ? width - i : kLanes;
      Vec all = Simd::Set1(Op::kStart);
      const float* from = x + i;
      for (int32_t n = 0; n < count; n++, from += width) all = Op::Fold(all, Simd::LoadN(from, lanes));
      Simd::StoreN(y + i, all, lanes);
    }
  }

  static void Softmax(const float* x, int32_t count, float beta, float* y) {
    const Vec max = Simd::Set1(Plane<Max>(x, 1, count, count));
    const Vec slope = Simd::Set1(beta);
    const auto exp = [&](Vec v) BLOCK_SPARSE_LAMBDA {
      return VectorMath<Simd>::ExpOfNegative(Simd::Mul(Simd::Sub(v, max), slope));
    };
    Vec all = Simd::Zero();
    int32_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Vec e = exp(Simd::Load(x + i));
      Simd::Store(y + i, e);
      all = Simd::Add(all, e);
    }
    if (i < count) {
      Simd::StoreN(y + i, exp(Simd::LoadN(x + i, count - i)), count - i);
      all = Simd::Add(all, Simd::LoadN(y + i, count - i));
    }
    const Vec total = Simd::Set1(Simd::Sum(all));
    for (i = 0; i + kLanes <= count; i += kLanes) Simd::Store(y + i, Simd::Div(Simd::Load(y + i), total));
    if (i < count) Simd::StoreN(y + i, Simd::Div(Simd::LoadN(y + i, count - i), total), count - i);
  }

 public:
  static constexpr ReduceKernels Table() { return {Plane<Sum>, Plane<Max>, Vectors<Sum>, Vectors<Max>, Softmax}; }
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_REDUCE_IMPL_H_
