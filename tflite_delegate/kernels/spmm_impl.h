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
// One pixel more than the tile: its sums are the lanes of one register for all rows, which the weights' vector times
// that pixel is added to.
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

template <class Simd, int kBlock, int kTile, SpmmSource kSource, SpmmPixels kPixels>
class Spmm {
  using Vec = typename Simd::Vec;
  using Weights = typename Simd::template Weights<kBlock>;
  using Rows = typename Simd::template Rows<kBlock>;
  struct Row {
    Vec tile[kTile];
  };
  struct Accumulators {
    Row row[kBlock];
    Rows one;  // of the last pixel, if there is one more: a lane a row
  };
  static constexpr bool kAndOne = kPixels == kSpmmVectorsAndOne;
  static constexpr int kOne = kTile * Simd::kLanes;  // that pixel

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
      if constexpr (kAndOne) acc.one = Rows::Fma(acc.one, Rows::Load(weights), pixels + kOne);
      if constexpr (Simd::kFetchesWeights) __builtin_prefetch(weights + kWeightsAhead);
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
  template <int kRow>
  static BLOCK_SPARSE_INLINE void Finish(const Accumulators& acc, const SpmmArgs& args, const SpmmArgs& bounds,
                                         int32_t out) {
    if (out < 0) return;
    const Row& row = acc.row[kRow];
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
    if constexpr (kAndOne) {
      float sums[kBlock];
      Rows::Store(sums, acc.one);
      float sum = sums[kRow];
      if (args.residual != nullptr) sum += args.residual[out + kOne];
      sum = sum < bounds.low ? bounds.low : sum;
      y[kOne] = sum > bounds.high ? bounds.high : sum;
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
    if constexpr (kAndOne) acc.one = Rows::Load(args.bias);
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Unroll<kBlock>([&](auto r) __attribute__((always_inline)) {
        Blocks(acc, args.counts[row + r], args.x, weights, offsets);
        Finish<r>(acc, args, original, args.row_out[row + r]);
        Start(acc.row[r], args.bias[row + r + kBlock]);
        if constexpr (kAndOne) acc.one = Rows::template Replace<r>(acc.one, Rows::Load(args.bias + row + kBlock));
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
      if constexpr (kAndOne) acc.one = Rows::Load(args.bias + row);
      Blocks(acc, *counts++, args.x, weights, offsets);
      Unroll<kBlock>([&](auto r)
                         __attribute__((always_inline)) { Finish<r>(acc, args, original, args.row_out[row + r]); });
    }
  }
};

template <class Simd, SpmmPixels kPixels>
constexpr int SpmmMaxTile(int log2_block) {
  return (kPixels == kSpmmVectors ? Simd::kMaxTile : Simd::kMaxTileAndOne)[log2_block];
}

template <class Simd, bool kAligned, SpmmPixels kPixels, SpmmSource kSource, int kLog2Block, int... kTile>
constexpr void FillSpmmTiles(SpmmTiles& tiles, std::integer_sequence<int, kTile...>) {
  // Blocks of one row are held up by loading anyway.
  constexpr SpmmSource kOwn = kLog2Block > 0 ? kSource : kSpmmNear;
  if constexpr (kAligned) {
    ((tiles.kernels[kLog2Block][kTile + 1] = Spmm<Simd, 1 << kLog2Block, kTile + 1, kOwn, kPixels>::Aligned), ...);
  } else {
    ((tiles.kernels[kLog2Block][kTile + 1] = Spmm<Simd, 1 << kLog2Block, kTile + 1, kOwn, kPixels>::Unaligned), ...);
  }
}

template <class Simd, bool kAligned, SpmmPixels kPixels, SpmmSource kSource, int... kLog2Block>
constexpr SpmmTiles MakeSpmmTiles(std::integer_sequence<int, kLog2Block...>) {
  SpmmTiles tiles = {};
  (FillSpmmTiles<Simd, kAligned, kPixels, kSource, kLog2Block>(
       tiles, std::make_integer_sequence<int, SpmmMaxTile<Simd, kPixels>(kLog2Block)>()),
   ...);
  return tiles;
}

template <class Simd, bool kAligned, SpmmPixels kPixels, SpmmSource kSource>
constexpr SpmmTiles kSpmmTiles =
    MakeSpmmTiles<Simd, kAligned, kPixels, kSource>(std::make_integer_sequence<int, kSpmmBlocks>());

template <class Simd, SpmmPixels kPixels>
constexpr void FillSpmmPixels(SpmmKernels& table) {
  // Where nothing is fetched ahead, both sources have the same kernels.
  constexpr SpmmSource kFar = Simd::kFetchesAhead ? kSpmmFar : kSpmmNear;
  bool any = false;
  for (int log2_block = 0; log2_block < kSpmmBlocks; log2_block++) {
    table.max_tile[kPixels][log2_block] = SpmmMaxTile<Simd, kPixels>(log2_block);
    any = any || table.max_tile[kPixels][log2_block] > 0;
  }
  if (!any) return;
  table.aligned[kPixels][kSpmmNear] = &kSpmmTiles<Simd, true, kPixels, kSpmmNear>;
  table.aligned[kPixels][kSpmmFar] = &kSpmmTiles<Simd, true, kPixels, kFar>;
  table.unaligned[kPixels][kSpmmNear] = &kSpmmTiles<Simd, false, kPixels, kSpmmNear>;
  table.unaligned[kPixels][kSpmmFar] = &kSpmmTiles<Simd, false, kPixels, kFar>;
}

template <class Simd>
constexpr SpmmKernels MakeSpmmKernels() {
  SpmmKernels table = {};
  FillSpmmPixels<Simd, kSpmmVectors>(table);
  FillSpmmPixels<Simd, kSpmmVectorsAndOne>(table);
  return table;
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SPMM_IMPL_H_
