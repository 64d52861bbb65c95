// The kernels behind spmm_rows.h, as templates over the vectors of a CPU level.
//
// Registers (AVX-512, 7 rows of 4 vectors; NEON has tiles of half as many, beside which the compiler keeps all pointers
// in registers too):
//
//                 vector 0   ...  vector 3
//   image row 0    acc00     ...   acc03       28 accumulators
//   image row 1    acc10     ...   acc13        2 weights, broadcast (NEON: 1 register)
//   ...                                         2 inputs in flight
//   image row 6    acc60     ...   acc63
#ifndef TFLITE_DELEGATE_KERNELS_SPMM_ROWS_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_SPMM_ROWS_IMPL_H_

#include <utility>

#include "tflite_delegate/kernels/spmm_rows.h"
#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

// What a row of the matrix ends with, for tiles whose last vectors are not full; out of line, as it is large.
template <class Simd>
__attribute__((noinline)) void FinishSpmmRows(const float* sums, int rows, int columns, const SpmmRowsArgs& args,
                                              int32_t out) {
  using Vec = typename Simd::Vec;
  const Vec low = Simd::Set1(args.low), high = Simd::Set1(args.high);
  for (int r = 0; r < rows; r++) {
    for (int c = 0; c < columns; c++, sums += Simd::kLanes) {
      const int64_t at = out + int64_t{r} * args.image_row + c * Simd::kLanes;
      const int lanes = c + 1 < columns ? Simd::kLanes : args.last_lanes;
      Vec sum = Simd::Load(sums);
      if (args.residual != nullptr) sum = Simd::Add(sum, Simd::LoadN(args.residual + at, lanes));
      Simd::StoreN(args.y + at, Simd::Clamp(sum, low, high), lanes);
    }
  }
}

template <class Simd, int kRows, int kColumns, bool kWhole>
class SpmmRows {
  using Vec = typename Simd::Vec;
  static constexpr int kLanes = Simd::kLanes;

  // The rest of a row's blocks.
  struct Blocks {
    const float* weights;
    const int32_t* offsets;

    BLOCK_SPARSE_INLINE const float* NextPixels(const float* x) {
      return reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + *offsets++);
    }
  };

  struct Accumulators {
    Vec at[kRows][kColumns];
  };

  template <class Fn>
  static BLOCK_SPARSE_INLINE void ForEachVector(const Fn& fn) {
    Unroll<kRows>([&](auto r) BLOCK_SPARSE_LAMBDA { Unroll<kColumns>([&](auto c) BLOCK_SPARSE_LAMBDA { fn(r, c); }); });
  }

  static BLOCK_SPARSE_INLINE int32_t ImageRow(const SpmmRowsArgs& args) {
    return kWhole ? kColumns * kLanes : args.image_row;
  }

  static BLOCK_SPARSE_INLINE void Pairs(Accumulators& acc, uint32_t count, const SpmmRowsArgs& args, Blocks& blocks) {
    for (; count != 0; count--) {
      const float* pixels = blocks.NextPixels(args.x);
      const typename Simd::template Weights<2> pair(blocks.weights);
      blocks.weights += 2;
      Unroll<kRows + 1>([&](auto r) BLOCK_SPARSE_LAMBDA {
        Unroll<kColumns>([&](auto c) BLOCK_SPARSE_LAMBDA {
          const Vec vector = Simd::InRegister(Simd::Load(pixels + c * kLanes));
          if constexpr (r < kRows) acc.at[r][c] = pair.template Fma<0>(acc.at[r][c], vector);
          if constexpr (r > 0) acc.at[r - 1][c] = pair.template Fma<1>(acc.at[r - 1][c], vector);
        });
        pixels += ImageRow(args);
      });
    }
  }

  static BLOCK_SPARSE_INLINE void Singles(Accumulators& acc, uint32_t count, const SpmmRowsArgs& args, Blocks& blocks) {
    for (; count != 0; count--) {
      const float* pixels = blocks.NextPixels(args.x);
      const Vec weight = Simd::Set1(*blocks.weights++);
      Unroll<kRows>([&](auto r) BLOCK_SPARSE_LAMBDA {
        Unroll<kColumns>([&](auto c) BLOCK_SPARSE_LAMBDA {
          acc.at[r][c] = Simd::Fma(acc.at[r][c], Simd::Load(pixels + c * kLanes), weight);
        });
        pixels += ImageRow(args);
      });
    }
  }

  // What a vector lacks comes from the next one, the first one's of the next row if the rows are whole. Else the last
  // one of a row is loaded from where it lies.
  static BLOCK_SPARSE_INLINE void After(Accumulators& acc, uint32_t count, const SpmmRowsArgs& args, Blocks& blocks) {
    for (; count != 0; count--) {
      const float* pixels = blocks.NextPixels(args.x);
      const Vec weight = Simd::Set1(*blocks.weights++);
      Vec vector = Simd::Load(pixels);
      Unroll<kRows>([&](auto r) BLOCK_SPARSE_LAMBDA {
        if constexpr (!kWhole && r > 0 && kColumns > 1) vector = Simd::InRegister(Simd::Load(pixels));
        Unroll<kColumns>([&](auto c) BLOCK_SPARSE_LAMBDA {
          if constexpr (c + 1 < kColumns || (kWhole && r + 1 < kRows)) {
            const Vec next = Simd::InRegister(Simd::Load(pixels + (c + 1) * kLanes));
            acc.at[r][c] = Simd::Fma(acc.at[r][c], Simd::template Shift<1>(vector, next), weight);
            vector = next;
          } else {
            acc.at[r][c] = Simd::Fma(acc.at[r][c], Simd::Load(pixels + c * kLanes + 1), weight);
          }
        });
        pixels += ImageRow(args);
      });
    }
  }

  static BLOCK_SPARSE_INLINE void Before(Accumulators& acc, uint32_t count, const SpmmRowsArgs& args, Blocks& blocks) {
    for (; count != 0; count--) {
      const float* pixels = blocks.NextPixels(args.x);
      const Vec weight = Simd::Set1(*blocks.weights++);
      Vec previous = Simd::Zero();
      Unroll<kRows>([&](auto r) BLOCK_SPARSE_LAMBDA {
        Unroll<kColumns>([&](auto c) BLOCK_SPARSE_LAMBDA {
          if constexpr (c > 0 || (kWhole && r > 0)) {
            const Vec vector = Simd::InRegister(Simd::Load(pixels + c * kLanes));
            acc.at[r][c] = Simd::Fma(acc.at[r][c], Simd::template Shift<kLanes - 1>(previous, vector), weight);
            previous = vector;
          } else {
            acc.at[r][c] = Simd::Fma(acc.at[r][c], Simd::Load(pixels - 1), weight);
            if constexpr (kColumns > 1 || kWhole) previous = Simd::InRegister(Simd::Load(pixels));
          }
        });
        pixels += ImageRow(args);
      });
    }
  }

  // `bounds` is what `args` is a copy of, as in spmm_impl.h.
  static BLOCK_SPARSE_INLINE void Finish(const Accumulators& acc, const SpmmRowsArgs& args, const SpmmRowsArgs& bounds,
                                         int32_t out) {
    if (!kWhole && !Simd::kMasks && args.last_lanes < kLanes) {
      float sums[kRows * kColumns * kLanes];
      ForEachVector([&](auto r, auto c)
                        BLOCK_SPARSE_LAMBDA { Simd::Store(sums + (r * kColumns + c) * kLanes, acc.at[r][c]); });
      return FinishSpmmRows<Simd>(sums, kRows, kColumns, bounds, out);
    }
    const Vec low = Simd::Set1(bounds.low), high = Simd::Set1(bounds.high);
    float* y = args.y + out;
    const bool adds = args.residual != nullptr;
    const float* residual = adds ? args.residual + out : nullptr;
    Unroll<kRows>([&](auto r) BLOCK_SPARSE_LAMBDA {
      Unroll<kColumns>([&](auto c) BLOCK_SPARSE_LAMBDA {
        constexpr int kAt = c * kLanes;
        Vec sum = acc.at[r][c];
        if constexpr (kWhole || !Simd::kMasks || c + 1 < kColumns) {
          if (adds) sum = Simd::Add(sum, Simd::Load(residual + kAt));
          Simd::Store(y + kAt, Simd::Clamp(sum, low, high));
        } else {
          if (adds) sum = Simd::Add(sum, Simd::LoadN(residual + kAt, args.last_lanes));
          Simd::StoreN(y + kAt, Simd::Clamp(sum, low, high), args.last_lanes);
        }
      });
      y += ImageRow(args);
      if (adds) residual += ImageRow(args);
    });
  }

 public:
  static void Run(const SpmmRowsArgs& original) {
    const SpmmRowsArgs args = original;
    Blocks blocks = {args.weights, args.offsets};
    const uint32_t* counts = args.counts;
    for (int32_t row = 0; row < args.rows; row++, counts += kSpmmKinds) {
      Accumulators acc;
      const Vec start = Simd::Set1(args.bias[row]);
      ForEachVector([&](auto r, auto c) BLOCK_SPARSE_LAMBDA { acc.at[r][c] = start; });
      Pairs(acc, counts[kSpmmPairs], args, blocks);
      Singles(acc, counts[kSpmmSingles], args, blocks);
      if constexpr (Simd::kShifts) {
        After(acc, counts[kSpmmAfter], args, blocks);
        Before(acc, counts[kSpmmBefore], args, blocks);
      }
      Finish(acc, args, original, args.row_out[row]);
    }
  }
};

template <class Simd, int kRows, int kColumns>
constexpr void FillSpmmTile(SpmmRowsKernels& table) {
  if constexpr (kRows * kColumns <= Simd::kMaxSums && (kRows <= kSpmmFewRows || kRows == kSpmmManyRows)) {
    table.part[kRows][kColumns] = SpmmRows<Simd, kRows, kColumns, false>::Run;
    // Nothing but shifting makes whole rows another matter.
    table.whole[kRows][kColumns] = SpmmRows<Simd, kRows, kColumns, Simd::kShifts>::Run;
    table.max_rows[kColumns] = kRows;
  }
}

template <class Simd, int kColumns, int... kRow>
constexpr void FillSpmmColumns(SpmmRowsKernels& table, std::integer_sequence<int, kRow...>) {
  (FillSpmmTile<Simd, kRow + 1, kColumns>(table), ...);
}

template <class Simd, int... kColumn>
constexpr SpmmRowsKernels FillSpmmRows(std::integer_sequence<int, kColumn...>) {
  SpmmRowsKernels table = {};
  table.max_columns = Simd::kMaxColumns;
  table.shifts = Simd::kShifts;
  (FillSpmmColumns<Simd, kColumn + 1>(table, std::make_integer_sequence<int, kSpmmManyRows>()), ...);
  return table;
}

template <class Simd>
constexpr SpmmRowsKernels MakeSpmmRowsKernels() {
  return FillSpmmRows<Simd>(std::make_integer_sequence<int, Simd::kMaxColumns>());
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SPMM_ROWS_IMPL_H_
