#include "tflite_delegate/format/sparse_rows.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "tflite_delegate/format/column_sorter.h"
#include "tflite_delegate/format/lowering.h"

namespace block_sparse::format {
namespace {

// Blocks are cheaper to finish at multiples of their height, a whole group of rows at once.
constexpr double kUnalignedPenalty = 1.03;
// Reordering scatters the stores, which is worth it only for a saving that shows.
constexpr double kReorderedPenalty = 1.03;
// Rows considered as the next one of a group.
constexpr int kCandidates = 32;
// More rows than any layer has are left as they are, so that a tiny file cannot ask for much time.
constexpr int32_t kMaxReorderedRows = 1 << 16;

// Entries by which the ways are compared: of a layer with more, a share of the columns stands for all of them, so that
// comparing takes no longer the larger the layer is.
constexpr size_t kSampledEntries = 1 << 15;

size_t Index(int32_t i) { return static_cast<size_t>(i); }

// Rows in groups of `group` that share columns: a group begins with the first row left, in order of length and then of
// columns, and takes in turn the candidate that has most columns in common with the group so far.
std::vector<int32_t> SimilarOrder(const SparseRows& entries, int group) {
  std::vector<int32_t> sorted(Index(entries.rows));
  for (int32_t r = 0; r < entries.rows; ++r) sorted[Index(r)] = r;
  const auto begin = [&entries](int32_t r) { return entries.column.data() + entries.begin[Index(r)]; };
  const auto end = [&entries](int32_t r) { return entries.column.data() + entries.begin[Index(r) + 1]; };
  std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) {
    const std::ptrdiff_t length_a = end(a) - begin(a), length_b = end(b) - begin(b);
    if (length_a != length_b) return length_a > length_b;
    return std::lexicographical_compare(begin(a), end(a), begin(b), end(b));
  });

  // Rows left are a linked list through `next`, in sorted order; place `rows` is its head and its end.
  const int32_t head = entries.rows;
  std::vector<int32_t> next(Index(entries.rows) + 1);
  for (int32_t i = 0; i < entries.rows; ++i) next[Index(i)] = i + 1;
  next[Index(head)] = entries.rows == 0 ? head : 0;
  std::vector<int32_t> seen_by(Index(entries.columns), -1);  // the last group that has the column
  std::vector<int32_t> order;
  order.reserve(Index(entries.rows));
  while (next[Index(head)] != head) {
    const int32_t id = static_cast<int32_t>(order.size()) / group;
    int32_t before_best = head;
    if (order.size() % static_cast<size_t>(group) != 0) {
      int64_t most = -1;
      int32_t before = head;
      for (int c = 0; c < kCandidates && next[Index(before)] != head; ++c, before = next[Index(before)]) {
        const int32_t row = sorted[Index(next[Index(before)])];
        int64_t common = 0;
        for (const int32_t* column = begin(row); column != end(row); ++column) common += seen_by[Index(*column)] == id;
        if (common > most) {
          most = common;
          before_best = before;
        }
      }
    }
    const int32_t taken = next[Index(before_best)];
    next[Index(before_best)] = next[Index(taken)];
    const int32_t row = sorted[Index(taken)];
    order.push_back(row);
    for (const int32_t* column = begin(row); column != end(row); ++column) seen_by[Index(*column)] = id;
  }
  return order;
}

constexpr int kHeightCount = 3;
constexpr int32_t kHeights[kHeightCount] = {2, 4, 8};
struct Ways {
  uint32_t blocks[kHeightCount][2];  // by height, aligned or not
};

// Blocks of each height that cover all entries, the rows in `order`: the fewest there are for a column, its topmost
// entry left beginning the next block, or the groups of rows that have an entry. All ways in one go without a branch:
// an entry begins a block or not as good as at random.
Ways CountBlocks(const SparseRows& entries, const std::vector<int32_t>& order) {
  constexpr int kWays = 8;  // two of them to fill vectors
  struct Covered {
    int32_t until[kWays];  // rows below this one have their block
  };
  std::vector<Covered> covered(Index(entries.columns), Covered());
  int32_t begun[kWays] = {};
  for (int32_t r = 0; r < entries.rows; ++r) {
    int32_t end[kWays] = {};
    for (int k = 0; k < kHeightCount; ++k) {
      end[2 * k] = r + kHeights[k];
      end[2 * k + 1] = r / kHeights[k] * kHeights[k] + kHeights[k];
    }
    const int32_t row = order[Index(r)];
    for (uint32_t i = entries.begin[Index(row)]; i < entries.begin[Index(row) + 1]; ++i) {
      int32_t* until = covered[Index(entries.column[i])].until;
      for (int k = 0; k < kWays; ++k) {
        const int32_t begins = r >= until[k] ? -1 : 0;
        begun[k] -= begins;
        until[k] = (end[k] & begins) | (until[k] & ~begins);
      }
    }
  }
  Ways ways;
  for (int k = 0; k < 2 * kHeightCount; ++k) ways.blocks[k / 2][k % 2] = static_cast<uint32_t>(begun[k]);
  return ways;
}

// The entries of one column in `step`, picked by a hash of its number: neighbouring columns are often of one kernel
// position.
SparseRows SampleColumns(const SparseRows& entries, uint32_t step) {
  SparseRows sample;
  sample.rows = entries.rows;
  sample.columns = entries.columns;
  sample.begin.push_back(0);
  for (int32_t r = 0; r < entries.rows; ++r) {
    for (uint32_t i = entries.begin[Index(r)]; i < entries.begin[Index(r) + 1]; ++i) {
      const uint32_t hash = static_cast<uint32_t>(entries.column[i]) * 0x9E3779B1u;
      if (hash < UINT32_MAX / step) sample.column.push_back(entries.column[i]);
    }
    sample.begin.push_back(static_cast<uint32_t>(sample.column.size()));
  }
  return sample;
}

struct Plan {
  int32_t height = 1;
  bool aligned = true;
  const std::vector<int32_t>* order = nullptr;
  int64_t blocks = 0;
  double cost = 0;
};

void Build(const SparseRows& entries, const Plan& plan, LoweredMatrix* matrix) {
  const std::vector<int32_t>& order = *plan.order;
  // Column-major order of the entries, by a counting sort.
  std::vector<uint32_t> cursor(Index(entries.columns) + 1, 0);
  for (int32_t column : entries.column) ++cursor[Index(column) + 1];
  for (size_t c = 0; c < Index(entries.columns); ++c) cursor[c + 1] += cursor[c];
  std::vector<int32_t> entry_row(entries.column.size());
  std::vector<uint32_t> entry(entries.column.size());
  for (int32_t r = 0; r < entries.rows; ++r) {
    const int32_t row = order[Index(r)];
    for (uint32_t i = entries.begin[Index(row)]; i < entries.begin[Index(row) + 1]; ++i) {
      const uint32_t at = cursor[Index(entries.column[i])]++;
      entry_row[at] = r;
      entry[at] = i;
    }
  }
  VerticalBlocks blocks;
  blocks.block = plan.height;
  blocks.start_row.reserve(static_cast<size_t>(plan.blocks));
  blocks.column.reserve(static_cast<size_t>(plan.blocks));
  std::vector<float> values(static_cast<size_t>(plan.blocks) * Index(plan.height), 0.0f);
  for (size_t i = 0; i < entry.size(); ++i) {
    const int32_t column = entries.column[entry[i]], row = entry_row[i];
    if (blocks.column.empty() || blocks.column.back() != column || row >= blocks.start_row.back() + plan.height) {
      blocks.column.push_back(column);
      blocks.start_row.push_back(plan.aligned ? row / plan.height * plan.height : row);
    }
    const size_t block = blocks.column.size() - 1;
    values[block * Index(plan.height) + Index(row - blocks.start_row.back())] = entries.value[entry[i]];
  }
  LowerBlocks(entries.rows, entries.columns, std::move(blocks), values.data(), matrix);
  matrix->Keep(std::move(values));
}

}  // namespace

SparseRows SortEntries(int32_t rows, int32_t columns, const std::vector<int32_t>& entry_row,
                       const std::vector<int32_t>& entry_column, const float* values) {
  SparseRows sorted;
  sorted.rows = rows;
  sorted.columns = columns;
  sorted.begin.assign(Index(rows) + 1, 0);
  for (int32_t row : entry_row) ++sorted.begin[Index(row) + 1];
  for (size_t r = 0; r < Index(rows); ++r) sorted.begin[r + 1] += sorted.begin[r];
  std::vector<uint32_t> cursor(sorted.begin.begin(), sorted.begin.end() - 1), by_row(entry_row.size());
  for (size_t i = 0; i < entry_row.size(); ++i) by_row[cursor[Index(entry_row[i])]++] = static_cast<uint32_t>(i);
  sorted.column.resize(by_row.size());
  sorted.value.resize(by_row.size());
  size_t at = 0;
  ColumnSorter row(columns);
  for (size_t r = 0; r < Index(rows); ++r) {
    for (uint32_t i = sorted.begin[r]; i < sorted.begin[r + 1]; ++i) row.Add(entry_column[by_row[i]], by_row[i]);
    row.Drain([&](int32_t column, uint32_t entry) {
      sorted.column[at] = column;
      sorted.value[at++] = values[entry];
    });
  }
  return sorted;
}

void LowerSparseRows(SparseRows all_entries, const std::vector<int32_t>& stored_order, LoweredMatrix* matrix,
                     double block_overhead) {
  const size_t step = (all_entries.column.size() + kSampledEntries - 1) / kSampledEntries;
  const SparseRows sample = step < 2 ? SparseRows() : SampleColumns(all_entries, static_cast<uint32_t>(step));
  const SparseRows& entries = step < 2 ? all_entries : sample;
  std::vector<int32_t> own(Index(entries.rows));
  for (int32_t r = 0; r < entries.rows; ++r) own[Index(r)] = r;
  std::vector<int32_t> similar;
  if (entries.rows <= kMaxReorderedRows) similar = SimilarOrder(entries, 8);

  Plan best;
  best.order = &own;
  best.blocks = static_cast<int64_t>(entries.column.size());
  best.cost = static_cast<double>(best.blocks) * (1 + block_overhead);
  const std::vector<int32_t>* const orders[] = {&own, &stored_order, &similar};
  for (const std::vector<int32_t>* order : orders) {
    if (order->empty()) continue;
    const Ways ways = CountBlocks(entries, *order);
    for (int k = 0; k < kHeightCount; ++k) {
      for (bool aligned : {true, false}) {
        Plan plan;
        plan.height = kHeights[k];
        plan.aligned = aligned;
        plan.order = order;
        plan.blocks = ways.blocks[k][aligned];
        plan.cost = static_cast<double>(plan.blocks) * (plan.height + block_overhead) *
                    (aligned ? 1.0 : kUnalignedPenalty) * (order == &own ? 1.0 : kReorderedPenalty);
        if (plan.cost < best.cost) best = plan;
      }
    }
  }
  if (best.height == 1) {  // a block an entry: they are in order
    matrix->rows = all_entries.rows;
    matrix->columns = all_entries.columns;
    matrix->block = 1;
    matrix->aligned = true;
    matrix->block_row.reserve(all_entries.column.size());
    for (int32_t r = 0; r < all_entries.rows; ++r) {
      matrix->block_row.insert(matrix->block_row.end(), all_entries.begin[Index(r) + 1] - all_entries.begin[Index(r)],
                               r);
    }
    matrix->block_column = std::move(all_entries.column);
    matrix->values = std::move(all_entries.value);
    return;
  }
  if (step >= 2) {
    const int k = static_cast<int>(std::find(kHeights, kHeights + kHeightCount, best.height) - kHeights);
    best.blocks = CountBlocks(all_entries, *best.order).blocks[k][best.aligned];
  }
  Build(all_entries, best, matrix);
  if (best.order != &own) matrix->row_channel = *best.order;
}

}  // namespace block_sparse::format
