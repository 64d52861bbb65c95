// AVX-512 vectors for the kernel templates (kernels.h says what each function promises).
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_AVX512_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_AVX512_H_

#include <immintrin.h>

#include "tflite_delegate/kernels/simd_avx_rows.h"

namespace block_sparse {
namespace kernels {
namespace avx512 {

struct Simd {
  using Vec = __m512;
  static constexpr int kLanes = 16;
  // Widest tile, in vectors, whose accumulators, weights and inputs stay in the 32 registers, by log2(block).
  static constexpr int kMaxTile[4] = {12, 12, 6, 3};
  static constexpr int kGemvRows = 4;  // by 4 vectors of a batch

  static Vec Zero() { return _mm512_setzero_ps(); }
  static Vec Set1(float x) { return _mm512_set1_ps(x); }
  static Vec Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Vec LoadN(const float* p, int n) { return _mm512_maskz_loadu_ps(Mask(n), p); }
  static void StoreN(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, Mask(n), v); }
  static Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec Clamp(Vec v, Vec low, Vec high) { return _mm512_min_ps(high, _mm512_max_ps(low, v)); }
  static Vec Max(Vec bound, Vec v) { return _mm512_max_ps(bound, v); }
  static Vec Min(Vec bound, Vec v) { return _mm512_min_ps(bound, v); }
  static Vec Fma(Vec sum, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, sum); }
  static float Sum(Vec v) { return _mm512_reduce_add_ps(v); }

  // The weights of one block, each ready to multiply a vector of pixels.
  template <int kBlock>
  struct Weights {
    Vec lane[kBlock];
    explicit Weights(const float* p) {
      for (int k = 0; k < kBlock; k++) lane[k] = _mm512_set1_ps(p[k]);
    }
    template <int kLane>
    Vec Fma(Vec sum, Vec x) const {
      return _mm512_fmadd_ps(x, lane[kLane], sum);
    }
  };

  // kRows neighbouring rows of one column (kernels.h).
  template <int kRows>
  using Rows = AvxRows<Simd, kRows>;

 private:
  static __mmask16 Mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
};

}  // namespace avx512
}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_AVX512_H_
