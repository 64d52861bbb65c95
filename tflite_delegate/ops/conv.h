// Convolution with dense or block-sparse weights: one matrix product over planar pixels.
//
// Wherever the image lies so that every kernel position is a shift of one run of pixels, it is read in place: a 1 x 1
// kernel always, a larger one if its output is as large as its input (the planner then keeps zeros around the image).
// Otherwise the image is first copied to scratch, padded, and split by stride into s_h * s_w smaller planes; after that
// a kernel position is a shift again.
//
// Of a small image, what lies between the rows would be a good part: 7 x 7 pixels are three vectors of AVX-512 and one
// pixel, and with a zero between the rows four vectors. Larger kernels then gather what each of their columns meets,
// without anything between the rows.
//
// Single weights of larger kernels are best multiplied by tiles of several rows of the image (spmm_rows.h), whose rows
// then are whole cache lines if that pays for all ops that share the planes.
//
// What a tile of pixels reads of all input channels is often more than the first-level cache holds. Then the product is
// done in slices of channels, each of which adds to the sums that the one before it left in the output.
#ifndef TFLITE_DELEGATE_OPS_CONV_H_
#define TFLITE_DELEGATE_OPS_CONV_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tflite_delegate/format/options.h"
#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/kernels/pack.h"
#include "tflite_delegate/ops/weights.h"

namespace block_sparse {
namespace ops {

// Size of the output along one axis and the padding before the first pixel, as TFLite has them; false if the output
// would be empty.
bool ConvExtent(int32_t input, int32_t kernel, int32_t stride, int32_t dilation, bool same, int32_t* output,
                int32_t* pad_before, int32_t* pad_after);

class Conv : public graph::Op {
 public:
  // inputs[0]: the image, in either layout. `border` holds the padding on each side.
  Conv(int input, int output, const ConvOptions& options, const graph::Border& border, Weights weights, float low,
       float high);

  const char* name() const override { return weights_.dense != nullptr ? "conv" : "sparse_conv"; }
  void Constrain(graph::Planner* planner) override;
  int InPlaceInput() const override { return inputs.size() > 1 ? 1 : -1; }
  int Tilings() const override;
  std::string TilingKey(const graph::Graph& graph) const override;
  void SetTiling(int tiling, bool again) override {
    tiling_ = tiling;
    again_ = again;
  }
  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override;
  size_t ScratchFloats() const override { return scratch_floats_; }
  void Run(const graph::RunContext& context) const override { RunRows(context, 0, output_.height()); }
  bool InputRows(size_t i, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const override;
  void RunRows(const graph::RunContext& context, int32_t begin, int32_t end) const override;
  void SetMostRows(int32_t rows) override { most_rows_ = rows; }
  // It writes whole cache lines.
  bool CutsClean(int32_t row, const graph::Planes& planes) const override {
    return static_cast<int64_t>(row) * planes.row % kernels::kMaxLanes == 0;
  }
  size_t WeightBytes() const override;
  bool FuseResidual(int residual, float low, float high) override;
  bool FuseClamp(float low, float high) override;
  bool FuseZeroPad(const graph::Border& border) override;
  graph::Pixels Reads(int value) const override;
  void ReadAll() override { options_.stride_height = options_.stride_width = 1; }
  bool MakeOnly(const graph::Pixels& pixels) override;

 private:
  // The kernels find pixels by 32-bit offsets in bytes.
  static constexpr int64_t kMaxFloats = INT32_MAX / static_cast<int64_t>(sizeof(float));

  // Every stride-th pixel of every stride-th row: row r is the image's r * stride_height + top. The columns [first,
  // last) are its pixels from `pixel` on, which is less than the stride; the others lie outside of it.
  struct Phase {
    int32_t top, left, first, last, pixel;
  };

  // Pixels as a tile, if there is one that is so wide.
  struct OneTile {
    int64_t work;  // multiply-adds of vectors that a block takes
    bool fits;
  };

  // A run of pixels, cut into tiles.
  struct Tiles {
    int32_t vectors, count;
    kernels::SpmmPixels last;  // the others are vectors alone
  };

  Phase PhaseAt(int32_t y, int32_t x) const;
  bool SharesPixels(int num_threads) const;
  Tiles TilesOfRun(int32_t pixels, int shares) const;
  int32_t ScratchStart(int32_t first) const;
  bool LikesImageRows() const;
  void WeighWholeLines(graph::Planner* planner) const;
  // Rows that all positions of the kernel, one above the other, meet, without those that a stride leaves out.
  int32_t RowsMet(int32_t output_rows) const {
    return output_rows + (options_.kernel_height - 1) * options_.dilation_height / options_.stride_height;
  }
  bool GatheringPays(const graph::Planner& planner) const;
  int64_t MostParts() const;
  bool PrepareGathering(std::vector<int32_t>* position);
  int64_t GatheredFloats() const;  // of a channel
  int64_t SliceFloats() const;
  const float* Gather(const float* image, int slice, float* scratch) const;
  static OneTile AsOneTile(const kernels::KernelTable& kernels, int log2_block, int64_t pixels);
  int Log2Block(const kernels::KernelTable& kernels, int64_t pixels) const;
  bool ImageRowsPay(const int32_t* column_offset) const;
  int32_t TileVectors() const;
  int32_t TilesOf(int32_t image_rows) const;
  int64_t RowTileBytes() const;
  int64_t TileBytes(int32_t pixels) const;
  int64_t Planes() const;
  int32_t SliceBytes(int32_t plane, int64_t tile_bytes, int32_t weights) const;
  template <class Args>
  void Place(const float* x, float* y, const float* residual, int slice, Args* args) const;
  void Split(const float* image, float* scratch, int32_t first, int32_t end, graph::ThreadPool* pool) const;
  void PickPlane(const float* plane, int32_t begin, int32_t end, float* scratch) const;
  void SplitRow(const float* image, int32_t r, int32_t channels, float* scratch) const;

  ConvOptions options_;
  graph::Border border_;
  Weights weights_;
  float low_, high_;
  graph::Value input_, output_;
  int64_t residual_batch_ = 0;  // as planes.batch: a part of a concatenation has its own
  int32_t input_height_ = 0, most_rows_ = 0;
  int tiling_ = 0;
  bool again_ = false;  // Prepare will be called again, and needs the weights
  // How it reads the image: where that is, from what Split made, or from what Gather did.
  enum class Way { kInPlace, kSplit, kGathered };
  Way way_ = Way::kSplit;

  kernels::PackedMatrix packed_;
  // Tiles are of rows of the image, or else of runs of pixels: by what is beside their vectors, and by how many these
  // are.
  bool by_rows_ = false;
  const kernels::SpmmKernel* kernels_[kernels::kSpmmPixels] = {};
  const kernels::SpmmRowsKernels* rows_ = nullptr;
  kernels::StridedKernels strided_ = {};
  bool by_pixels_ = false;  // threads share the pixels, not the panels
  int lanes_ = 0;
  int32_t widest_ = 0, widest_and_one_ = 0;     // tile, in vectors
  int32_t row_vectors_ = 0, tiles_across_ = 0;  // of a row of the image
  bool whole_rows_ = false;                     // tiles are as wide as rows are apart
  size_t scratch_floats_ = 0;
  // Scratch: [phase used][input channel][rows of one run][row], see Split.
  std::vector<Phase> phases_;
  int32_t phase_height_ = 0, scratch_plane_ = 0, columns_ = 0;
  int32_t common_columns_ = 0;  // that all phases have
  // Or, gathered: [task][input channel of a slice][part][part_floats_]. Of each part, how far from the image's first
  // pixel it begins, and a mask of what lies within the image.
  std::vector<int32_t> gathered_from_, gathered_mask_;
  int32_t gathered_parts_ = 0, part_floats_ = 0, slice_channels_ = 0;
};

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_CONV_H_
