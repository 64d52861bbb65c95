#include "tflite_delegate/kernels/pack.h"

#include <algorithm>

namespace block_sparse {
namespace kernels {

namespace {

int Log2(int block) {
  int log2 = 0;
  while ((1 << log2) < block) log2++;
  return log2;
}

// Appends rows [first, last) of the output, rounded up to whole blocks with rows that go nowhere. Rows before
// `first_stored` are computed in part only, for the blocks that reach from them into the panel.
void AppendRows(const std::vector<int32_t>& row_channel, int32_t total_rows, int32_t first, int32_t first_stored,
                int32_t last, int32_t block, const float* bias, int32_t channel_stride, PackedMatrix* packed) {
  PackedMatrix::Panel& panel = packed->panels.back();
  panel.row = packed->row_out.size();
  panel.rows = (last - first + block - 1) / block * block;
  for (int32_t r = first; r < first + panel.rows; r++) {
    const bool stored = r >= first_stored && r < last;
    const int32_t channel = r < total_rows ? (row_channel.empty() ? r : row_channel[r]) : 0;
    packed->row_out.push_back(stored ? channel * channel_stride : -1);
    packed->bias.push_back(stored && bias != nullptr ? bias[channel] : 0.0f);
  }
  // The unaligned kernel reads the bias of the rows after the last one.
  packed->bias.insert(packed->bias.end(), block, 0.0f);
  packed->row_out.insert(packed->row_out.end(), block, -1);
}

// Row cuts of about equal work, each a multiple of `multiple` rows: cut 0 is 0, the last is `rows`.
template <class WorkUpTo>
std::vector<int32_t> Cuts(int32_t rows, int panels, int32_t multiple, const WorkUpTo& work_up_to) {
  std::vector<int32_t> cuts = {0};
  const double total = static_cast<double>(work_up_to(rows));
  int32_t row = 0;
  for (int p = 1; p < panels; p++) {
    while (row < rows && static_cast<double>(work_up_to(row)) < total * p / panels) row++;
    const int32_t cut = row / multiple * multiple;
    if (cut > cuts.back() && cut < rows) cuts.push_back(cut);
  }
  cuts.push_back(rows);
  return cuts;
}

}  // namespace

SpmmArgs PackedMatrix::Args(size_t index) const {
  const Panel& panel = panels[index];
  SpmmArgs args = {};
  args.weights = weights.data() + panel.weights;
  args.offsets = offsets.data() + panel.offsets;
  args.counts = counts.data() + panel.counts;
  args.bias = bias.data() + panel.row;
  args.row_out = row_out.data() + panel.row;
  args.rows = panel.rows;
  return args;
}

PackedMatrix PackLowered(const LoweredMatrix& matrix, const float* bias, const int32_t* column_offset,
                         int32_t channel_stride, int panels) {
  const int32_t block = matrix.block;
  const int32_t rows = matrix.rows;
  PackedMatrix packed;
  packed.log2_block = Log2(block);
  packed.aligned = matrix.aligned || block == 1;
  const size_t blocks = matrix.block_column.size();
  packed.weights.reserve(matrix.values.size());
  packed.offsets.reserve(blocks);
  // A row costs about as much as a block: its bias, its store and the end of its loop.
  const std::vector<int32_t> cuts =
      Cuts(rows, panels, block, [&](int32_t row) { return matrix.row_begin[row] + static_cast<uint64_t>(row); });
  for (size_t c = 0; c + 1 < cuts.size(); c++) {
    const int32_t stored = cuts[c], last = cuts[c + 1];
    const int32_t first = packed.aligned ? stored : std::max(0, stored - (block - 1));
    packed.panels.push_back({});
    packed.panels.back().weights = packed.weights.size();
    packed.panels.back().offsets = packed.offsets.size();
    packed.panels.back().counts = packed.counts.size();
    packed.panels.back().blocks = matrix.row_begin[last] - matrix.row_begin[first];
    AppendRows(matrix.row_channel, rows, first, stored, last, block, bias, channel_stride, &packed);
    const int32_t padded_last = first + packed.panels.back().rows;
    const int32_t step = packed.aligned ? block : 1;
    for (int32_t r = first; r < padded_last; r += step) {
      const uint32_t begin = matrix.row_begin[std::min(r, last)];
      const uint32_t end = matrix.row_begin[std::min(r + step, last)];
      packed.counts.push_back(end - begin);
      const int32_t turn = packed.aligned ? 0 : (r - first) % block;
      const size_t old_blocks = packed.offsets.size();
      packed.offsets.resize(old_blocks + (end - begin));
      packed.weights.resize((old_blocks + (end - begin)) * block);
      int32_t* offset = packed.offsets.data() + old_blocks;
      float* to = packed.weights.data() + old_blocks * block;
      const float* w = matrix.values.data() + static_cast<size_t>(begin) * block;
      for (uint32_t b = begin; b < end; b++, to += block, w += block) {
        *offset++ = column_offset[matrix.block_column[b]];
        // Weight i to place (i + turn) mod block.
        std::copy(w, w + (block - turn), to + turn);
        std::copy(w + (block - turn), w + block, to);
      }
    }
  }
  return packed;
}

PackedMatrix PackDense(const float* weights, int32_t rows, int32_t columns, int block, const float* bias,
                       const int32_t* column_offset, int32_t channel_stride, int panels) {
  PackedMatrix packed;
  packed.log2_block = Log2(block);
  packed.aligned = true;
  const std::vector<int32_t> identity;
  const std::vector<int32_t> cuts = Cuts(rows, panels, block, [](int32_t row) { return static_cast<uint64_t>(row); });
  for (size_t c = 0; c + 1 < cuts.size(); c++) {
    const int32_t first = cuts[c], last = cuts[c + 1];
    packed.panels.push_back({});
    packed.panels.back().weights = packed.weights.size();
    packed.panels.back().counts = packed.counts.size();
    packed.panels.back().offsets = packed.offsets.size();
    AppendRows(identity, rows, first, first, last, block, bias, channel_stride, &packed);
    const int32_t padded_last = first + packed.panels.back().rows;
    packed.panels.back().blocks = static_cast<uint64_t>((padded_last - first) / block) * columns;
    for (int32_t r = first; r < padded_last; r += block) {
      packed.counts.push_back(columns);
      packed.offsets.insert(packed.offsets.end(), column_offset, column_offset + columns);
      const size_t at = packed.weights.size();
      packed.weights.resize(at + static_cast<size_t>(columns) * block);
      for (int32_t q = 0; q < block && r + q < rows; q++) {
        const float* row = weights + static_cast<size_t>(r + q) * columns;
        float* to = &packed.weights[at + q];
        for (int32_t col = 0; col < columns; col++) to[static_cast<size_t>(col) * block] = row[col];
      }
    }
  }
  return packed;
}

}  // namespace kernels
}  // namespace block_sparse
