// Single weights times a tile of several rows of an image: what spmm.h does, for blocks of one row.
//
// A block of one row has one multiply-add for each vector of pixels, so that loading these is what spmm.h's kernels
// wait for, the more where a vector lies in two cache lines. Here they are loaded less often, and rather as whole
// lines:
//
// - Where a row of the matrix has weights for two pixels of which one is below the other, as those of a kernel of 3 x 3
//   have, a tile of R rows of the image needs R + 1 rows of pixels for both, not 2 R. (PatDNN, Niu et al., ASPLOS 2020,
//   calls this the elimination of redundant loads.)
// - A weight for the pixels just before or after those of the tile has its vectors put together from the tile's.
//
// So the blocks of each row come sorted by kind.
#ifndef TFLITE_DELEGATE_KERNELS_SPMM_ROWS_H_
#define TFLITE_DELEGATE_KERNELS_SPMM_ROWS_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

enum SpmmKind {
  kSpmmPairs,    // two weights, for the pixels at the offset and for those one row of the image below
  kSpmmSingles,  // one weight
  kSpmmAfter,    // one weight, for the pixels right of those at the offset; none unless SpmmRowsKernels::shifts
  kSpmmBefore,   // the same, left of them
};
constexpr int kSpmmKinds = 4;

// One panel of rows, packed (pack.h), and one tile of the image.
struct SpmmRowsArgs {
  const float* weights;    // two a pair, one of the other kinds
  const int32_t* offsets;  // one a pair or other block, in bytes from x
  const uint32_t* counts;  // kSpmmKinds a row
  const float* bias;       // one a row
  const int32_t* row_out;  // one a row: where it goes, in floats from y
  int32_t rows;            // of the matrix
  int32_t image_row;       // floats from one of the tile's rows to the next, in x, y and residual
  int32_t last_lanes;      // pixels of the last vector of each of the tile's rows that are the tile's
  const float* x;          // first pixel of the tile
  float* y;                // first pixel of the tile
  const float* residual;   // laid out as y and added before the clamp, or null
  float low, high;
};

using SpmmRowsKernel = void (*)(const SpmmRowsArgs&);

// Tiles have any number of rows up to kSpmmFewRows, or kSpmmManyRows.
constexpr int kSpmmFewRows = 7;
constexpr int kSpmmManyRows = 14;
constexpr int kSpmmMaxColumns = 8;

struct SpmmRowsKernels {
  int max_columns;                    // of a tile, in vectors
  int max_rows[kSpmmMaxColumns + 1];  // of a tile of so many columns
  bool shifts;
  // [rows][columns], null where there is none. `whole` is for tiles whose columns are all that image_row spans: they
  // may write to the end of their last vectors.
  SpmmRowsKernel part[kSpmmManyRows + 1][kSpmmMaxColumns + 1];
  SpmmRowsKernel whole[kSpmmManyRows + 1][kSpmmMaxColumns + 1];
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SPMM_ROWS_H_
