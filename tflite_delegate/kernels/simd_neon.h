// AArch64 NEON vectors for the kernel templates (kernels.h says what each function promises).
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_NEON_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_NEON_H_

#include <arm_neon.h>

namespace block_sparse {
namespace kernels {
namespace neon {

struct Simd {
  using Vec = float32x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 32;
  // 32 registers: block 4 takes 28 accumulators, 1 register of weights and 3 of inputs in flight.
  static constexpr int kMaxTile[4] = {8, 8, 7, 3};
  static constexpr int kMaxTileAndOne[4] = {};          // spmm.h
  static constexpr bool kFetchesAhead = false;          // spmm.h
  static constexpr bool kFetchesWeights = false;        // spmm.h
  static constexpr int kGemvRows = 4;                   // by 4 vectors of a batch
  static constexpr int kMaxColumns = 2, kMaxSums = 14;  // spmm_rows.h: of a tile, in vectors
  static constexpr bool kShifts = false;                // spmm_rows.h
  static constexpr bool kMasks = false;                 // LoadN and StoreN are as fast as Load and Store

  static Vec Zero() { return vdupq_n_f32(0.0f); }
  static Vec Set1(float x) { return vdupq_n_f32(x); }
  static Vec Load(const float* p) { return vld1q_f32(p); }
  static void Store(float* p, Vec v) { vst1q_f32(p, v); }
  static Vec LoadN(const float* p, int n) {
    float lanes[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n; i++) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
  static void StoreN(float* p, Vec v, int n) {
    float lanes[4];
    vst1q_f32(lanes, v);
    for (int i = 0; i < n; i++) p[i] = lanes[i];
  }
  static Vec Add(Vec a, Vec b) { return vaddq_f32(a, b); }
  static Vec Sub(Vec a, Vec b) { return vsubq_f32(a, b); }
  static Vec Mul(Vec a, Vec b) { return vmulq_f32(a, b); }
  static Vec Div(Vec a, Vec b) { return vdivq_f32(a, b); }
  static Vec Clamp(Vec v, Vec low, Vec high) { return vminq_f32(high, vmaxq_f32(low, v)); }
  static Vec Max(Vec bound, Vec v) { return vmaxq_f32(bound, v); }
  static Vec Min(Vec bound, Vec v) { return vminq_f32(bound, v); }
  static Vec Fma(Vec sum, Vec a, Vec b) { return vfmaq_f32(sum, a, b); }
  static float Sum(Vec v) { return vaddvq_f32(v); }
  static void Sums(const Vec* v, float* sums) {
    vst1q_f32(sums, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
  }

  using Mask = uint32x4_t;
  static Mask LoadMask(const int32_t* p) { return vreinterpretq_u32_s32(vld1q_s32(p)); }
  static Mask LoadEvenMask(const int32_t* p) { return vreinterpretq_u32_s32(vld2q_s32(p).val[0]); }
  static Mask Less(Vec a, Vec b) { return vcltq_f32(a, b); }
  static Vec Select(Mask mask, Vec yes, Vec no) { return vbslq_f32(mask, yes, no); }
  static Vec FmaWhere(Mask mask, Vec sum, Vec a, Vec b) {
    return Fma(sum, vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), mask)), b);
  }
  static Vec LoadEven(const float* p) { return vld2q_f32(p).val[0]; }
  static void LoadPairs(const float* p, Vec* even, Vec* odd) {
    const float32x4x2_t pairs = vld2q_f32(p);
    *even = pairs.val[0];
    *odd = pairs.val[1];
  }
  static void LoadThrees(const float* p, Vec* parts) {
    const float32x4x3_t threes = vld3q_f32(p);
    for (int k = 0; k < 3; k++) parts[k] = threes.val[k];
  }
  static void Unzip(Vec a, Vec b, Vec* even, Vec* odd) {
    *even = vuzp1q_f32(a, b);
    *odd = vuzp2q_f32(a, b);
  }
  static Vec InRegister(Vec v) {
    asm("" : "+w"(v));
    return v;
  }
  static Vec NextEven(Vec even, const float* p) { return vextq_f32(even, vld1q_f32(p + 8), 1); }
  static Vec InOrder(Vec v) { return v; }
  static Vec Round(Vec v) { return vrndnq_f32(v); }
  static Vec Scale(Vec v, Vec n) {
    const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return Mul(Mul(v, Pow2(half)), Pow2(vsubq_s32(whole, half)));
  }
  static Vec Abs(Vec v) { return vabsq_f32(v); }
  static Vec WithSign(Vec magnitude, Vec sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
  static Vec MaxOrNan(Vec a, Vec b) { return vmaxq_f32(a, b); }

  // The weights stay in whole registers; the multiply picks its lane.
  template <int kBlock>
  struct Weights {
    static constexpr int kRegisters = kBlock / 4;
    float32x4_t quad[kBlock / 4];
    explicit Weights(const float* p) {
      for (int k = 0; k < kBlock / 4; k++) quad[k] = vld1q_f32(p + 4 * k);
    }
    template <int kLane>
    Vec Fma(Vec sum, Vec x) const {
      // The intrinsic lets GCC copy the lanes to registers of their own, which puts accumulators on the stack.
      asm("fmla %0.4s, %1.4s, %2.s[%3]" : "+w"(sum) : "w"(x), "w"(quad[kLane / 4]), "i"(kLane % 4));
      return sum;
    }
  };

  // kRows neighbouring rows of one column (kernels.h).
  template <int kRows>
  struct Rows {
    float32x4_t quad[kRows / 4];

    static Rows Zero() {
      Rows v;
      for (int k = 0; k < kRows / 4; k++) v.quad[k] = vdupq_n_f32(0.0f);
      return v;
    }
    static Rows Load(const float* p) {
      Rows v;
      for (int k = 0; k < kRows / 4; k++) v.quad[k] = vld1q_f32(p + 4 * k);
      return v;
    }
    static void Store(float* p, Rows v) {
      for (int k = 0; k < kRows / 4; k++) vst1q_f32(p + 4 * k, v.quad[k]);
    }
    static Rows Fma(Rows sum, Rows a, const float* x) {
      for (int k = 0; k < kRows / 4; k++) sum.quad[k] = vfmaq_n_f32(sum.quad[k], a.quad[k], *x);
      return sum;
    }
    static Rows Add(Rows a, Rows b) {
      for (int k = 0; k < kRows / 4; k++) a.quad[k] = vaddq_f32(a.quad[k], b.quad[k]);
      return a;
    }
    static Rows Clamp(Rows v, float low, float high) {
      for (int k = 0; k < kRows / 4; k++) v.quad[k] = Simd::Clamp(v.quad[k], vdupq_n_f32(low), vdupq_n_f32(high));
      return v;
    }
    template <int kRow>
    static Rows Replace(Rows v, Rows with) {
      v.quad[kRow / 4] = vcopyq_laneq_f32(v.quad[kRow / 4], kRow % 4, with.quad[kRow / 4], kRow % 4);
      return v;
    }
  };

 private:
  static Vec Pow2(int32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
};

template <>
struct Simd::Weights<2> {
  static constexpr int kRegisters = 1;
  float32x2_t pair;
  explicit Weights(const float* p) : pair(vld1_f32(p)) {}
  template <int kLane>
  Vec Fma(Vec sum, Vec x) const {
    asm("fmla %0.4s, %1.4s, %2.s[%3]" : "+w"(sum) : "w"(x), "w"(pair), "i"(kLane));
    return sum;
  }
};

template <>
struct Simd::Weights<1> {
  static constexpr int kRegisters = 1;
  float32x4_t all;
  explicit Weights(const float* p) : all(vld1q_dup_f32(p)) {}
  template <int kLane>
  Vec Fma(Vec sum, Vec x) const {
    return vfmaq_f32(sum, x, all);
  }
};

template <>
struct Simd::Rows<2> {
  float32x2_t pair;

  static Rows Zero() { return {vdup_n_f32(0.0f)}; }
  static Rows Load(const float* p) { return {vld1_f32(p)}; }
  static void Store(float* p, Rows v) { vst1_f32(p, v.pair); }
  static Rows Fma(Rows sum, Rows a, const float* x) { return {vfma_n_f32(sum.pair, a.pair, *x)}; }
  static Rows Add(Rows a, Rows b) { return {vadd_f32(a.pair, b.pair)}; }
  static Rows Clamp(Rows v, float low, float high) {
    return {vmin_f32(vdup_n_f32(high), vmax_f32(vdup_n_f32(low), v.pair))};
  }
  template <int kRow>
  static Rows Replace(Rows v, Rows with) {
    return {vcopy_lane_f32(v.pair, kRow, with.pair, kRow)};
  }
};

template <>
struct Simd::Rows<1> {
  float row;

  static Rows Zero() { return {0.0f}; }
  static Rows Load(const float* p) { return {*p}; }
  static void Store(float* p, Rows v) { *p = v.row; }
  static Rows Fma(Rows sum, Rows a, const float* x) { return {__builtin_fmaf(a.row, *x, sum.row)}; }
  static Rows Add(Rows a, Rows b) { return {a.row + b.row}; }
  static Rows Clamp(Rows v, float low, float high) {
    const float raised = low > v.row ? low : v.row;
    return {high < raised ? high : raised};
  }
  template <int kRow>
  static Rows Replace(Rows, Rows with) {
    return with;
  }
};

}  // namespace neon
}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_NEON_H_
