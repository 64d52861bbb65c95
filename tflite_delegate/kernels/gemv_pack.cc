#include "tflite_delegate/kernels/gemv_pack.h"

#include <algorithm>

namespace block_sparse {
namespace kernels {

SparseGemvMatrix::SparseGemvMatrix(const LoweredMatrix& matrix, const float* bias, int panels) {
  block_ = matrix.block;
  while ((1 << log2_block_) < block_) log2_block_++;
  aligned_ = matrix.aligned || block_ == 1;
  wide_ = matrix.columns > 65536;
  const size_t blocks = matrix.block_column.size();
  weights_.reserve(blocks * block_);
  if (wide_) {
    wide_columns_.reserve(blocks);
  } else {
    columns_.reserve(blocks);
  }
  // A row costs about as much as a block: its bias, its store and the end of its loop.
  const auto work = [&](int32_t row) { return static_cast<double>(matrix.row_begin[row]) + row; };
  int32_t first = 0;
  for (int p = 1; p <= panels && first < matrix.rows; p++) {
    int32_t last = p == panels ? matrix.rows : first;
    while (last < matrix.rows && work(last) < work(matrix.rows) * p / panels) last++;
    last = std::min((last + block_ - 1) / block_ * block_, matrix.rows);
    if (last > first) Append(matrix, bias, first, last);
    first = last;
  }
}

void SparseGemvMatrix::Append(const LoweredMatrix& matrix, const float* bias, int32_t first, int32_t last) {
  // The unaligned kernel starts one group early: rows above `first` are then summed in part and not stored.
  const int32_t begin = aligned_ || first == 0 ? first : first - block_;
  const size_t next_block = wide_ ? wide_columns_.size() : columns_.size();
  panels_.push_back({first, begin, last, next_block, counts_.size(), bias_.size()});
  const int32_t padded_last = first + (last - first + block_ - 1) / block_ * block_;
  for (int32_t r = begin; r < padded_last + block_; r++) {
    bias_.push_back(r < last && bias != nullptr ? bias[r] : 0.0f);
  }
  const int32_t step = aligned_ ? block_ : 1;
  for (int32_t r = begin; r < padded_last; r += step) {
    // The blocks of row first - block_ do not reach row first.
    const uint32_t from = matrix.row_begin[std::min(begin < first && r == begin ? r + 1 : r, last)];
    const uint32_t to = matrix.row_begin[std::min(r + step, last)];
    counts_.push_back(to - from);
    const int32_t turn = aligned_ ? 0 : r % block_;
    for (uint32_t b = from; b < to; b++) {
      if (wide_) {
        wide_columns_.push_back(matrix.block_column[b]);
      } else {
        columns_.push_back(static_cast<uint16_t>(matrix.block_column[b]));
      }
      const float* values = &matrix.values[static_cast<size_t>(b) * block_];
      for (int32_t lane = 0; lane < block_; lane++) weights_.push_back(values[(lane - turn + block_) % block_]);
    }
  }
}

void SparseGemvMatrix::Run(const GemvKernels& kernels, int panel, const float* x, int64_t x_stride, float* y,
                           int64_t y_stride, int32_t batch, float low, float high) const {
  const Panel& p = panels_[panel];
  SparseGemvArgs args;
  args.weights = weights_.data() + p.block * block_;
  args.columns = wide_ ? static_cast<const void*>(wide_columns_.data() + p.block)
                       : static_cast<const void*>(columns_.data() + p.block);
  args.counts = counts_.data() + p.step;
  args.bias = bias_.data() + p.bias;
  args.rows = p.last - p.begin;
  args.skipped_rows = p.first - p.begin;
  args.x = x;
  args.x_stride = x_stride;
  args.y = y + p.begin;
  args.y_stride = y_stride;
  args.batch = batch;
  args.low = low;
  args.high = high;
  const auto& table = aligned_ ? kernels.aligned : kernels.unaligned;
  table[wide_ ? 1 : 0][log2_block_](args);
}

}  // namespace kernels
}  // namespace block_sparse
