// The kernels behind gemv.h, as templates over the vectors of a CPU level.
//
// Dense: a vector register a row (and an x), filled along the columns and summed at the end: several rows are in flight
// because one chain of multiply-adds would wait for its own latency.
//
// Block-sparse: a register holds the sums of B neighbouring rows; a block is one load of its weights, one broadcast of
// its x and one multiply-add. kChains registers take turns, again to hide the latency:
//
//               rows 4g .. 4g+3
//   chain 0     s0 s1 s2 s3      starts as the bias
//   chain 1     s0 s1 s2 s3      the others as zeros
//   ...
//
// Unaligned: row r always sums in lane r mod B, and the packer has rotated each block's weights to match. After the
// blocks that start at row i nothing more can reach row i: its lane is complete and starts again as row i + B. Nothing
// is read, added to and written back.
#ifndef TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_GEMV_IMPL_H_

#include <algorithm>
#include <utility>

#include "tflite_delegate/kernels/gemv.h"

#define BLOCK_SPARSE_INLINE inline __attribute__((always_inline))

namespace block_sparse {
namespace kernels {

template <class Simd, int kRows, int kBatch>
class DenseGemv {
  using Vec = typename Simd::Vec;

 public:
  // Rows [row, row + kRows) and vectors [n, n + kBatch), those past the end being the last ones once more.
  static BLOCK_SPARSE_INLINE void Tile(const GemvArgs& args, int32_t row, int32_t n) {
    const float* w[kRows];
    const float* x[kBatch];
    for (int r = 0; r < kRows; r++) {
      w[r] = args.weights + static_cast<int64_t>(std::min(row + r, args.rows - 1)) * args.columns;
    }
    for (int b = 0; b < kBatch; b++) x[b] = args.x + std::min(n + b, args.batch - 1) * args.x_stride;
    Vec sum[kRows][kBatch];
    for (int r = 0; r < kRows; r++) {
      for (int b = 0; b < kBatch; b++) sum[r][b] = Simd::Zero();
    }
    int32_t c = 0;
    for (; c + Simd::kLanes <= args.columns; c += Simd::kLanes) {
      Vec inputs[kBatch];
      for (int b = 0; b < kBatch; b++) inputs[b] = Simd::Load(x[b] + c);
      for (int r = 0; r < kRows; r++) {
        const Vec weights = Simd::Load(w[r] + c);
        for (int b = 0; b < kBatch; b++) sum[r][b] = Simd::Fma(sum[r][b], weights, inputs[b]);
      }
    }
    if (c < args.columns) {
      const int left = args.columns - c;
      Vec inputs[kBatch];
      for (int b = 0; b < kBatch; b++) inputs[b] = Simd::LoadN(x[b] + c, left);
      for (int r = 0; r < kRows; r++) {
        const Vec weights = Simd::LoadN(w[r] + c, left);
        for (int b = 0; b < kBatch; b++) sum[r][b] = Simd::Fma(sum[r][b], weights, inputs[b]);
      }
    }
    for (int r = 0; r < kRows && row + r < args.rows; r++) {
      const float bias = args.bias != nullptr ? args.bias[row + r] : 0.0f;
      for (int b = 0; b < kBatch && n + b < args.batch; b++) {
        float value = bias + Simd::Sum(sum[r][b]);
        value = args.low > value ? args.low : value;
        args.y[(n + b) * args.y_stride + row + r] = args.high < value ? args.high : value;
      }
    }
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
  static constexpr int kChains = kBatch == 1 ? 4 : 1;

  struct Streams {
    const float* weights;
    const Index* columns;
    const float* x[kBatch];
    float* y[kBatch];
  };
  struct Sums {
    Rows chain[kBatch][kChains];
  };

  static BLOCK_SPARSE_INLINE void Block(Sums& sums, int chain, const Streams& in, int k) {
    const Rows weights = Rows::Load(in.weights + k * kBlock);
    const size_t column = in.columns[k];
    for (int b = 0; b < kBatch; b++) {
      sums.chain[b][chain] = Rows::Fma(sums.chain[b][chain], weights, in.x[b] + column);
    }
  }

  static BLOCK_SPARSE_INLINE void Blocks(Sums& sums, Streams& in, uint32_t count) {
    for (; count >= kChains; count -= kChains) {
      for (int k = 0; k < kChains; k++) Block(sums, k, in, k);
      in.weights += kChains * kBlock;
      in.columns += kChains;
    }
    if constexpr (kChains > 1) {
      for (; count != 0; count--) {
        Block(sums, 0, in, 0);
        in.weights += kBlock;
        in.columns++;
      }
    }
  }

  static BLOCK_SPARSE_INLINE Rows Total(const Rows (&chain)[kChains]) {
    if constexpr (kChains == 1) {
      return chain[0];
    } else {
      return Rows::Add(Rows::Add(chain[0], chain[1]), Rows::Add(chain[2], chain[3]));
    }
  }

  static BLOCK_SPARSE_INLINE void Start(Sums& sums, const float* bias) {
    for (int b = 0; b < kBatch; b++) {
      sums.chain[b][0] = Rows::Load(bias);
      for (int k = 1; k < kChains; k++) sums.chain[b][k] = Rows::Zero();
    }
  }

  static BLOCK_SPARSE_INLINE void Finish(const SparseGemvArgs& args, const Streams& in, int32_t row,
                                         const Rows (&done)[kBatch]) {
    if (row < args.skipped_rows) return;
    for (int b = 0; b < kBatch; b++) {
      const Rows result = Rows::Clamp(done[b], args.low, args.high);
      if (row + kBlock <= args.rows) {
        Rows::Store(in.y[b] + row, result);
      } else {
        float rows[kBlock];
        Rows::Store(rows, result);
        for (int32_t r = row; r < args.rows; r++) in.y[b][r] = rows[r - row];
      }
    }
  }

  static BLOCK_SPARSE_INLINE void Open(const SparseGemvArgs& args, int32_t n, Streams* in) {
    in->weights = args.weights;
    in->columns = static_cast<const Index*>(args.columns);
    for (int b = 0; b < kBatch; b++) {
      const int64_t vector = std::min(n + b, args.batch - 1);
      in->x[b] = args.x + vector * args.x_stride;
      in->y[b] = args.y + vector * args.y_stride;
    }
  }

  template <int kRow>
  static BLOCK_SPARSE_INLINE void UnalignedRow(Sums& sums, Streams& in, uint32_t count, Rows next,
                                               Rows (&done)[kBatch]) {
    Blocks(sums, in, count);
    for (int b = 0; b < kBatch; b++) {
      done[b] = Rows::template Replace<kRow>(done[b], Total(sums.chain[b]));
      sums.chain[b][0] = Rows::template Replace<kRow>(sums.chain[b][0], next);
      for (int k = 1; k < kChains; k++) {
        sums.chain[b][k] = Rows::template Replace<kRow>(sums.chain[b][k], Rows::Zero());
      }
    }
  }

  template <int... kRow>
  static BLOCK_SPARSE_INLINE void UnalignedGroup(Sums& sums, Streams& in, const uint32_t* counts, Rows next,
                                                 Rows (&done)[kBatch], std::integer_sequence<int, kRow...>) {
    (UnalignedRow<kRow>(sums, in, counts[kRow], next, done), ...);
  }

 public:
  static BLOCK_SPARSE_INLINE void Unaligned(const SparseGemvArgs& args, int32_t n) {
    Streams in;
    Open(args, n, &in);
    Sums sums;
    Start(sums, args.bias);
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Rows done[kBatch];
      for (int b = 0; b < kBatch; b++) done[b] = Rows::Zero();
      UnalignedGroup(sums, in, args.counts + row, Rows::Load(args.bias + row + kBlock), done,
                     std::make_integer_sequence<int, kBlock>());
      Finish(args, in, row, done);
    }
  }

  static BLOCK_SPARSE_INLINE void Aligned(const SparseGemvArgs& args, int32_t n) {
    Streams in;
    Open(args, n, &in);
    const uint32_t* counts = args.counts;
    for (int32_t row = 0; row < args.rows; row += kBlock) {
      Sums sums;
      Start(sums, args.bias + row);
      Blocks(sums, in, *counts++);
      Rows done[kBatch];
      for (int b = 0; b < kBatch; b++) done[b] = Total(sums.chain[b]);
      Finish(args, in, row, done);
    }
  }
};

template <class Simd, int kBlock, class Index, bool kAligned>
void SparseGemvBatch(const SparseGemvArgs& args) {
  using One = SparseGemv<Simd, kBlock, Index, 1>;
  using Four = SparseGemv<Simd, kBlock, Index, 4>;
  int32_t n = 0;
  for (; n + 3 <= args.batch; n += 4) kAligned ? Four::Aligned(args, n) : Four::Unaligned(args, n);
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
