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
// AVX-512, block 8, tile 3: 8 weights beside 24 accumulators would be one register too many. Instead the 3 inputs stay
// in registers and the weights come one at a time.
//
// Unaligned: row r always accumulates in row set r mod B, and the packer has rotated each block's weights to match, so
// no accumulator moves. After the blocks that start at row i nothing more can reach row i: its set is stored and takes
// over row i + B. The inner loop is the aligned kernel's.
#ifndef TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_

#include <type_traits>
#include <utility>

#include "tflite_delegate/kernels/spmm.h"
#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

template <class Simd, int kBlock, int kTile, SpmmSource kSource>
class Spmm {
  using Vec = typename Simd::Vec;
  using Weights = typename Simd::template Weights<kBlock>;
  struct Row {
    Vec tile[kTile];
  };
  struct Accumulators {
    Row row[kBlock];
  };

  static BLOCK_SPARSE_INLINE void Blocks(Accumulators& acc, uint32_t count, const float* x, const float*& weights,
                                         const int32_t*& offsets) {
    for (; count != 0; count--) {
      const float* pixels = reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + *offsets);
      asm("" : "+r"(pixels));  // one register, so that neighbouring loads can be one instruction
      if constexpr (kSource == kSpmmFar) {
        const char* ahead = reinterpret_cast<const char*>(x) + offsets[kSpmmAhead];
        asm("" : "+r"(ahead));
        constexpr int kLine = 64, kBytes = kTile * Simd::kLanes * static_cast<int>(sizeof(float));
        Unroll<(kBytes + kLine - 1) / kLine>(
            [&](auto line) __attribute__((always_inline)) { __builtin_prefetch(ahead + line * kLine); });
      }
      if constexpr (kBlock * kTile + Weights::kRegisters + 1 > Simd::kRegisters) {
        // The weights do not fit beside the accumulators, but the inputs do: one weight at a time.
        Vec vectors[kTile];
        Unroll<kTile>([&](auto t) __attribute__((always_inline)) {
          vectors[t] = Simd::InRegister(Simd::Load(pixels + t * Simd::kLanes));
        });
        Unroll<kBlock>([&](auto r) __attribute__((always_inline)) {
          const Vec weight = Simd::InRegister(Simd::Set1(weights[r]));
          Unroll<kTile>([&](auto t) __attribute__((always_inline)) {
            acc.row[r].tile[t] = Simd::Fma(acc.row[r].tile[t], vectors[t], weight);
          });
          asm volatile("" ::: "memory");  // none of them early
        });
      } else {
        const Weights block(weights);
        Unroll<kTile>([&](auto t) __attribute__((always_inline)) {
          // More than two in flight would put accumulators on the stack where registers are tight.
          if constexpr (t % 2 == 0 && (kBlock + 1) * kTile + 1 > Simd::kRegisters) asm volatile("" ::: "memory");
          const Vec vector = Simd::Load(pixels + t * Simd::kLanes);
          Unroll<kBlock>([&](auto r) __attribute__((always_inline)) {
            acc.row[r].tile[t] = block.template Fma<r>(acc.row[r].tile[t], vector);
          });
        });
      }
      weights += kBlock;
      offsets++;
    }
  }

  static BLOCK_SPARSE_INLINE void Start(Row& row, float bias) {
    const Vec start = Simd::Set1(bias);
    Unroll<kTile>([&](auto t) __attribute__((always_inline)) { row.tile[t] = start; });
  }

  // `bounds` is what `args` is a copy of. The copy's members stay in registers, as no store can reach them; the bounds
  // are loaded each time, because in registers they would put accumulators on the stack.
  static BLOCK_SPARSE_INLINE void Finish(const Row& row, const SpmmArgs& args, const SpmmArgs& bounds, int32_t out) {
    if (out < 0) return;
    const Vec low = Simd::Set1(bounds.low), high = Simd::Set1(bounds.high);
    float* y = args.y + out;
    if (args.residual != nullptr) {
      const float* residual = args.residual + out;
      Unroll<kTile>([&](auto t) __attribute__((always_inline)) {
        const Vec sum = Simd::Add(row.tile[t], Simd::Load(residual + t * Simd::kLanes));
        Simd::Store(y + t * Simd::kLanes, Simd::Clamp(sum, low, high));
      });
    } else {
      Unroll<kTile>([&](auto t) __attribute__((always_inline)) {
        Simd::Store(y + t * Simd::kLanes, Simd::Clamp(row.tile[t], low, high));
      });
    }
  }

 public:
  static void Unaligned(const SpmmArgs& original) {
    if constexpr (kBlock == 1) return Aligned(original);
    const SpmmArgs args = original;
    const float* weights = args.weights;
    const int32_t* offsets = args.offsets;
    Accumulators acc;
    Unroll<kBlock>([&](auto r) __attribute__((always_inline)) { Start(acc.row[r], args.bias[r]); });
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Unroll<kBlock>([&](auto r) __attribute__((always_inline)) {
        Blocks(acc, args.counts[row + r], args.x, weights, offsets);
        Finish(acc.row[r], args, original, args.row_out[row + r]);
        Start(acc.row[r], args.bias[row + r + kBlock]);
      });
    }
  }

  static void Aligned(const SpmmArgs& original) {
    const SpmmArgs args = original;
    const float* weights = args.weights;
    const int32_t* offsets = args.offsets;
    const uint32_t* counts = args.counts;
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Accumulators acc;
      Unroll<kBlock>([&](auto r) __attribute__((always_inline)) { Start(acc.row[r], args.bias[row + r]); });
      Blocks(acc, *counts++, args.x, weights, offsets);
      Unroll<kBlock>([&](auto r)
                         __attribute__((always_inline)) { Finish(acc.row[r], args, original, args.row_out[row + r]); });
    }
  }
};

template <class Simd, int kLog2Block, SpmmSource kSource, int... kTile>
constexpr void FillSpmmBlock(SpmmKernels& table, std::integer_sequence<int, kTile...>) {
  constexpr int kBlock = 1 << kLog2Block;
  // Where nothing is fetched ahead, both sources have the same kernels. So have blocks of one row, which are held up by
  // loading anyway.
  constexpr SpmmSource kOwn = Simd::kFetchesAhead && kBlock > 1 ? kSource : kSpmmNear;
  table.max_tile[kLog2Block] = Simd::kMaxTile[kLog2Block];
  ((table.aligned[kSource][kLog2Block][kTile + 1] = Spmm<Simd, kBlock, kTile + 1, kOwn>::Aligned), ...);
  ((table.unaligned[kSource][kLog2Block][kTile + 1] = Spmm<Simd, kBlock, kTile + 1, kOwn>::Unaligned), ...);
}

template <class Simd, SpmmSource kSource>
constexpr void FillSpmmSource(SpmmKernels& table) {
  FillSpmmBlock<Simd, 0, kSource>(table, std::make_integer_sequence<int, Simd::kMaxTile[0]>());
  FillSpmmBlock<Simd, 1, kSource>(table, std::make_integer_sequence<int, Simd::kMaxTile[1]>());
  FillSpmmBlock<Simd, 2, kSource>(table, std::make_integer_sequence<int, Simd::kMaxTile[2]>());
  FillSpmmBlock<Simd, 3, kSource>(table, std::make_integer_sequence<int, Simd::kMaxTile[3]>());
}

template <class Simd>
constexpr SpmmKernels MakeSpmmKernels() {
  SpmmKernels table = {};
  FillSpmmSource<Simd, kSpmmNear>(table);
  FillSpmmSource<Simd, kSpmmFar>(table);
  return table;
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_
