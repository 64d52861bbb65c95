// Turns a lowered or dense matrix into the streams that the kernels of spmm.h read.
#ifndef TFLITE_DELEGATE_KERNELS_PACK_H_
#define TFLITE_DELEGATE_KERNELS_PACK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/kernels/spmm.h"
#include "tflite_delegate/kernels/spmm_rows.h"
#include "tflite_delegate/kernels/uninitialized.h"

namespace block_sparse {
namespace kernels {

// A matrix cut into panels of rows that can be computed independently of each other, and these into slices of columns
// that are computed one after the other: all but the first add to what the one before it left. A row's sum runs over
// its blocks in the order of their pixels in memory however the matrix is cut into panels, so that cut never shows in
// the results.
struct PackedMatrix {
  struct Panel {
    int32_t rows;                          // multiple of the block
    size_t weights, offsets, counts, row;  // where the panel begins in the arrays below
    uint64_t blocks;
  };
  int log2_block = 0;
  bool aligned = false;
  int slices = 1;
  std::vector<Panel> panels;  // the slices of the first, those of the second, ...
  UninitializedVector<float> weights;
  UninitializedVector<int32_t> offsets;  // for SpmmArgs kSpmmAhead more at the end that are of no block
  std::vector<uint32_t> counts;          // one a step; from PackImageRows kSpmmKinds a row
  std::vector<float> bias;
  std::vector<int32_t> row_out;

  // Everything of a kernel's arguments that belongs to the slice of a panel: SpmmArgs, or SpmmRowsArgs of what
  // PackImageRows made.
  template <class KernelArgs = SpmmArgs>
  KernelArgs Args(size_t index) const {
    const Panel& panel = panels[index];
    KernelArgs args = {};
    args.weights = weights.data() + panel.weights;
    args.offsets = offsets.data() + panel.offsets;
    args.counts = counts.data() + panel.counts;
    args.bias = bias.data() + panel.row;
    args.row_out = row_out.data() + panel.row;
    args.rows = panel.rows;
    return args;
  }
};

// column_offset[c]: where the pixels of column c are, in bytes from x. channel_stride: floats from one output channel
// to the next in y. bias may be null. The matrix is cut into at most `panels` panels of about equal work, and into
// slices of the columns whose offsets lie within `slice_bytes` of each other, if that is not 0.
PackedMatrix PackLowered(const LoweredMatrix& matrix, const float* bias, const int32_t* column_offset,
                         int32_t channel_stride, int panels, int32_t slice_bytes);

// The same for the kernels of spmm_rows.h. The matrix has blocks of one row.
struct ImageRows {
  int32_t bytes;  // from one row of the image to the next
  // Tiles begin at cache lines, so that pixels just before or after one are better not loaded from where they lie.
  bool shifted;
};
PackedMatrix PackImageRows(const LoweredMatrix& matrix, const float* bias, const int32_t* column_offset,
                           int32_t channel_stride, int panels, int32_t slice_bytes, const ImageRows& image);

// The share of blocks of one row that stand in pairs (spmm_rows.h), of those in every row_step-th row of the matrix.
// Columns below others come after them.
double ShareInPairs(const LoweredMatrix& matrix, const int32_t* column_offset, int32_t image_row_bytes,
                    int32_t row_step);

// As PackLowered, for dense row-major weights, in aligned blocks of `block` rows.
PackedMatrix PackDense(const float* weights, int32_t rows, int32_t columns, int block, const float* bias,
                       const int32_t* column_offset, int32_t channel_stride, int panels, int32_t slice_bytes);

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_PACK_H_
