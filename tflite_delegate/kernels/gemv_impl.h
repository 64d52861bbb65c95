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

// How far ahead of their use weights of one vector are fetched, in floats: of the same row, and past its end of the row
// that comes after it in the next tile. The processor fetches ahead too, but no further than a page, which is a row of
// 1024. AVX-512 on Zen 5: layers with such rows take three quarters of the time, with rows of 256 nine tenths. Fetching
// 256 floats or a whole tile ahead is no better.
constexpr int32_t kDenseAhead = 512;

template <class Simd, int kRows, int kBatch>
class DenseGemv {
  using Vec = typename Simd::Vec;

 public:
  // Rows [row, row + kRows) and vectors [n, n + kBatch), those past the end being the last ones once more.
  static BLOCK_SPARSE_INLINE void Tile(const GemvArgs& args, int32_t row, int32_t n) {
    const float* w[kRows];
    const float* x[kBatch];
    Vec sum[kRows][kBatch];
    // Unrolled, so that no sum is ever looked up by a number and all of them stay in registers.
    const auto for_rows = [](const auto& fn) BLOCK_SPARSE_LAMBDA { Unroll<kRows>(fn); };
    const auto for_batch = [](const auto& fn) BLOCK_SPARSE_LAMBDA { Unroll<kBatch>(fn); };
    for_rows([&](auto r) BLOCK_SPARSE_LAMBDA {
      w[r] = args.weights + static_cast<int64_t>(std::min<int32_t>(row + r, args.rows - 1)) * args.columns;
      for_batch([&](auto b) BLOCK_SPARSE_LAMBDA { sum[r][b] = Simd::Zero(); });
    });
    for_batch([&](auto b)
                  BLOCK_SPARSE_LAMBDA { x[b] = args.x + std::min<int32_t>(n + b, args.batch - 1) * args.x_stride; });
    int32_t c = 0;
    const auto add = [&](const auto& load) BLOCK_SPARSE_LAMBDA {
      [[maybe_unused]] const int64_t next_tile = c + kDenseAhead < args.columns ? 0 : int64_t{kRows - 1} * args.columns;
      Vec inputs[kBatch];
      for_batch([&](auto b) BLOCK_SPARSE_LAMBDA { inputs[b] = load(x[b]); });
      for_rows([&](auto r) BLOCK_SPARSE_LAMBDA {
        const Vec weights = load(w[r]);
        if constexpr (kBatch == 1 && Simd::kFetchesWeights) __builtin_prefetch(w[r] + c + kDenseAhead + next_tile);
        for_batch([&](auto b) BLOCK_SPARSE_LAMBDA { sum[r][b] = Simd::Fma(sum[r][b], weights, inputs[b]); });
      });
    };
    for (; c + Simd::kLanes <= args.columns; c += Simd::kLanes) {
      add([&](const float* from) BLOCK_SPARSE_LAMBDA { return Simd::Load(from + c); });
    }
    if (c < args.columns) {
      add([&](const float* from) BLOCK_SPARSE_LAMBDA { return Simd::LoadN(from + c, args.columns - c); });
    }
    for_rows([&](auto r) BLOCK_SPARSE_LAMBDA {
      if (row + r >= args.rows) return;
      const float bias = args.bias != nullptr ? args.bias[row + r] : 0.0f;
      for_batch([&](auto b) BLOCK_SPARSE_LAMBDA {
        if (n + b >= args.batch) return;
        float value = bias + Simd::Sum(sum[r][b]);
        value = args.low > value ? args.low : value;
        args.y[(n + b) * args.y_stride + row + r] = args.high < value ? args.high : value;
      });
    });
  }

  static BLOCK_SPARSE_INLINE void Rows(const GemvArgs& args, int32_t n) {
    for (int32_t row = 0; row < args.rows; row += kRows) Tile(args, row, n);
  }
};

template <class Simd>
void Gemv(const GemvArgs& args) {
  if (args.batch == 1) {
    DenseGemv<Simd, 8, 1>::Rows(args, 0);
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
      const Rows result = Rows::Clamp(Rows::Add(bias, sums[b]), args.low, args.high);
      if (row + kBlock <= args.rows) {
        Rows::Store(in.y[b] + row, result);
      } else {
        float rows[kBlock];
        Rows::Store(rows, result);
        for (int32_t r = row; r < args.rows; r++) in.y[b][r] = rows[r - row];
      }
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
