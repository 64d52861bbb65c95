// Block-sparse matrix times a tile of planar pixels: y[row, pixel] = clamp(bias[row] + sum W[row, column] * x[column,
// pixel]).
#ifndef TFLITE_DELEGATE_KERNELS_SPMM_H_
#define TFLITE_DELEGATE_KERNELS_SPMM_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

// One panel of rows, packed (pack.h), and one tile of pixels. A *step* is one row in the unaligned kernel and one group
// of B rows in the aligned one; the number of rows is a multiple of B either way.
struct SpmmArgs {
  const float* weights;    // B a block
  const int32_t* offsets;  // one a block: where the block's pixels are, in bytes from x; then kSpmmAhead valid ones
  const uint32_t* counts;  // blocks a step
  const float* bias;       // one a row, then B more that are read but not used
  const int32_t* row_out;  // one a row: where it goes, in floats from y; negative: nowhere
  int32_t rows;
  const float* x;         // first pixel of the tile
  float* y;               // first pixel of the tile
  const float* residual;  // laid out as y and added before the clamp, or null
  float low, high;
};

using SpmmKernel = void (*)(const SpmmArgs&);

constexpr int kSpmmBlocks = 4;  // blocks of 1, 2, 4, 8 rows, indexed by log2
constexpr int kSpmmMaxTile = 14;
constexpr int kSpmmAhead = 3;  // blocks
// How far ahead of their use weights are fetched, in floats, where that pays. The processor's own prefetching stops at
// the end of a page, which is 256 blocks of 4. AVX-512 on Zen 5: ResNet-50 6 %, dense layers of 7x7x1024 24 %, nothing
// where weights stay in the second-level cache; 128 to 2048 were tried. AVX2 there: nothing.
constexpr int kWeightsAhead = 1024;

// Where a kernel's pixels come from: near are those that stay in the first-level cache while all rows go by. Others are
// fetched into it kSpmmAhead blocks before they are needed, on CPUs where that pays.
enum SpmmSource { kSpmmNear, kSpmmFar };
constexpr int kSpmmSources = 2;

// A tile is so many vectors of pixels, or one pixel more, as 7 x 7 pixels and many other odd squares are. A vector for
// it would cost as much as any other.
enum SpmmPixels { kSpmmVectors, kSpmmVectorsAndOne };
constexpr int kSpmmPixels = 2;

// By log2(block) and vectors, null where there is none.
struct SpmmTiles {
  SpmmKernel kernels[kSpmmBlocks][kSpmmMaxTile + 1];
};

struct SpmmKernels {
  int max_tile[kSpmmPixels][kSpmmBlocks];               // widest tile, in vectors; 0 where there is none
  const SpmmTiles* aligned[kSpmmPixels][kSpmmSources];  // null where all tiles are
  const SpmmTiles* unaligned[kSpmmPixels][kSpmmSources];
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_SPMM_H_
