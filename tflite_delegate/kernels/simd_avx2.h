// AVX2 + FMA vectors for the kernel templates (kernels.h says what each function promises).
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_AVX2_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_AVX2_H_

#include <immintrin.h>

#include "tflite_delegate/kernels/simd_avx_rows.h"

namespace block_sparse {
namespace kernels {
namespace avx2 {

struct Simd {
  using Vec = __m256;
  static constexpr int kLanes = 8;
  // 16 registers: accumulators + inputs + one broadcast weight.
  static constexpr int kMaxTile[4] = {6, 6, 3, 1};
  static constexpr int kGemvRows = 2;  // by 4 vectors of a batch

  static Vec Zero() { return _mm256_setzero_ps(); }
  static Vec Set1(float x) { return _mm256_set1_ps(x); }
  static Vec Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Vec LoadN(const float* p, int n) { return _mm256_maskload_ps(p, Mask(n)); }
  static void StoreN(float* p, Vec v, int n) { _mm256_maskstore_ps(p, Mask(n), v); }
  static Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec Sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec Mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec Div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec Clamp(Vec v, Vec low, Vec high) { return _mm256_min_ps(high, _mm256_max_ps(low, v)); }
  static Vec Max(Vec bound, Vec v) { return _mm256_max_ps(bound, v); }
  static Vec Min(Vec bound, Vec v) { return _mm256_min_ps(bound, v); }
  static Vec Fma(Vec sum, Vec a, Vec b) { return _mm256_fmadd_ps(a, b, sum); }
  static float Sum(Vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }

  // Broadcast at the point of use: sixteen registers leave room for one weight only.
  template <int kBlock>
  struct Weights {
    const float* weights;
    explicit Weights(const float* p) : weights(p) {}
    template <int kLane>
    Vec Fma(Vec sum, Vec x) const {
      return _mm256_fmadd_ps(x, _mm256_broadcast_ss(weights + kLane), sum);
    }
  };

  // kRows neighbouring rows of one column (kernels.h).
  template <int kRows>
  using Rows = AvxRows<Simd, kRows>;

 private:
  static __m256i Mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

}  // namespace avx2
}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_AVX2_H_
