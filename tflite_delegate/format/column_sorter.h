// Sorts what a row of a matrix has by column, in time linear in that: a bit for each column, read in words.
#ifndef TFLITE_DELEGATE_FORMAT_COLUMN_SORTER_H_
#define TFLITE_DELEGATE_FORMAT_COLUMN_SORTER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace block_sparse::format {

class ColumnSorter {
 public:
  explicit ColumnSorter(int32_t columns)
      : taken_(static_cast<size_t>(columns) / kBits + 1, 0), item_(static_cast<size_t>(columns)) {}

  // At most one item a column.
  void Add(int32_t column, uint32_t item) {
    const size_t at = static_cast<size_t>(column), word = at / kBits;
    taken_[word] |= uint64_t{1} << at % kBits;
    item_[at] = item;
    first_ = std::min(first_, word);
    last_ = std::max(last_, word + 1);
  }

  // Calls take(column, item) for each, in the columns' order, and is empty then.
  template <class Take>
  void Drain(const Take& take) {
    for (size_t word = first_; word < last_; ++word) {
      for (uint64_t bits = taken_[word]; bits != 0; bits &= bits - 1) {
        const size_t column = word * kBits + static_cast<size_t>(__builtin_ctzll(bits));
        take(static_cast<int32_t>(column), item_[column]);
      }
      taken_[word] = 0;
    }
    first_ = SIZE_MAX;
    last_ = 0;
  }

 private:
  static constexpr size_t kBits = 64;
  std::vector<uint64_t> taken_;
  std::vector<uint32_t> item_;
  size_t first_ = SIZE_MAX, last_ = 0;  // words with a bit set lie in [first_, last_)
};

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_COLUMN_SORTER_H_
