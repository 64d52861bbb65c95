// The sums of B neighbouring rows over blocks of B weights: the inner loop of the block-sparse matrix-vector kernels.
//
// kStep blocks at a time: Step takes them all, Rest the first n < kStep of them. Both read kStep columns, which must be
// there. How the blocks share registers is up to the CPU level; levels specialise this class where they know better.
#ifndef TFLITE_DELEGATE_KERNELS_BLOCK_SUM_H_
#define TFLITE_DELEGATE_KERNELS_BLOCK_SUM_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

// Largest kStep of any level.
constexpr int kMaxBlockStep = 16;

// Four columns in as few loads as possible: loading is what the loop waits for.
template <class Simd>
struct FourColumns {
  size_t at[4];
  explicit BLOCK_SPARSE_INLINE FourColumns(const uint32_t* columns)
      : at{columns[0], columns[1], columns[2], columns[3]} {}
  explicit BLOCK_SPARSE_INLINE FourColumns(const uint16_t* columns) {
#if defined(__aarch64__)
    uint64_t all;
    memcpy(&all, columns, sizeof all);
    at[0] = all & 0xffff;
    at[1] = (all >> 16) & 0xffff;
    at[2] = (all >> 32) & 0xffff;
    at[3] = all >> 48;
#else
    uint32_t two[2];
    memcpy(two, columns, sizeof two);
    at[0] = two[0] & 0xffff;
    at[1] = two[0] >> 16;
    at[2] = two[1] & 0xffff;
    at[3] = two[1] >> 16;
#endif
  }
};

// A register (or more) a block, kChains of them in turn so that no multiply-add waits for the one before it.
template <class Simd, int kBlock, int kChains>
class BlockSum {
  using Rows = typename Simd::template Rows<kBlock>;

 public:
  static constexpr int kStep = 4;

  BLOCK_SPARSE_INLINE BlockSum() {
    Unroll<kChains>([&](auto k) BLOCK_SPARSE_LAMBDA { chain_[k] = Rows::Zero(); });
  }

  template <class Index>
  BLOCK_SPARSE_INLINE void Step(const float* weights, const Index* columns, const float* x) {
    const FourColumns<Simd> column(columns);
    Unroll<kStep>([&](auto k) BLOCK_SPARSE_LAMBDA {
      constexpr int kChain = decltype(k)::value % kChains;
      chain_[kChain] = Rows::Fma(chain_[kChain], Rows::Load(weights + k * kBlock), x + column.at[k]);
    });
  }

  template <class Index>
  BLOCK_SPARSE_INLINE void Rest(const float* weights, const Index* columns, const float* x, uint32_t n) {
    for (uint32_t k = 0; k < n; k++) {
      chain_[0] = Rows::Fma(chain_[0], Rows::Load(weights + k * kBlock), x + columns[k]);
    }
  }

  BLOCK_SPARSE_INLINE Rows Total() const {
    if constexpr (kChains == 4) {
      return Rows::Add(Rows::Add(chain_[0], chain_[1]), Rows::Add(chain_[2], chain_[3]));
    } else {
      static_assert(kChains == 1, "one or four");
      return chain_[0];
    }
  }

  // The row's sum starts again.
  template <int kRow>
  BLOCK_SPARSE_INLINE void Clear() {
    Unroll<kChains>([&](auto k)
                        BLOCK_SPARSE_LAMBDA { chain_[k] = Rows::template Replace<kRow>(chain_[k], Rows::Zero()); });
  }

 private:
  Rows chain_[kChains];
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_BLOCK_SUM_H_
