// The output-stationary kernels behind spmm.h, as templates over the vectors of a CPU level.
//
// Registers (AVX-512, block 4, tile 6; NEON, block 4, tile 7 has the weights in one register and 28 accumulators):
//
//              tile 0   tile 1  ...  tile 5
//   row set 0   acc00    acc01  ...   acc05     24 accumulators
//   row set 1   acc10     ...                    4 weights, broadcast
//   row set 2    ...                             1 to 4 inputs in flight
//   row set 3   acc30     ...    ...  acc35
//
// Unaligned: row r always accumulates in row set r mod B, and the packer has rotated each block's weights to match, so
// no accumulator moves. After the blocks that start at row i nothing more can reach row i: its set is stored and takes
// over row i + B. The inner loop is the aligned kernel's.
#ifndef TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_

#include <utility>

#include "tflite_delegate/kernels/spmm.h"

#define BLOCK_SPARSE_INLINE inline __attribute__((always_inline))

namespace block_sparse {
namespace kernels {

template <class Simd, int kBlock, int kTile>
class Spmm {
  using Vec = typename Simd::Vec;
  using Weights = typename Simd::template Weights<kBlock>;
  struct Accumulators {
    Vec row[kBlock][kTile];
  };

  template <int... kRow>
  static BLOCK_SPARSE_INLINE void Multiply(Accumulators& acc, const Weights& weights, const float* x,
                                           std::integer_sequence<int, kRow...>) {
    for (int t = 0; t < kTile; t++) {
      const Vec pixels = Simd::Load(x + t * Simd::kLanes);
      ((acc.row[kRow][t] = weights.template Fma<kRow>(acc.row[kRow][t], pixels)), ...);
    }
  }

  static BLOCK_SPARSE_INLINE void Blocks(Accumulators& acc, uint32_t count, const float* x, const float*& weights,
                                         const int32_t*& offsets) {
    for (; count != 0; count--) {
      Multiply(acc, Weights(weights), x + *offsets, std::make_integer_sequence<int, kBlock>());
      weights += kBlock;
      offsets++;
    }
  }

  static BLOCK_SPARSE_INLINE void Start(Vec (&row)[kTile], float bias) {
    for (int t = 0; t < kTile; t++) row[t] = Simd::Set1(bias);
  }

  static BLOCK_SPARSE_INLINE void Finish(Vec (&row)[kTile], const SpmmArgs& args, int32_t out, Vec low, Vec high) {
    if (out < 0) return;
    if (args.residual != nullptr) {
      for (int t = 0; t < kTile; t++) {
        row[t] = Simd::Add(row[t], Simd::Load(args.residual + out + t * Simd::kLanes));
      }
    }
    for (int t = 0; t < kTile; t++) {
      Simd::Store(args.y + out + t * Simd::kLanes, Simd::Clamp(row[t], low, high));
    }
  }

  template <int... kRow>
  static BLOCK_SPARSE_INLINE void UnalignedRows(Accumulators& acc, const SpmmArgs& args, int32_t row,
                                                const float*& weights, const int32_t*& offsets, Vec low, Vec high,
                                                std::integer_sequence<int, kRow...>) {
    ((Blocks(acc, args.counts[row + kRow], args.x, weights, offsets),
      Finish(acc.row[kRow], args, args.row_out[row + kRow], low, high),
      Start(acc.row[kRow], args.bias[row + kRow + kBlock])),
     ...);
  }

 public:
  static void Unaligned(const SpmmArgs& args) {
    const Vec low = Simd::Set1(args.low), high = Simd::Set1(args.high);
    const float* weights = args.weights;
    const int32_t* offsets = args.offsets;
    Accumulators acc;
    for (int r = 0; r < kBlock; r++) Start(acc.row[r], args.bias[r]);
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      UnalignedRows(acc, args, row, weights, offsets, low, high, std::make_integer_sequence<int, kBlock>());
    }
  }

  static void Aligned(const SpmmArgs& args) {
    const Vec low = Simd::Set1(args.low), high = Simd::Set1(args.high);
    const float* weights = args.weights;
    const int32_t* offsets = args.offsets;
    const uint32_t* counts = args.counts;
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Accumulators acc;
      for (int r = 0; r < kBlock; r++) Start(acc.row[r], args.bias[row + r]);
      Blocks(acc, *counts++, args.x, weights, offsets);
      for (int r = 0; r < kBlock; r++) Finish(acc.row[r], args, args.row_out[row + r], low, high);
    }
  }
};

template <class Simd, int kLog2Block, int... kTile>
constexpr void FillSpmmBlock(SpmmKernels& table, std::integer_sequence<int, kTile...>) {
  constexpr int kBlock = 1 << kLog2Block;
  table.max_tile[kLog2Block] = Simd::kMaxTile[kLog2Block];
  ((table.aligned[kLog2Block][kTile + 1] = Spmm<Simd, kBlock, kTile + 1>::Aligned), ...);
  ((table.unaligned[kLog2Block][kTile + 1] = Spmm<Simd, kBlock, kTile + 1>::Unaligned), ...);
}

template <class Simd>
constexpr SpmmKernels MakeSpmmKernels() {
  SpmmKernels table = {};
  FillSpmmBlock<Simd, 0>(table, std::make_integer_sequence<int, Simd::kMaxTile[0]>());
  FillSpmmBlock<Simd, 1>(table, std::make_integer_sequence<int, Simd::kMaxTile[1]>());
  FillSpmmBlock<Simd, 2>(table, std::make_integer_sequence<int, Simd::kMaxTile[2]>());
  FillSpmmBlock<Simd, 3>(table, std::make_integer_sequence<int, Simd::kMaxTile[3]>());
  return table;
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_
