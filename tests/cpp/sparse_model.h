// Block-sparse matrices as a model holds them.
#ifndef TESTS_CPP_SPARSE_MODEL_H_
#define TESTS_CPP_SPARSE_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/cpp/format_testing.h"
#include "tests/cpp/kernel_testing.h"

namespace block_sparse {
namespace testing {

// Unaligned or aligned blocks of `block` rows as a model holds them, and the dense matrix they stand for.
struct SparseModel {
  std::vector<uint8_t> options;
  std::vector<float> values;
  std::vector<double> dense;
};

inline SparseModel RandomModel(int32_t rows, int32_t columns, int32_t block, bool aligned, double density,
                               const std::string& activation, bool keep_num_dims, Random* random) {
  SparseModel model;
  model.dense.assign(static_cast<size_t>(rows) * columns, 0.0);
  std::vector<uint8_t> positions;
  const int32_t groups = (rows + block - 1) / block;
  int64_t cursor = 0;
  for (int32_t c = 0; c < columns; c++) {
    for (int32_t r = 0; r < rows; r += aligned ? block : 1) {
      if ((!aligned && r + block > rows) || !random->Chance(density)) continue;
      const int64_t position = aligned ? int64_t{c} * groups + r / block : int64_t{c} * rows + r;
      AppendGap(static_cast<uint64_t>(position - cursor), &positions);
      cursor = position + (aligned ? 1 : block);
      for (int32_t k = 0; k < block; k++) {
        const float value = r + k < rows ? random->Float() : 0.0f;
        model.values.push_back(value);
        if (r + k < rows) model.dense[static_cast<size_t>(r + k) * columns + c] = value;
      }
      if (!aligned) r += block - 1;
    }
  }
  model.options = FullyConnectedOptions(aligned ? "aligned_block" : "unaligned_block", rows, columns)
                      .String("activation", activation)
                      .Bool("keep_num_dims", keep_num_dims)
                      .Int("block", block)
                      .Blob("positions", positions)
                      .Finish();
  return model;
}

}  // namespace testing
}  // namespace block_sparse

#endif  // TESTS_CPP_SPARSE_MODEL_H_
