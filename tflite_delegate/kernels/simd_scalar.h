// One-lane vectors: the kernel templates on a CPU without any of the others, and the easiest to read of the four.
#ifndef TFLITE_DELEGATE_KERNELS_SIMD_SCALAR_H_
#define TFLITE_DELEGATE_KERNELS_SIMD_SCALAR_H_

#include <cmath>
#include <cstdint>

namespace block_sparse {
namespace kernels {
namespace scalar {

struct Simd {
  using Vec = float;
  static constexpr int kLanes = 1;
  static constexpr int kRegisters = 16;
  static constexpr int kMaxTile[4] = {2, 2, 1, 1};
  static constexpr int kMaxTileAndOne[4] = {};         // spmm.h
  static constexpr bool kFetchesAhead = false;         // spmm.h
  static constexpr bool kFetchesWeights = false;       // spmm.h
  static constexpr int kGemvRows = 2;                  // by 4 vectors of a batch
  static constexpr int kMaxColumns = 2, kMaxSums = 4;  // spmm_rows.h: of a tile, in vectors
  static constexpr bool kShifts = false;               // spmm_rows.h
  static constexpr bool kMasks = false;                // LoadN and StoreN are as fast as Load and Store

  static Vec Zero() { return 0.0f; }
  static Vec Set1(float x) { return x; }
  static Vec Load(const float* p) { return *p; }
  static void Store(float* p, Vec v) { *p = v; }
  static Vec LoadN(const float* p, int n) { return n > 0 ? *p : 0.0f; }
  static void StoreN(float* p, Vec v, int n) {
    if (n > 0) *p = v;
  }
  static Vec Add(Vec a, Vec b) { return a + b; }
  static Vec Sub(Vec a, Vec b) { return a - b; }
  static Vec Mul(Vec a, Vec b) { return a * b; }
  static Vec Div(Vec a, Vec b) { return a / b; }
  static Vec Clamp(Vec v, Vec low, Vec high) { return Min(high, Max(low, v)); }
  static Vec Max(Vec bound, Vec v) { return bound > v ? bound : v; }
  static Vec Min(Vec bound, Vec v) { return bound < v ? bound : v; }
  static Vec Fma(Vec sum, Vec a, Vec b) { return sum + a * b; }
  static float Sum(Vec v) { return v; }
  static void Sums(const Vec* v, float* sums) {
    for (int k = 0; k < 4; k++) sums[k] = v[k];
  }

  using Mask = bool;
  static Mask LoadMask(const int32_t* p) { return *p != 0; }
  static Mask LoadEvenMask(const int32_t* p) { return *p != 0; }
  static Mask Less(Vec a, Vec b) { return a < b; }
  static Vec Select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
  static Vec FmaWhere(Mask mask, Vec sum, Vec a, Vec b) { return mask ? sum + a * b : sum; }
  static Vec LoadEven(const float* p) { return *p; }
  static void LoadPairs(const float* p, Vec* even, Vec* odd) {
    *even = p[0];
    *odd = p[1];
  }
  static void LoadThrees(const float* p, Vec* parts) {
    for (int k = 0; k < 3; k++) parts[k] = p[k];
  }
  static void Unzip(Vec a, Vec b, Vec* even, Vec* odd) {
    *even = a;
    *odd = b;
  }
  static Vec InRegister(Vec v) { return v; }
  static Vec NextEven(Vec, const float* p) { return p[2]; }
  static Vec InOrder(Vec v) { return v; }
  static Vec Round(Vec v) { return rintf(v); }
  static Vec Scale(Vec v, Vec n) { return v != v ? v : ldexpf(v, static_cast<int>(n)); }
  static Vec Abs(Vec v) { return fabsf(v); }
  static Vec WithSign(Vec magnitude, Vec sign) { return copysignf(magnitude, sign); }
  static Vec MaxOrNan(Vec a, Vec b) { return a > b || a != a ? a : b; }

  template <int kBlock>
  struct Weights {
    static constexpr int kRegisters = 1;
    const float* weights;
    explicit Weights(const float* p) : weights(p) {}
    template <int kLane>
    Vec Fma(Vec sum, Vec x) const {
      return sum + x * weights[kLane];
    }
  };

  // kRows neighbouring rows of one column (kernels.h).
  template <int kRows>
  struct Rows {
    float row[kRows];

    static Rows Zero() { return {}; }
    static Rows Load(const float* p) {
      Rows v;
      for (int k = 0; k < kRows; k++) v.row[k] = p[k];
      return v;
    }
    static void Store(float* p, Rows v) {
      for (int k = 0; k < kRows; k++) p[k] = v.row[k];
    }
    static Rows Fma(Rows sum, Rows a, const float* x) {
      for (int k = 0; k < kRows; k++) sum.row[k] += a.row[k] * *x;
      return sum;
    }
    static Rows Add(Rows a, Rows b) {
      for (int k = 0; k < kRows; k++) a.row[k] += b.row[k];
      return a;
    }
    static Rows Clamp(Rows v, float low, float high) {
      for (int k = 0; k < kRows; k++) v.row[k] = Simd::Clamp(v.row[k], low, high);
      return v;
    }
    template <int kRow>
    static Rows Replace(Rows v, Rows with) {
      v.row[kRow] = with.row[kRow];
      return v;
    }
  };
};

}  // namespace scalar
}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SIMD_SCALAR_H_
