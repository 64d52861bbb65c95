// AVX-512 vectors for the kernel templates (kernels.h says what each function promises).
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_AVX512_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_AVX512_H_

#include <immintrin.h>

#include "tflite_delegate/kernels/block_sum.h"
#include "tflite_delegate/kernels/simd_avx_rows.h"

namespace block_sparse {
namespace kernels {
namespace avx512 {

struct Simd {
  using Vec = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  // Widest tile, in vectors, whose accumulators, weights and inputs stay in the 32 registers, by log2(block).
  static constexpr int kMaxTile[4] = {14, 8, 6, 3};
  static constexpr int kMaxTileAndOne[4] = {0, 8, 5, 3};  // the same with one pixel more (spmm.h)
  static constexpr bool kFetchesAhead = true;             // spmm.h
  static constexpr bool kFetchesWeights = true;           // spmm.h
  static constexpr int kGemvRows = 4;                     // by 4 vectors of a batch
  static constexpr int kMaxColumns = 8, kMaxSums = 28;    // spmm_rows.h: of a tile, in vectors
  static constexpr bool kShifts = true;                   // spmm_rows.h
  static constexpr bool kMasks = true;                    // LoadN and StoreN are as fast as Load and Store

  static Vec Zero() { return _mm512_setzero_ps(); }
  static Vec Set1(float x) { return _mm512_set1_ps(x); }
  static Vec Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Vec LoadN(const float* p, int n) { return _mm512_maskz_loadu_ps(FirstLanes(n), p); }
  static Vec LoadBetween(const float* p, int first, int end) {
    return _mm512_maskz_loadu_ps(FirstLanes(end) & ~FirstLanes(first), p);
  }
  static void StoreN(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, FirstLanes(n), v); }
  static Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec Clamp(Vec v, Vec low, Vec high) { return _mm512_min_ps(high, _mm512_max_ps(low, v)); }
  static Vec Max(Vec bound, Vec v) { return _mm512_max_ps(bound, v); }
  static Vec Min(Vec bound, Vec v) { return _mm512_min_ps(bound, v); }
  static Vec Fma(Vec sum, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, sum); }
  static float Sum(Vec v) { return _mm512_reduce_add_ps(v); }
  static void Sums(const Vec* v, float* sums) {
    // Quarters of one vector side by side, then those of all four, and so on within the quarters.
    const Vec ab = Add(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xEE));
    const Vec cd = Add(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xEE));
    Vec all = Add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    all = Add(all, _mm512_permute_ps(all, 0x4E));
    all = Add(all, _mm512_permute_ps(all, 0xB1));
    const __m512i firsts = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, all)));
  }

  using Mask = __mmask16;
  static Mask LoadMask(const int32_t* p) {
    const __m512i v = _mm512_loadu_si512(p);
    return _mm512_test_epi32_mask(v, v);
  }
  static Mask LoadEvenMask(const int32_t* p) {
    const __m512i v = _mm512_castps_si512(LoadEven(reinterpret_cast<const float*>(p)));
    return _mm512_test_epi32_mask(v, v);
  }
  static Mask Less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static Vec Select(Mask mask, Vec yes, Vec no) { return _mm512_mask_blend_ps(mask, no, yes); }
  static Vec FmaWhere(Mask mask, Vec sum, Vec a, Vec b) { return _mm512_mask3_fmadd_ps(a, b, sum, mask); }
  static Vec LoadEven(const float* p) { return _mm512_permutex2var_ps(Load(p), Even(), Load(p + 16)); }
  static void LoadPairs(const float* p, Vec* even, Vec* odd) { Unzip(Load(p), Load(p + 16), even, odd); }
  static void LoadThrees(const float* p, Vec* parts) {
    // Every third lane, from lane 0, 1 and 2 on. In each lane one of the three vectors has what a part wants.
    constexpr __mmask16 kEveryThird[3] = {0x9249, 0x2492, 0x4924};
    const Vec a = Load(p), b = Load(p + 16), c = Load(p + 32);
    Unroll<3>([&](auto k) BLOCK_SPARSE_LAMBDA {
      const Vec ab = _mm512_mask_mov_ps(a, kEveryThird[(k + 2) % 3], b);
      const Vec abc = _mm512_mask_mov_ps(ab, kEveryThird[(k + 1) % 3], c);
      const __m512i threes = _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45);
      parts[k] = _mm512_permutexvar_ps(_mm512_add_epi32(threes, _mm512_set1_epi32(k)), abc);
    });
  }
  static void Unzip(Vec a, Vec b, Vec* even, Vec* odd) {
    *even = _mm512_permutex2var_ps(a, Even(), b);
    *odd = _mm512_permutex2var_ps(a, _mm512_or_si512(Even(), _mm512_set1_epi32(1)), b);
  }
  static Vec InRegister(Vec v) {
    asm("" : "+v"(v));
    return v;
  }
  template <int kBy>
  static Vec Shift(Vec v, Vec next) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(next), _mm512_castps_si512(v), kBy));
  }
  static Vec Turn(Vec v, int n) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_add_epi32(lane, _mm512_set1_epi32(n)), v);  // which takes them modulo 16
  }
  static Vec NextEven(Vec even, const float* p) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(Load(p + 32)), _mm512_castps_si512(even), 1));
  }
  static Vec InOrder(Vec v) { return v; }
  static Vec Round(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vec Scale(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }
  static Vec Abs(Vec v) { return _mm512_abs_ps(v); }
  static Vec WithSign(Vec magnitude, Vec sign) { return _mm512_or_ps(magnitude, _mm512_and_ps(Set1(-0.0f), sign)); }
  static Vec MaxOrNan(Vec a, Vec b) {
    return _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
  }

  // The weights of one block, each ready to multiply a vector of pixels.
  template <int kBlock>
  struct Weights {
    static constexpr int kRegisters = kBlock;
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
  static __m512i Even() { return _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); }
  static __mmask16 FirstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
};

}  // namespace avx512

// Blocks side by side in one register: block k of a step is in lanes k * kBlock and on, and so is its x.
template <int kBlock, int kChains>
class BlockSum<avx512::Simd, kBlock, kChains> {
  using Rows = avx512::Simd::Rows<kBlock>;
  static constexpr int kBlocks = 16 / kBlock;  // in a register
  static constexpr int kRegisters = 8 / kBlock == 1 ? 2 : 1;

 public:
  static constexpr int kStep = kBlocks * kRegisters;

  BLOCK_SPARSE_INLINE BlockSum() {
    for (__m512& sum : sum_) sum = _mm512_setzero_ps();
  }

  template <class Index>
  BLOCK_SPARSE_INLINE void Step(const float* weights, const Index* columns, const float* x) {
    const X all(columns, x);
    Unroll<kRegisters>([&](auto r) BLOCK_SPARSE_LAMBDA {
      sum_[r] = _mm512_fmadd_ps(_mm512_loadu_ps(weights + 16 * r), all.v[r], sum_[r]);
    });
  }

  template <class Index>
  BLOCK_SPARSE_INLINE void Rest(const float* weights, const Index* columns, const float* x, uint32_t n) {
    const X all(columns, x);
    const uint32_t mask = (1u << (n * kBlock)) - 1;
    Unroll<kRegisters>([&](auto r) BLOCK_SPARSE_LAMBDA {
      const __mmask16 here = static_cast<__mmask16>(mask >> (16 * r));
      sum_[r] = _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(here, weights + 16 * r), all.v[r], sum_[r], here);
    });
  }

  BLOCK_SPARSE_INLINE Rows Total() const {
    __m512 sum = sum_[0];
    if constexpr (kRegisters == 2) sum = _mm512_add_ps(sum, sum_[1]);
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
    if constexpr (kBlock == 8) {
      return {half};
    } else {
      __m128 v = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
      if constexpr (kBlock <= 2) v = _mm_add_ps(v, _mm_movehl_ps(v, v));
      if constexpr (kBlock == 1) v = _mm_add_ps(v, _mm_movehdup_ps(v));
      return {v};
    }
  }

  template <int kRow>
  BLOCK_SPARSE_INLINE void Clear() {
    constexpr int kLowest = kBlock == 8 ? 0x0101 : kBlock == 4 ? 0x1111 : kBlock == 2 ? 0x5555 : 0xffff;
    for (__m512& sum : sum_) sum = _mm512_maskz_mov_ps(static_cast<__mmask16>(~(kLowest << kRow)), sum);
  }

 private:
  struct X {
    __m512 v[kRegisters];

    template <class Index>
    BLOCK_SPARSE_INLINE X(const Index* columns, const float* x) {
      Unroll<kStep / 4>([&](auto f) BLOCK_SPARSE_LAMBDA {
        const FourColumns<avx512::Simd> column(columns + 4 * f);
        Unroll<4>([&](auto k) BLOCK_SPARSE_LAMBDA {
          constexpr int kIndex = 4 * decltype(f)::value + decltype(k)::value;
          constexpr int kRegister = kIndex / kBlocks, kLane = kIndex % kBlocks * kBlock;
          const __m128 one = _mm_load_ss(x + column.at[k]);
          if constexpr (kLane == 0) {
            v[kRegister] = _mm512_broadcastss_ps(one);
          } else {
            constexpr auto kMask = static_cast<__mmask16>(((1 << kBlock) - 1) << kLane);
            v[kRegister] = _mm512_mask_broadcastss_ps(v[kRegister], kMask, one);
          }
        });
      });
    }
  };

  __m512 sum_[kRegisters];
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_AVX512_H_
