// AVX2 + FMA vectors for the kernel templates (kernels.h says what each function promises).
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_AVX2_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_AVX2_H_

#include <immintrin.h>

#include "tflite_delegate/kernels/block_sum.h"
#include "tflite_delegate/kernels/simd_avx_rows.h"

namespace block_sparse {
namespace kernels {
namespace avx2 {

struct Simd {
  using Vec = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  // 16 registers: accumulators + inputs + one broadcast weight.
  static constexpr int kMaxTile[4] = {12, 6, 3, 1};
  static constexpr int kMaxTileAndOne[4] = {};          // spmm.h
  static constexpr bool kFetchesAhead = true;           // spmm.h
  static constexpr bool kFetchesWeights = false;        // spmm.h
  static constexpr int kGemvRows = 2;                   // by 4 vectors of a batch
  static constexpr int kMaxColumns = 2, kMaxSums = 12;  // spmm_rows.h: of a tile, in vectors
  static constexpr bool kShifts = false;                // spmm_rows.h
  static constexpr bool kMasks = false;                 // LoadN and StoreN are as fast as Load and Store

  static Vec Zero() { return _mm256_setzero_ps(); }
  static Vec Set1(float x) { return _mm256_set1_ps(x); }
  static Vec Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Vec LoadN(const float* p, int n) { return _mm256_maskload_ps(p, FirstLanes(n)); }
  static Vec LoadBetween(const float* p, int first, int end) {
    return _mm256_maskload_ps(p, _mm256_andnot_si256(FirstLanes(first), FirstLanes(end)));
  }
  static void StoreN(float* p, Vec v, int n) { _mm256_maskstore_ps(p, FirstLanes(n), v); }
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

  static void Sums(const Vec* v, float* sums) {
    const Vec all = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
  }

  using Mask = __m256;
  static Mask LoadMask(const int32_t* p) { return Load(reinterpret_cast<const float*>(p)); }
  static Mask LoadEvenMask(const int32_t* p) { return LoadEven(reinterpret_cast<const float*>(p)); }
  static Mask Less(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static Vec Select(Mask mask, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, mask); }
  static Vec FmaWhere(Mask mask, Vec sum, Vec a, Vec b) { return Fma(sum, _mm256_and_ps(a, mask), b); }
  // Lanes 2, 3 and 4, 5 have changed places, which costs less than to set them right for every load.
  static Vec LoadEven(const float* p) { return _mm256_shuffle_ps(Load(p), Load(p + 8), 0x88); }
  static void LoadPairs(const float* p, Vec* even, Vec* odd) {
    const Vec a = Load(p), b = Load(p + 8);
    *even = _mm256_shuffle_ps(a, b, 0x88);
    *odd = _mm256_shuffle_ps(a, b, 0xDD);
  }
  static void LoadThrees(const float* p, Vec* parts) {
    // Every third lane, from lane 0, 1 and 2 on. In each lane one of the three vectors has what a part wants.
    constexpr int kEveryThird[3] = {0x49, 0x92, 0x24};
    const Vec a = Load(p), b = Load(p + 8), c = Load(p + 16);
    Unroll<3>([&](auto k) BLOCK_SPARSE_LAMBDA {
      const Vec ab = _mm256_blend_ps(a, b, kEveryThird[(k + 1) % 3]);
      const Vec abc = _mm256_blend_ps(ab, c, kEveryThird[(k + 2) % 3]);
      const __m256i threes = _mm256_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21);
      parts[k] = _mm256_permutevar8x32_ps(abc, _mm256_add_epi32(threes, _mm256_set1_epi32(k)));
    });
  }
  static void Unzip(Vec a, Vec b, Vec* even, Vec* odd) {
    *even = InOrder(_mm256_shuffle_ps(a, b, 0x88));
    *odd = InOrder(_mm256_shuffle_ps(a, b, 0xDD));
  }
  static Vec InRegister(Vec v) {
    asm("" : "+x"(v));
    return v;
  }
  static Vec Turn(Vec v, int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_permutevar8x32_ps(v, _mm256_add_epi32(lane, _mm256_set1_epi32(n)));  // which takes them modulo 8
  }
  static Vec NextEven(Vec, const float* p) { return LoadEven(p + 2); }
  static Vec InOrder(Vec v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), _MM_SHUFFLE(3, 1, 2, 0)));
  }
  static Vec Round(Vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vec Scale(Vec v, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return Mul(Mul(v, Pow2(half)), Pow2(_mm256_sub_epi32(whole, half)));
  }
  static Vec Abs(Vec v) { return _mm256_andnot_ps(Set1(-0.0f), v); }
  static Vec WithSign(Vec magnitude, Vec sign) { return _mm256_or_ps(magnitude, _mm256_and_ps(Set1(-0.0f), sign)); }
  static Vec MaxOrNan(Vec a, Vec b) {
    return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }

  // Broadcast at the point of use: sixteen registers leave room for one weight only.
  template <int kBlock>
  struct Weights {
    static constexpr int kRegisters = 1;
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
  static Vec Pow2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static __m256i FirstLanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

}  // namespace avx2

// Two blocks of 4 side by side in one register.
template <int kChains>
class BlockSum<avx2::Simd, 4, kChains> {
  using Rows = avx2::Simd::Rows<4>;

 public:
  static constexpr int kStep = 4;

  BLOCK_SPARSE_INLINE BlockSum() : low_(_mm256_setzero_ps()), high_(low_) {}

  template <class Index>
  BLOCK_SPARSE_INLINE void Step(const float* weights, const Index* columns, const float* x) {
    const FourColumns<avx2::Simd> column(columns);
    low_ = _mm256_fmadd_ps(_mm256_loadu_ps(weights), Two(x + column.at[0], x + column.at[1]), low_);
    high_ = _mm256_fmadd_ps(_mm256_loadu_ps(weights + 8), Two(x + column.at[2], x + column.at[3]), high_);
  }

  template <class Index>
  BLOCK_SPARSE_INLINE void Rest(const float* weights, const Index* columns, const float* x, uint32_t n) {
    // Both factors are masked: an infinite x must not meet the zero of a weight that is not there.
    const FourColumns<avx2::Simd> column(columns);
    const __m256i first = First(static_cast<int>(n) * 4), second = First(static_cast<int>(n) * 4 - 8);
    const __m256 low = _mm256_and_ps(Two(x + column.at[0], x + column.at[1]), _mm256_castsi256_ps(first));
    const __m256 high = _mm256_and_ps(Two(x + column.at[2], x + column.at[3]), _mm256_castsi256_ps(second));
    low_ = _mm256_fmadd_ps(_mm256_maskload_ps(weights, first), low, low_);
    high_ = _mm256_fmadd_ps(_mm256_maskload_ps(weights + 8, second), high, high_);
  }

  BLOCK_SPARSE_INLINE Rows Total() const {
    const __m256 sum = _mm256_add_ps(low_, high_);
    return {_mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1))};
  }

  template <int kRow>
  BLOCK_SPARSE_INLINE void Clear() {
    low_ = _mm256_blend_ps(low_, _mm256_setzero_ps(), 0x11 << kRow);
    high_ = _mm256_blend_ps(high_, _mm256_setzero_ps(), 0x11 << kRow);
  }

 private:
  static BLOCK_SPARSE_INLINE __m256 Two(const float* a, const float* b) {
    return _mm256_blend_ps(_mm256_broadcast_ss(a), _mm256_broadcast_ss(b), 0xf0);
  }
  static BLOCK_SPARSE_INLINE __m256i First(int lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  __m256 low_, high_;
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_AVX2_H_
