// Turns a lowered matrix into the streams that the block-sparse kernels of gemv.h read.
#ifndef TFLITE_DELEGATE_KERNELS_GEMV_PACK_H_
#define TFLITE_DELEGATE_KERNELS_GEMV_PACK_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/kernels/gemv.h"

namespace block_sparse {
namespace kernels {

// A lowered matrix cut into panels of rows that can be computed independently of each other. The blocks that reach into
// a panel from the rows above it are in both panels. A row's sum runs over its blocks in the same order however the
// matrix is cut, so the cut never shows in the results.
class SparseGemvMatrix {
 public:
  // bias may be null; it is indexed by lowered row. At most `panels` panels of about equal work. Call once; false if
  // there is not enough memory.
  bool Pack(const LoweredMatrix& matrix, const float* bias, int panels);

  int panels() const { return static_cast<int>(panels_.size()); }
  int32_t first_row(int panel) const { return panels_[panel].first; }
  // y[n, r] for the panel's rows r; y points to row 0.
  void Run(const GemvKernels& kernels, int panel, const float* x, int64_t x_stride, float* y, int64_t y_stride,
           int32_t batch, float low, float high) const;

 private:
  struct Panel {
    int32_t first, begin, last;       // rows first .. last - 1, computed from `begin` on
    uint32_t first_block, end_block;  // of those by row
    size_t block, group;              // where the panel begins in the streams
  };
  struct Free {
    void operator()(void* memory) const { free(memory); }
  };
  void AddPanel(const std::vector<uint32_t>& row_begin, int32_t first, int32_t last);

  int32_t block_ = 1;
  int log2_block_ = 0;
  bool aligned_ = true;
  bool wide_ = false;  // column indices of 32 bits
  std::vector<Panel> panels_;
  std::unique_ptr<void, Free> memory_;  // all the streams
  float* weights_ = nullptr;
  void* columns_ = nullptr;
  uint32_t* counts_ = nullptr;
  float* bias_ = nullptr;
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_GEMV_PACK_H_
