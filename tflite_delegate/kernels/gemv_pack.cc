#include "tflite_delegate/kernels/gemv_pack.h"

#include <stdlib.h>

#include <algorithm>
#include <cstring>

#include "tflite_delegate/kernels/block_sum.h"
#include "tflite_delegate/kernels/blocks_by_row.h"
#include "tflite_delegate/kernels/rotate_blocks.h"

namespace block_sparse {
namespace kernels {

namespace {

template <class Index>
void StoreColumns(const LoweredMatrix& matrix, const BlocksByRow& by_row, uint32_t first, uint32_t end, void* to) {
  Index* index = static_cast<Index*>(to);
  for (uint32_t i = first; i < end; i++) *index++ = static_cast<Index>(matrix.block_column[by_row.block(i)]);
}

}  // namespace

void SparseGemvMatrix::AddPanel(const std::vector<uint32_t>& row_begin, int32_t first, int32_t last) {
  Panel panel = {};
  panel.first = panel.begin = first;
  panel.last = last;
  panel.first_block = row_begin[first];
  if (!aligned_ && first > 0 && first < last) {  // a real one: it begins at a multiple of the block
    // One group early: the rows above `first` are then summed in part and not stored. The blocks of row
    // first - block_ do not reach row `first`.
    panel.begin = first - block_;
    panel.first_block = row_begin[panel.begin + 1];
  }
  panel.end_block = row_begin[last];
  if (!panels_.empty()) {
    const Panel& before = panels_.back();
    panel.block = before.block + (before.end_block - before.first_block);
    panel.group = before.group + (before.last - before.begin + block_ - 1) / block_;
  }
  panels_.push_back(panel);
}

bool SparseGemvMatrix::Pack(const LoweredMatrix& matrix, const float* bias, int panels) {
  block_ = matrix.block;
  while ((1 << log2_block_) < block_) log2_block_++;
  aligned_ = matrix.aligned || block_ == 1;
  wide_ = matrix.columns > 65536;

  const BlocksByRow by_row(matrix);
  const std::vector<uint32_t>& row_begin = by_row.begin;
  // A row costs about as much as a block: its bias, its store and the end of its loop.
  const auto work = [&](int32_t row) { return static_cast<double>(row_begin[row]) + row; };
  int32_t first = 0;
  for (int p = 1; p <= panels && first < matrix.rows; p++) {
    int32_t last = p == panels ? matrix.rows : first;
    while (last < matrix.rows && work(last) < work(matrix.rows) * p / panels) last++;
    last = std::min((last + block_ - 1) / block_ * block_, matrix.rows);
    if (last > first) AddPanel(row_begin, first, last);
    first = last;
  }
  // Where a further panel would begin is where the streams end.
  AddPanel(row_begin, matrix.rows, matrix.rows);
  const Panel end = panels_.back();
  panels_.pop_back();

  const size_t steps = end.group * (aligned_ ? 1 : block_);
  const size_t index_bytes = wide_ ? sizeof(uint32_t) : sizeof(uint16_t);
  const size_t weight_bytes = end.block * block_ * sizeof(float);
  const size_t bias_bytes = end.group * block_ * sizeof(float);
  const size_t count_bytes = steps * sizeof(uint32_t);
  const size_t column_bytes = (end.block + kMaxBlockStep) * index_bytes;
  void* memory = nullptr;
  const size_t bytes = weight_bytes + bias_bytes + count_bytes + column_bytes;
  if (posix_memalign(&memory, 64, bytes) != 0) return false;
  memory_.reset(memory);
  weights_ = static_cast<float*>(memory);
  bias_ = weights_ + end.block * block_;
  counts_ = reinterpret_cast<uint32_t*>(bias_ + end.group * block_);
  columns_ = counts_ + steps;
  memset(static_cast<char*>(columns_) + end.block * index_bytes, 0, kMaxBlockStep * index_bytes);

  const int32_t step = aligned_ ? block_ : 1;
  for (const Panel& panel : panels_) {
    void* to = static_cast<char*>(columns_) + panel.block * index_bytes;
    const auto store = wide_ ? StoreColumns<uint32_t> : StoreColumns<uint16_t>;
    store(matrix, by_row, panel.first_block, panel.end_block, to);

    float* panel_bias = bias_ + panel.group * block_;
    const int32_t rows = (panel.last - panel.begin + block_ - 1) / block_ * block_;
    for (int32_t r = 0; r < rows; r++) {
      panel_bias[r] = bias != nullptr && panel.begin + r < panel.last ? bias[panel.begin + r] : 0.0f;
    }

    uint32_t* counts = counts_ + panel.group * (aligned_ ? 1 : block_);
    float* weights = weights_ + panel.block * block_;
    WithBlock(block_, [&](auto b) {
      constexpr int kBlock = decltype(b)::value;
      uint32_t block = panel.first_block;
      for (int32_t r = 0; r < rows; r += step) {
        const uint32_t next = std::max(block, row_begin[std::min(panel.begin + r + step, panel.last)]);
        *counts++ = next - block;
        const int32_t turn = aligned_ ? 0 : r % kBlock;
        for (; block < next; block++, weights += kBlock) {
          RotateBlock<kBlock>(matrix.BlockValues(by_row.block(block)), turn, weights);
        }
      }
    });
  }
  return true;
}

void SparseGemvMatrix::Run(const GemvKernels& kernels, int index, const float* x, int64_t x_stride, float* y,
                           int64_t y_stride, int32_t batch, float low, float high) const {
  const Panel& panel = panels_[index];
  SparseGemvArgs args;
  args.weights = weights_ + panel.block * block_;
  args.columns = static_cast<const char*>(columns_) + panel.block * (wide_ ? sizeof(uint32_t) : sizeof(uint16_t));
  args.counts = counts_ + panel.group * (aligned_ ? 1 : block_);
  args.bias = bias_ + panel.group * block_;
  args.rows = panel.last - panel.begin;
  args.skipped_rows = panel.first - panel.begin;
  args.x = x;
  args.x_stride = x_stride;
  args.y = y + panel.begin;
  args.y_stride = y_stride;
  args.batch = batch;
  args.low = low;
  args.high = high;
  const auto& table = aligned_ ? kernels.aligned : kernels.unaligned;
  table[wide_ ? 1 : 0][log2_block_](args);
}

}  // namespace kernels
}  // namespace block_sparse
