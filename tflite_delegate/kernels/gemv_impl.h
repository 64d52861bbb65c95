// The kernels behind gemv.h, as templates over the vectors of a CPU level.
//
// Dense: a vector register a row (and an x), filled along the columns and summed at the end: several rows are in flight
// because one chain of multiply-adds would wait for its own latency.
//
// Block-sparse: the sums of B neighbouring rows are kept in registers (block_sum.h); a block is one load of its
// weights, one broadcast of its x and one multiply-add.
//
// Unaligned: row r always sums in lane r mod B, and the packer has rotated each block's weights to match. After the
// blocks that start at row i nothing more can reach row i: its lane is complete and starts again as row i + B. Nothing
// is read, added to and written back.
#ifndef TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_

#include <algorithm>
#include <utility>

#include "tflite_delegate/kernels/block_sum.h"
#include "tflite_delegate/kernels/gemv.h"
#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

// Stores rows [row, row + kRows) of `rows`.
template <int kRows, class Rows>
BLOCK_SPARSE_INLINE void StoreRows(float* y, int32_t row, int32_t rows, Rows values) {
  if (row + kRows <= rows) {
    Rows::Store(y + row, values);
  } else {
    float each[kRows];
    Rows::Store(each, values);
    for (int32_t r = row; r < rows; r++) y[r] = each[r - row];
  }
}

template <class Simd, int kRows, int kBatch>
class DenseGemv {
  using Vec = typename Simd::Vec;
  using Rows = typename Simd::template Rows<kRows>;
  // A model's weights are aligned to 16 bytes, and most longer vectors of them lie in two cache lines: with AVX-512,
  // layers whose weights come from beyond the second-level cache take a third longer. So a row begins with that part of
  // a vector which ends where an aligned one begins. Each lane sums the columns it would sum otherwise, at another
  // place only: where a model lies in memory does not change its results. Rows that are not whole vectors go by the
  // first one of their tile.
  static constexpr bool kAligns = Simd::kLanes * sizeof(float) > 16;

 public:
  // Rows [row, row + kRows) and vectors [n, n + kBatch), those past the end being the last ones once more.
  static BLOCK_SPARSE_INLINE void Tile(const GemvArgs& args, int32_t row, int32_t n) {
    const float* w[kRows];
    const float* x[kBatch];
    Vec sum[kBatch * kRows];
    // Unrolled, so that no sum is ever looked up by a number and all of them stay in registers.
    const auto for_rows = [](const auto& fn) BLOCK_SPARSE_LAMBDA { Unroll<kRows>(fn); };
    const auto for_batch = [](const auto& fn) BLOCK_SPARSE_LAMBDA { Unroll<kBatch>(fn); };
    const auto for_sums = [](const auto& fn) BLOCK_SPARSE_LAMBDA { Unroll<kBatch * kRows>(fn); };
    for_rows([&](auto r) BLOCK_SPARSE_LAMBDA {
      w[r] = args.weights + static_cast<int64_t>(std::min<int32_t>(row + r, args.rows - 1)) * args.columns;
    });
    for_batch([&](auto b)
                  BLOCK_SPARSE_LAMBDA { x[b] = args.x + std::min<int32_t>(n + b, args.batch - 1) * args.x_stride; });
    for_sums([&](auto k) BLOCK_SPARSE_LAMBDA { sum[k] = Simd::Zero(); });
    const int past = kAligns ? reinterpret_cast<uintptr_t>(w[0]) / sizeof(float) % Simd::kLanes : 0;
    int32_t c = -past;
    const auto add = [&](const auto& load) BLOCK_SPARSE_LAMBDA {
      Vec inputs[kBatch];
      for_batch([&](auto b) BLOCK_SPARSE_LAMBDA { inputs[b] = load(x[b]); });
      for_rows([&](auto r) BLOCK_SPARSE_LAMBDA {
        const Vec weights = load(w[r]);
        for_batch([&](auto b)
                      BLOCK_SPARSE_LAMBDA { sum[b * kRows + r] = Simd::Fma(sum[b * kRows + r], weights, inputs[b]); });
      });
    };
    if constexpr (kAligns) {
      if (past != 0) {
        const int32_t end = std::min(past + args.columns, Simd::kLanes);
        add([&](const float* from) BLOCK_SPARSE_LAMBDA { return Simd::LoadBetween(from + c, past, end); });
        c += Simd::kLanes;
      }
    }
    for (; c + Simd::kLanes <= args.columns; c += Simd::kLanes) {
      add([&](const float* from) BLOCK_SPARSE_LAMBDA { return Simd::Load(from + c); });
    }
    if (c < args.columns) {
      add([&](const float* from) BLOCK_SPARSE_LAMBDA { return Simd::LoadN(from + c, args.columns - c); });
    }
    if constexpr (kAligns) {
      for_sums([&](auto k) BLOCK_SPARSE_LAMBDA { sum[k] = Simd::Turn(sum[k], past); });
    }
    float sums[kBatch * kRows];
    static_assert(kBatch * kRows % 4 == 0, "in fours");
    Unroll<kBatch * kRows / 4>([&](auto k) BLOCK_SPARSE_LAMBDA { Simd::Sums(sum + 4 * k, sums + 4 * k); });
    float bias[kRows] = {};
    if (args.bias != nullptr) {
      for_rows([&](auto r) BLOCK_SPARSE_LAMBDA { bias[r] = args.bias[std::min<int32_t>(row + r, args.rows - 1)]; });
    }
    for (int b = 0; b < std::min(kBatch, args.batch - n); b++) {
      const Rows result = Rows::Add(Rows::Load(bias), Rows::Load(sums + b * kRows));
      StoreRows<kRows>(args.y + (n + b) * args.y_stride, row, args.rows, Rows::Clamp(result, args.low, args.high));
    }
  }
};

template <class Simd>
void Gemv(const GemvArgs& args) {
  if (args.batch == 1) {
    for (int32_t row = 0; row < args.rows; row += 8) DenseGemv<Simd, 8, 1>::Tile(args, row, 0);
    return;
  }
  constexpr int kRows = Simd::kGemvRows;
  for (int32_t row = 0; row < args.rows; row += kRows) {
    for (int32_t n = 0; n < args.batch; n += 4) DenseGemv<Simd, kRows, 4>::Tile(args, row, n);
  }
}

template <class Simd, int kBlock, class Index, int kBatch>
class SparseGemv {
  using Rows = typename Simd::template Rows<kBlock>;
  using Sum = BlockSum<Simd, kBlock, kBatch == 1 ? 4 : 1>;
  static constexpr uint32_t kStep = Sum::kStep;

  struct Streams {
    const float* weights;
    const Index* columns;
    const float* x[kBatch];
    float* y[kBatch];
  };

  template <class Fn>
  static BLOCK_SPARSE_INLINE void ForBatch(const Fn& fn) {
    Unroll<kBatch>(fn);
  }

  static BLOCK_SPARSE_INLINE void Blocks(Sum (&sums)[kBatch], Streams& in, uint32_t count) {
    for (uint32_t steps = count / kStep; steps != 0; steps--) {
      ForBatch([&](auto b) BLOCK_SPARSE_LAMBDA { sums[b].Step(in.weights, in.columns, in.x[b]); });
      in.weights += kStep * kBlock;
      in.columns += kStep;
    }
    const uint32_t rest = count % kStep;
    ForBatch([&](auto b) BLOCK_SPARSE_LAMBDA { sums[b].Rest(in.weights, in.columns, in.x[b], rest); });
    in.weights += rest * kBlock;
    in.columns += rest;
  }

  static BLOCK_SPARSE_INLINE void Finish(const SparseGemvArgs& args, const Streams& in, int32_t row,
                                         const Rows (&sums)[kBatch]) {
    if (row < args.skipped_rows) return;
    const Rows bias = Rows::Load(args.bias + row);
    ForBatch([&](auto b) BLOCK_SPARSE_LAMBDA {
      StoreRows<kBlock>(in.y[b], row, args.rows, Rows::Clamp(Rows::Add(bias, sums[b]), args.low, args.high));
    });
  }

  static BLOCK_SPARSE_INLINE Streams Open(const SparseGemvArgs& args, int32_t n) {
    Streams in;
    in.weights = args.weights;
    in.columns = static_cast<const Index*>(args.columns);
    for (int b = 0; b < kBatch; b++) {
      const int64_t vector = std::min(n + b, args.batch - 1);
      in.x[b] = args.x + vector * args.x_stride;
      in.y[b] = args.y + vector * args.y_stride;
    }
    return in;
  }

 public:
  static BLOCK_SPARSE_INLINE void Unaligned(const SparseGemvArgs& args, int32_t n) {
    Streams in = Open(args, n);
    Sum sums[kBatch];
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Rows done[kBatch];
      ForBatch([&](auto b) BLOCK_SPARSE_LAMBDA { done[b] = Rows::Zero(); });
      Unroll<kBlock>([&](auto r) BLOCK_SPARSE_LAMBDA {
        constexpr int kRow = decltype(r)::value;
        Blocks(sums, in, args.counts[row + kRow]);
        ForBatch([&](auto b) BLOCK_SPARSE_LAMBDA {
          done[b] = Rows::template Replace<kRow>(done[b], sums[b].Total());
          sums[b].template Clear<kRow>();
        });
      });
      Finish(args, in, row, done);
    }
  }

  static BLOCK_SPARSE_INLINE void Aligned(const SparseGemvArgs& args, int32_t n) {
    Streams in = Open(args, n);
    const uint32_t* counts = args.counts;
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Sum sums[kBatch];
      Blocks(sums, in, *counts++);
      Rows done[kBatch];
      ForBatch([&](auto b) BLOCK_SPARSE_LAMBDA { done[b] = sums[b].Total(); });
      Finish(args, in, row, done);
    }
  }
};

template <class Simd, int kBlock, class Index, bool kAligned>
void SparseGemvBatch(const SparseGemvArgs& args) {
  using One = SparseGemv<Simd, kBlock, Index, 1>;
  int32_t n = 0;
  // Without vectors, four at a time would be four times the code and nothing else; and more columns than 16 bits count
  // are not worth it.
  if constexpr (Simd::kLanes > 1 && sizeof(Index) == 2) {
    using Four = SparseGemv<Simd, kBlock, Index, 4>;
    for (; n + 3 <= args.batch; n += 4) kAligned ? Four::Aligned(args, n) : Four::Unaligned(args, n);
  }
  for (; n < args.batch; n++) kAligned ? One::Aligned(args, n) : One::Unaligned(args, n);
}

template <class Simd, int... kLog2Block>
constexpr GemvKernels FillGemvKernels(std::integer_sequence<int, kLog2Block...>) {
  return {Gemv<Simd>,
          {{SparseGemvBatch<Simd, 1 << kLog2Block, uint16_t, true>...},
           {SparseGemvBatch<Simd, 1 << kLog2Block, uint32_t, true>...}},
          {{SparseGemvBatch<Simd, 1 << kLog2Block, uint16_t, false>...},
           {SparseGemvBatch<Simd, 1 << kLog2Block, uint32_t, false>...}}};
}

template <class Simd>
constexpr GemvKernels MakeGemvKernels() {
  return FillGemvKernels<Simd>(std::make_integer_sequence<int, kGemvBlocks>());
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_
