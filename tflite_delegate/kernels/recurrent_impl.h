// The kernels behind recurrent.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_RECURRENT_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_RECURRENT_IMPL_H_

#include "tflite_delegate/kernels/recurrent.h"
#include "tflite_delegate/kernels/unroll.h"
#include "tflite_delegate/kernels/vector_math.h"

namespace block_sparse {
namespace kernels {

template <class Simd>
class Recurrent {
  using Vec = typename Simd::Vec;
  using Math = VectorMath<Simd>;

  // step(i, load, store) for every vector, the last of which may be shorter.
  template <class Step>
  static BLOCK_SPARSE_INLINE void ForEachVector(int64_t units, const Step& step) {
    int64_t i = 0;
    for (; i + Simd::kLanes <= units; i += Simd::kLanes) {
      step(
          i, [i](const float* p) BLOCK_SPARSE_LAMBDA { return Simd::Load(p + i); },
          [i](float* p, Vec v) BLOCK_SPARSE_LAMBDA { Simd::Store(p + i, v); });
    }
    if (i == units) return;
    const int left = static_cast<int>(units - i);
    step(
        i, [i, left](const float* p) BLOCK_SPARSE_LAMBDA { return Simd::LoadN(p + i, left); },
        [i, left](float* p, Vec v) BLOCK_SPARSE_LAMBDA { Simd::StoreN(p + i, v, left); });
  }

  // z * h + (1 - z) * c, the second product rounded as TFLite's own operators do.
  static BLOCK_SPARSE_INLINE Vec Blend(Vec z, Vec h, Vec c) {
    return Simd::Fma(Simd::Mul(Simd::Sub(Simd::Set1(1.0f), z), c), z, h);
  }

  static void Gru(const float* const* input, const float* const* state, const float* h, float* next, int64_t units) {
    ForEachVector(units, [&](int64_t, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      const Vec z = Math::Logistic(Simd::Add(load(input[0]), load(state[0])));
      const Vec r = Math::Logistic(Simd::Add(load(input[1]), load(state[1])));
      const Vec c = Math::Tanh(Simd::Fma(load(input[2]), r, load(state[2])));
      store(next, Blend(z, load(h), c));
    });
  }

  static void Reset(const float* input, const float* state, const float* h, float* y, int64_t units) {
    ForEachVector(units, [&](int64_t, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      store(y, Simd::Mul(Math::Logistic(Simd::Add(load(input), load(state))), load(h)));
    });
  }

  static void Update(const float* const* input, const float* state, const float* candidate, const float* h, float* next,
                     int64_t units) {
    ForEachVector(units, [&](int64_t, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      const Vec z = Math::Logistic(Simd::Add(load(input[0]), load(state)));
      const Vec c = Math::Tanh(Simd::Add(load(input[2]), load(candidate)));
      store(next, Blend(z, load(h), c));
    });
  }

  static void Lstm(const float* const* input, const float* const* state, const float* c, float* next_c, float* next,
                   int64_t units) {
    ForEachVector(units, [&](int64_t, auto load, auto store) BLOCK_SPARSE_LAMBDA {
      const Vec i = Math::Logistic(Simd::Add(load(input[0]), load(state[0])));
      const Vec f = Math::Logistic(Simd::Add(load(input[1]), load(state[1])));
      const Vec g = Math::Tanh(Simd::Add(load(input[2]), load(state[2])));
      const Vec o = Math::Logistic(Simd::Add(load(input[3]), load(state[3])));
      const Vec cell = Simd::Fma(Simd::Mul(i, g), f, load(c));
      store(next_c, cell);
      store(next, Simd::Mul(o, Math::Tanh(cell)));
    });
  }

 public:
  static constexpr RecurrentKernels Table() { return {Gru, Reset, Update, Lstm}; }
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_RECURRENT_IMPL_H_
