// The member Rows of the AVX levels: a block's rows fill at most half a vector of AVX-512, so both use these. Level
// keeps the levels' functions apart, since each is compiled with its own instructions.
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_AVX_ROWS_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_AVX_ROWS_H_

#include <immintrin.h>

namespace block_sparse {
namespace kernels {

// 1, 2 or 4 rows.
template <class Level, int kRows>
struct AvxRows {
  __m128 v;

  static AvxRows Zero() { return {_mm_setzero_ps()}; }
  static AvxRows Load(const float* p) {
    if constexpr (kRows == 1) return {_mm_load_ss(p)};
    if constexpr (kRows == 2) return {_mm_loadl_pi(_mm_setzero_ps(), reinterpret_cast<const __m64*>(p))};
    if constexpr (kRows == 4) return {_mm_loadu_ps(p)};
  }
  static void Store(float* p, AvxRows a) {
    if constexpr (kRows == 1) _mm_store_ss(p, a.v);
    if constexpr (kRows == 2) _mm_storel_pi(reinterpret_cast<__m64*>(p), a.v);
    if constexpr (kRows == 4) _mm_storeu_ps(p, a.v);
  }
  static AvxRows Fma(AvxRows sum, AvxRows a, const float* x) { return {_mm_fmadd_ps(a.v, _mm_broadcast_ss(x), sum.v)}; }
  static AvxRows Add(AvxRows a, AvxRows b) { return {_mm_add_ps(a.v, b.v)}; }
  static AvxRows Clamp(AvxRows a, float low, float high) {
    return {_mm_min_ps(_mm_set1_ps(high), _mm_max_ps(_mm_set1_ps(low), a.v))};
  }
  template <int kRow>
  static AvxRows Replace(AvxRows a, AvxRows with) {
    return {_mm_blend_ps(a.v, with.v, 1 << kRow)};
  }
};

template <class Level>
struct AvxRows<Level, 8> {
  __m256 v;

  static AvxRows Zero() { return {_mm256_setzero_ps()}; }
  static AvxRows Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static void Store(float* p, AvxRows a) { _mm256_storeu_ps(p, a.v); }
  static AvxRows Fma(AvxRows sum, AvxRows a, const float* x) {
    return {_mm256_fmadd_ps(a.v, _mm256_broadcast_ss(x), sum.v)};
  }
  static AvxRows Add(AvxRows a, AvxRows b) { return {_mm256_add_ps(a.v, b.v)}; }
  static AvxRows Clamp(AvxRows a, float low, float high) {
    return {_mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), a.v))};
  }
  template <int kRow>
  static AvxRows Replace(AvxRows a, AvxRows with) {
    return {_mm256_blend_ps(a.v, with.v, 1 << kRow)};
  }
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_AVX_ROWS_H_
