#include "tflite_delegate/kernels/pack.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "tflite_delegate/format/column_sorter.h"
#include "tflite_delegate/kernels/blocks_by_row.h"
#include "tflite_delegate/kernels/kernels.h"
#include "tflite_delegate/kernels/rotate_blocks.h"

namespace block_sparse {
namespace kernels {

namespace {

int Log2(int block) {
  int log2 = 0;
  while ((1 << log2) < block) log2++;
  return log2;
}

// Begins a panel: rows [first, last) of the output, rounded up to whole blocks with rows that go nowhere. Rows before
// `first_stored` are computed in part only, for the blocks that reach from them into the panel.
void AppendPanel(const std::vector<int32_t>& row_channel, int32_t total_rows, int32_t first, int32_t first_stored,
                 int32_t last, int32_t block, const float* bias, int32_t channel_stride, PackedMatrix* packed) {
  packed->panels.push_back({});
  PackedMatrix::Panel& panel = packed->panels.back();
  panel.weights = packed->weights.size();
  panel.offsets = packed->offsets.size();
  panel.counts = packed->counts.size();
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

// The columns in the order of their pixels in memory, and the slice that each is in. So the positions of a kernel
// follow each other for each channel, and find the pixels that they share in the first-level cache.
struct Columns {
  Columns(const int32_t* offset, int32_t columns, int32_t slice_bytes) : order(columns), slice(columns, 0) {
    std::iota(order.begin(), order.end(), 0);
    own_order = std::is_sorted(offset, offset + columns);
    if (!own_order) std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return offset[a] < offset[b]; });
    if (slice_bytes == 0 || columns == 0) return;
    const int64_t lowest = offset[order.front()];
    for (int32_t c = 0; c < columns; c++) slice[c] = static_cast<int32_t>((offset[c] - lowest) / slice_bytes);
    slices = slice[order.back()] + 1;
  }
  // Of each column, in that order.
  std::vector<int32_t> Places() const {
    std::vector<int32_t> place(order.size());
    for (size_t i = 0; i < place.size(); i++) place[order[i]] = static_cast<int32_t>(i);
    return place;
  }
  std::vector<int32_t> order, slice;
  bool own_order = true;
  int slices = 1;
};

// A block's number in the matrix, and the row that it starts at: not looked up, as in another order that would take
// longer than all else.
struct BlockAndRow {
  uint32_t block;
  int32_t row;
};

// The blocks in the columns' order.
std::vector<BlockAndRow> OrderBlocks(const LoweredMatrix& matrix, const Columns& columns) {
  const std::vector<int32_t> place = columns.Places();
  std::vector<uint32_t> next(place.size() + 1, 0);
  for (int32_t column : matrix.block_column) next[place[column] + 1]++;
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<BlockAndRow> order(matrix.blocks());
  for (size_t i = 0; i < order.size(); i++) {
    order[next[place[matrix.block_column[i]]]++] = {static_cast<uint32_t>(i), matrix.block_row[i]};
  }
  return order;
}

// Blocks of one row, each row's in the columns' order; copied, as slices go by a few of each row at a time.
struct SingleWeights {
  SingleWeights(const LoweredMatrix& matrix, const Columns& columns) {
    BlocksByRow by_row(matrix);
    const std::vector<int32_t> place = columns.Places();
    column.resize(matrix.blocks());
    value.resize(matrix.blocks());
    size_t at = 0;
    format::ColumnSorter row(matrix.columns);
    for (int32_t r = 0; r < matrix.rows; r++) {
      for (uint32_t i = by_row.begin[r]; i < by_row.begin[r + 1]; i++) {
        row.Add(place[matrix.block_column[by_row.block(i)]], by_row.block(i));
      }
      row.Drain([&](int32_t, uint32_t block) {
        column[at] = matrix.block_column[block];
        value[at++] = *matrix.BlockValues(block);
      });
    }
    begin.swap(by_row.begin);
  }
  std::vector<uint32_t> begin;  // of each row, and the end
  UninitializedVector<int32_t> column;
  UninitializedVector<float> value;
};

// A row costs about as much as a block: its bias, its store and the end of its loop.
std::vector<int32_t> CutLowered(const LoweredMatrix& matrix, const std::vector<uint32_t>& row_begin, int panels) {
  return Cuts(matrix.rows, panels, matrix.block,
              [&](int32_t row) { return row_begin[row] + static_cast<uint64_t>(row); });
}

// Takes the blocks of a row of the matrix apart into pairs, of which one's pixels are below the other's, and the rest.
class Pairing {
 public:
  Pairing(const Columns& columns, const int32_t* offset, int32_t image_row_bytes)
      : below_(columns.order.size(), static_cast<int32_t>(columns.order.size())),
        block_of_(columns.order.size() + 1, 0) {
    auto at = columns.order.begin();
    for (int32_t column : columns.order) {
      const int64_t below = int64_t{offset[column]} + image_row_bytes;
      while (at != columns.order.end() && offset[*at] < below) ++at;
      if (at == columns.order.end()) break;
      if (offset[*at] == below) below_[column] = *at;
    }
  }

  struct Pair {
    uint32_t upper, lower;
  };
  UninitializedVector<Pair> pairs;
  UninitializedVector<uint32_t> singles;

  // Blocks of these columns, each upper one before its lower one. Without branches: which block is of a pair is as good
  // as random.
  void Take(const int32_t* columns, uint32_t count) {
    pairs.resize(count);
    singles.resize(count);
    size_t pair = 0, single = 0;
    for (uint32_t i = 0; i < count; i++) block_of_[columns[i]] = i + 1;
    for (uint32_t i = 0; i < count; i++) {
      uint32_t& own = block_of_[columns[i]];  // 0: it is the lower one of a pair
      uint32_t& below = block_of_[below_[columns[i]]];
      pairs[pair] = {i, below - 1};
      singles[single] = i;
      const uint32_t left = own != 0 ? 1 : 0, has_lower = below != 0 ? 1 : 0;
      pair += left & has_lower;
      single += left & ~has_lower;
      below &= left - 1;
      own = 0;
    }
    pairs.resize(pair);
    singles.resize(single);
  }

 private:
  // Of each column that whose pixels are one row of the image below its own, or one past the last.
  std::vector<int32_t> below_;
  // Each column's block, from 1 on, while a row is taken apart; else 0, as that past the last always is.
  std::vector<uint32_t> block_of_;
};

constexpr int32_t kPixel = sizeof(float);

// Which kind of its own a single block is.
SpmmKind KindOf(int32_t offset, bool shifted) {
  constexpr int32_t kLine = kMaxLanes * kPixel;
  const int32_t in_line = offset & (kLine - 1);
  // Without branches: which kind comes next is as good as random.
  static_assert(kSpmmAfter == kSpmmSingles + 1 && kSpmmBefore == kSpmmSingles + 2, "added up");
  const int after = in_line == kPixel ? 1 : 0, before = in_line == kLine - kPixel ? 2 : 0;
  return static_cast<SpmmKind>(kSpmmSingles + (shifted ? after + before : 0));
}

// How far the offset of each kind is from the block's pixels.
constexpr int32_t kFromPixels[kSpmmKinds] = {0, 0, -kPixel, kPixel};

}  // namespace

PackedMatrix PackLowered(const LoweredMatrix& matrix, const float* bias, const int32_t* column_offset,
                         int32_t channel_stride, int panels, int32_t slice_bytes) {
  const int32_t block = matrix.block, rows = matrix.rows;
  PackedMatrix packed;
  packed.log2_block = Log2(block);
  packed.aligned = matrix.aligned || block == 1;
  const Columns columns(column_offset, matrix.columns, slice_bytes);
  packed.slices = columns.slices;
  // Blocks of each cell, which is a row of a slice; first_cell[c] + r is that of column c and row r.
  std::vector<size_t> first_cell(matrix.columns);
  for (int32_t c = 0; c < matrix.columns; c++) first_cell[c] = static_cast<size_t>(columns.slice[c]) * rows;
  std::vector<uint32_t> count(static_cast<size_t>(packed.slices) * rows, 0);
  for (size_t i = 0; i < matrix.blocks(); i++) count[first_cell[matrix.block_column[i]] + matrix.block_row[i]]++;
  std::vector<uint32_t> row_begin(static_cast<size_t>(rows) + 1, 0);
  for (size_t i = 0; i < count.size(); i++) row_begin[i % rows + 1] += count[i];
  std::partial_sum(row_begin.begin(), row_begin.end(), row_begin.begin());

  // Where each cell's blocks go, and those once more that reach into a panel from above it.
  struct Again {
    size_t cell;
    uint32_t to;
    int32_t turn;  // of weights that are turned already
  };
  std::vector<uint32_t> next(count.size());
  std::vector<uint8_t> turn(rows, 0);
  std::vector<Again> again;
  uint32_t blocks = 0;
  const std::vector<int32_t> cuts = CutLowered(matrix, row_begin, panels);
  for (size_t c = 0; c + 1 < cuts.size(); c++) {
    const int32_t stored = cuts[c], last = cuts[c + 1];
    const int32_t first = packed.aligned ? stored : std::max(0, stored - (block - 1));
    for (int slice = 0; slice < packed.slices; slice++) {
      AppendPanel(matrix.row_channel, rows, first, stored, last, block, slice == 0 ? bias : nullptr, channel_stride,
                  &packed);
      PackedMatrix::Panel& panel = packed.panels.back();
      panel.offsets = blocks;
      panel.weights = static_cast<size_t>(blocks) * block;
      for (int32_t r = first; r < first + panel.rows; r += packed.aligned ? block : 1) {
        const size_t cell = static_cast<size_t>(slice) * rows + r;
        packed.counts.push_back(r < last ? count[cell] : 0);
        if (r >= last) continue;
        const int32_t own_turn = packed.aligned ? 0 : (r - first) % block;
        if (r >= stored) {
          next[cell] = blocks;
          turn[r] = static_cast<uint8_t>(own_turn);
        } else {
          again.push_back({cell, blocks, own_turn});
        }
        blocks += count[cell];
      }
      panel.blocks = blocks - panel.offsets;
    }
  }

  packed.offsets.resize(size_t{blocks} + kSpmmAhead);
  std::fill(packed.offsets.end() - kSpmmAhead, packed.offsets.end(), 0);
  packed.weights.resize(static_cast<size_t>(blocks) * block);
  WithBlock(block, [&](auto b) {
    constexpr int kBlock = decltype(b)::value;
    const auto move_block = [&, block_column = matrix.block_column.data(), offset_to = packed.offsets.data(),
                             weights_to = packed.weights.data()](uint32_t i, int32_t row) {
      const int32_t column = block_column[i];
      const size_t to = next[first_cell[column] + row]++;
      offset_to[to] = column_offset[column];
      RotateBlock<kBlock>(matrix.BlockValues(i), turn[row], weights_to + to * kBlock);
    };
    if (columns.own_order) {
      for (size_t i = 0; i < matrix.blocks(); i++) move_block(static_cast<uint32_t>(i), matrix.block_row[i]);
    } else {
      for (const BlockAndRow& one : OrderBlocks(matrix, columns)) move_block(one.block, one.row);
    }
    for (const Again& one : again) {
      const size_t from = next[one.cell] - count[one.cell];
      const int32_t turned = (one.turn - turn[one.cell % rows]) & (kBlock - 1);
      for (uint32_t i = 0; i < count[one.cell]; i++) {
        packed.offsets[one.to + i] = packed.offsets[from + i];
        RotateBlock<kBlock>(&packed.weights[(from + i) * kBlock], turned, &packed.weights[(one.to + i) * kBlock]);
      }
    }
  });
  return packed;
}

PackedMatrix PackImageRows(const LoweredMatrix& matrix, const float* bias, const int32_t* column_offset,
                           int32_t channel_stride, int panels, int32_t slice_bytes, const ImageRows& image) {
  PackedMatrix packed;
  packed.aligned = true;
  packed.weights.reserve(matrix.blocks());
  packed.offsets.reserve(matrix.blocks());
  const Columns columns(column_offset, matrix.columns, slice_bytes);
  const SingleWeights weights(matrix, columns);
  packed.slices = columns.slices;
  Pairing pairing(columns, column_offset, image.bytes);
  const std::vector<int32_t> cuts = CutLowered(matrix, weights.begin, panels);
  for (size_t c = 0; c + 1 < cuts.size(); c++) {
    const int32_t first = cuts[c], last = cuts[c + 1];
    std::vector<uint32_t> next(weights.begin.begin() + first, weights.begin.begin() + last);
    for (int slice = 0; slice < packed.slices; slice++) {
      AppendPanel(matrix.row_channel, matrix.rows, first, first, last, 1, slice == 0 ? bias : nullptr, channel_stride,
                  &packed);
      PackedMatrix::Panel& panel = packed.panels.back();
      for (int32_t r = first; r < last; r++) {
        const uint32_t begin = next[r - first];
        uint32_t& end = next[r - first];
        while (end < weights.begin[r + 1] && columns.slice[weights.column[end]] == slice) end++;
        const uint32_t count = end - begin;
        panel.blocks += count;
        const int32_t* const columns_here = weights.column.data() + begin;
        const float* const values_here = weights.value.data() + begin;
        pairing.Take(columns_here, count);
        // Pairs, and then the singles kind by kind.
        std::array<uint32_t, kSpmmKinds> counts = {};
        counts[kSpmmPairs] = static_cast<uint32_t>(pairing.pairs.size());
        for (uint32_t single : pairing.singles) counts[KindOf(column_offset[columns_here[single]], image.shifted)]++;
        packed.counts.insert(packed.counts.end(), counts.begin(), counts.end());
        size_t offset = packed.offsets.size(), weight = packed.weights.size();
        packed.offsets.resize(offset + count - counts[kSpmmPairs]);
        packed.weights.resize(weight + count);
        for (const Pairing::Pair& pair : pairing.pairs) {
          packed.offsets[offset++] = column_offset[columns_here[pair.upper]];
          packed.weights[weight++] = values_here[pair.upper];
          packed.weights[weight++] = values_here[pair.lower];
        }
        std::array<size_t, kSpmmKinds> single_at = {};  // the next one of each kind, from the first of all on
        for (int kind = kSpmmPairs + 2; kind < kSpmmKinds; kind++) {
          single_at[kind] = single_at[kind - 1] + counts[kind - 1];
        }
        for (uint32_t single : pairing.singles) {
          const int32_t pixels = column_offset[columns_here[single]];
          const SpmmKind kind = KindOf(pixels, image.shifted);
          const size_t at = single_at[kind]++;
          packed.offsets[offset + at] = pixels + kFromPixels[kind];
          packed.weights[weight + at] = values_here[single];
        }
      }
    }
  }
  return packed;
}

double ShareInPairs(const LoweredMatrix& matrix, const int32_t* column_offset, int32_t image_row_bytes,
                    int32_t row_step) {
  const Columns columns(column_offset, matrix.columns, 0);
  Pairing pairing(columns, column_offset, image_row_bytes);
  const BlocksByRow by_row(matrix);
  std::vector<int32_t> row_columns;
  uint64_t blocks = 0, pairs = 0;
  for (int32_t r = 0; r < matrix.rows; r += row_step) {
    row_columns.clear();
    for (uint32_t i = by_row.begin[r]; i < by_row.begin[r + 1]; i++) {
      row_columns.push_back(matrix.block_column[by_row.block(i)]);
    }
    pairing.Take(row_columns.data(), static_cast<uint32_t>(row_columns.size()));
    blocks += row_columns.size();
    pairs += pairing.pairs.size();
  }
  return blocks == 0 ? 0.0 : 2.0 * static_cast<double>(pairs) / static_cast<double>(blocks);
}

PackedMatrix PackDense(const float* weights, int32_t rows, int32_t columns, int block, const float* bias,
                       const int32_t* column_offset, int32_t channel_stride, int panels, int32_t slice_bytes) {
  PackedMatrix packed;
  packed.log2_block = Log2(block);
  packed.aligned = true;
  const Columns ordered(column_offset, columns, slice_bytes);
  packed.slices = ordered.slices;
  const std::vector<int32_t> identity;
  const std::vector<int32_t> cuts = Cuts(rows, panels, block, [](int32_t row) { return static_cast<uint64_t>(row); });
  for (size_t c = 0; c + 1 < cuts.size(); c++) {
    const int32_t first = cuts[c], last = cuts[c + 1];
    auto begin = ordered.order.begin();
    for (int slice = 0; slice < packed.slices; slice++) {
      const auto end =
          std::find_if(begin, ordered.order.end(), [&](int32_t column) { return ordered.slice[column] != slice; });
      const uint32_t count = static_cast<uint32_t>(end - begin);
      AppendPanel(identity, rows, first, first, last, block, slice == 0 ? bias : nullptr, channel_stride, &packed);
      PackedMatrix::Panel& panel = packed.panels.back();
      panel.blocks = static_cast<uint64_t>(panel.rows / block) * count;
      for (int32_t r = first; r < first + panel.rows; r += block) {
        packed.counts.push_back(count);
        const size_t at = packed.weights.size();
        packed.weights.resize(at + static_cast<size_t>(count) * block);
        for (auto column = begin; column != end; column++) packed.offsets.push_back(column_offset[*column]);
        if (r + block > rows) std::fill(packed.weights.begin() + at, packed.weights.end(), 0.0f);
        for (int32_t q = 0; q < block && r + q < rows; q++) {
          const float* row = weights + static_cast<size_t>(r + q) * columns;
          float* to = &packed.weights[at + q];
          for (auto column = begin; column != end; column++, to += block) *to = row[*column];
        }
      }
      begin = end;
    }
  }
  packed.offsets.insert(packed.offsets.end(), kSpmmAhead, 0);
  return packed;
}

}  // namespace kernels
}  // namespace block_sparse
