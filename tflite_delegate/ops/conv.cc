#include "tflite_delegate/ops/conv.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/image.h"

namespace block_sparse {
namespace ops {

constexpr float kInfinity = __builtin_huge_valf();

bool ConvExtent(int32_t input, int32_t kernel, int32_t stride, int32_t dilation, bool same, int32_t* output,
                int32_t* pad_before, int32_t* pad_after) {
  const int64_t reach = static_cast<int64_t>(kernel - 1) * dilation + 1;
  const int64_t size = same ? (static_cast<int64_t>(input) + stride - 1) / stride
                            : (static_cast<int64_t>(input) - reach + stride) / stride;
  if (size <= 0 || input <= 0) return false;
  const int64_t pad = std::max<int64_t>(0, (size - 1) * stride + reach - input);
  *output = static_cast<int32_t>(size);
  *pad_before = static_cast<int32_t>(pad / 2);
  *pad_after = static_cast<int32_t>(pad - pad / 2);
  return pad <= (1 << 24);
}

Conv::Conv(int input, int output, const ConvOptions& options, const graph::Border& border, Weights weights, float low,
           float high)
    : Op({input}, output), options_(options), border_(border), weights_(std::move(weights)), low_(low), high_(high) {}

bool Conv::FuseResidual(int residual, float low, float high) {
  // The sum is clamped once, after the addition.
  if (inputs.size() > 1 || low_ != -kInfinity || high_ != kInfinity) return false;
  inputs.push_back(residual);
  low_ = low;
  high_ = high;
  return true;
}

bool Conv::FuseClamp(float low, float high) {
  // Bounds that lie outside the new ones are brought to the nearer of them, as a value there would be.
  low_ = std::min(high, std::max(low, low_));
  high_ = std::min(high, std::max(low, high_));
  return true;
}

bool Conv::FuseZeroPad(const graph::Border& border) {
  border_.top += border.top;
  border_.left += border.left;
  border_.bottom += border.bottom;
  border_.right += border.right;
  return true;
}

graph::Pixels Conv::Reads(int value) const {
  const bool one = options_.kernel_height * options_.kernel_width == 1 && !border_.any();
  if (!one || value != inputs[0] || std::count(inputs.begin(), inputs.end(), value) > 1) return {};
  return {options_.stride_height, options_.stride_width};
}

bool Conv::MakeOnly(const graph::Pixels& pixels) {
  // As Split has them, of what was read in place.
  constexpr int32_t kMaxStride = 8;
  if (options_.stride_height * pixels.down > kMaxStride || options_.stride_width * pixels.across > kMaxStride) {
    return false;
  }
  options_.stride_height *= pixels.down;
  options_.stride_width *= pixels.across;
  return true;
}

void Conv::Constrain(graph::Planner* planner) {
  const graph::Value& in = planner->value(inputs[0]);
  const graph::Value& out = planner->value(output);
  input_height_ = in.dims[1];
  most_rows_ = out.height();
  const bool in_place = in.layout == graph::Layout::kPlanar && options_.stride_height == 1 &&
                        options_.stride_width == 1 && in.height() == out.height() && in.width() == out.width();
  way_ = GatheringPays(*planner) ? Way::kGathered : in_place ? Way::kInPlace : Way::kSplit;
  if (in_place) planner->SamePlanes(inputs[0], output);
  if (way_ == Way::kGathered) {
    // From the first position's first pixel to a vector, or two under a stride, past the last one's last.
    const int32_t beyond = border_.right + options_.stride_width * (out.width() + kernels::kMaxLanes);
    planner->Room(inputs[0], border_.top + 1 + border_.left / in.width(), border_.bottom + 1 + beyond / in.width());
  } else if (in_place) {
    if (border_.any()) planner->ZeroBorder(inputs[0], border_);
  } else {
    planner->MinRow(output,
                    out.width() + (options_.kernel_width - 1) * options_.dilation_width / options_.stride_width);
  }
  if (inputs.size() > 1) planner->SamePlanes(inputs[1], output);
  WeighWholeLines(planner);
}

// Whether tiles of rows of the image could be the better ones.
bool Conv::LikesImageRows() const {
  return weights_.dense == nullptr && weights_.sparse.block == 1 && options_.kernel_height * options_.kernel_width > 1;
}

// Measured on VGG-16 with patterns: with rows of whole lines its layers were faster by a quarter or more. A row that is
// pixels to less than four fifths would use that up. Other tiles go through what is between the rows.
void Conv::WeighWholeLines(graph::Planner* planner) const {
  const graph::Value& out = planner->value(output);
  const int64_t width = out.width(), tight = width + std::max(border_.left, border_.right);
  const double blocks = static_cast<double>(weights_.sparse.weights());
  const double weights = weights_.dense != nullptr ? static_cast<double>(weights_.rows) * weights_.columns : blocks;
  const bool gains = LikesImageRows() && WholeLines(width) * 4 <= width * 5;
  const double pixels = gains ? width / 4.0 : static_cast<double>(tight - WholeLines(tight));
  planner->WeighWholeLines(output, weights * out.height() * pixels);
}

namespace {

// How the product is cut. The first is what was the fastest of these on the CPUs at hand for nearly all layers.
struct Tiling {
  int32_t narrower;     // vectors that the widest tile is narrower than the registers allow
  int64_t cache_bytes;  // that a slice's pixels may take; 0: no slices
};
constexpr Tiling kTilings[] = {{0, 24 << 10}, {0, 0}, {0, 12 << 10}, {0, 48 << 10}, {1, 24 << 10}, {2, 24 << 10}};

}  // namespace

int Conv::Tilings() const { return static_cast<int>(sizeof(kTilings) / sizeof(kTilings[0])); }

std::string Conv::TilingKey(const graph::Graph& graph) const {
  const graph::Dims &in = graph.value(inputs[0]).dims, &out = graph.value(output).dims;
  std::string kind = name();
  const auto add = [&](char mark, std::initializer_list<int64_t> numbers) {
    kind += ' ';
    for (int64_t number : numbers) {
      if (kind.back() != ' ') kind += 'x';
      kind += std::to_string(number);
    }
    kind += mark;
  };
  add('i', {in[0], in[1], in[2], in[3]});
  add('o', {out[1], out[2], out[3]});
  add('k', {options_.kernel_height, options_.kernel_width, options_.stride_height, options_.stride_width,
            options_.dilation_height, options_.dilation_width});
  if (weights_.dense == nullptr) {
    // Zeros by tenths: another training of the same network is the same kind.
    const int64_t all = static_cast<int64_t>(weights_.rows) * weights_.columns;
    add('b', {weights_.sparse.block, weights_.sparse.aligned});
    add('d', {(10 * static_cast<int64_t>(weights_.sparse.weights()) + all / 2) / all});
  }
  return kind;
}

bool Conv::Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) {
  input_ = graph.value(inputs[0]);
  output_ = graph.value(output);
  if (inputs.size() > 1) residual_batch_ = graph.value(inputs[1]).planes.batch;
  const ConvOptions& o = options_;
  const int32_t channels = input_.dims[3];
  const int32_t row = output_.planes.row;
  lanes_ = kernels.lanes;

  // Where each kernel position's pixels lie, from the first output pixel's place.
  std::vector<int32_t> position(static_cast<size_t>(o.kernel_height) * o.kernel_width);
  int32_t plane = input_.planes.plane;
  if (way_ == Way::kGathered) {
    if (!PrepareGathering(&position)) return false;
    plane = static_cast<int32_t>(GatheredFloats());
  } else if (way_ == Way::kInPlace) {
    for (int32_t ky = 0; ky < o.kernel_height; ky++) {
      for (int32_t kx = 0; kx < o.kernel_width; kx++) {
        position[ky * o.kernel_width + kx] =
            (ky * o.dilation_height - border_.top) * row + kx * o.dilation_width - border_.left;
      }
    }
  } else {
    phases_.clear();
    columns_ = output_.width() + (o.kernel_width - 1) * o.dilation_width / o.stride_width;
    phase_height_ = RowsMet(output_.height());
    // Of what one run needs: it begins up to a cache line before its first row, and where it is not the last, tiles may
    // read as far past its last row as a kernel is wide.
    const int32_t before = (kernels::kMaxLanes + row - 2) / row;
    const int64_t rows =
        std::min<int64_t>(phase_height_, int64_t{most_rows_} + before + phase_height_ - output_.height() + 1);
    const int64_t pixels = rows * row + 2 * kernels::kMaxLanes;
    if (pixels > INT32_MAX / 2) return false;  // what follows stays within 32 bits
    plane = static_cast<int32_t>((pixels / kernels::kMaxLanes + 1) * kernels::kMaxLanes);
    if (plane / kernels::kMaxLanes % 2 == 0) plane += kernels::kMaxLanes;  // see Planner::SetPlanes
    scratch_plane_ = plane;
    for (int32_t ky = 0; ky < o.kernel_height; ky++) {
      for (int32_t kx = 0; kx < o.kernel_width; kx++) {
        const int32_t y = ky * o.dilation_height, x = kx * o.dilation_width;
        const Phase phase = PhaseAt(y % o.stride_height, x % o.stride_width);
        const size_t index =
            std::find_if(phases_.begin(), phases_.end(),
                         [&](const Phase& known) { return known.top == phase.top && known.left == phase.left; }) -
            phases_.begin();
        if (index == phases_.size()) phases_.push_back(phase);
        const int64_t at =
            static_cast<int64_t>(index) * channels * plane + y / o.stride_height * row + x / o.stride_width;
        if (at > kMaxFloats) return false;
        position[ky * o.kernel_width + kx] = static_cast<int32_t>(at);
      }
    }
    common_columns_ = input_.dims[2] / o.stride_width;
    for (const Phase& phase : phases_) common_columns_ = std::min(common_columns_, phase.last - phase.first);
    const int64_t floats = static_cast<int64_t>(phases_.size()) * channels * plane;
    if (floats > kMaxFloats) return false;
    scratch_floats_ = static_cast<size_t>(floats) + kernels::kMaxLanes;
  }
  std::vector<int32_t> column_offset;
  column_offset.reserve(position.size() * channels);
  for (int32_t p : position) {
    for (int32_t c = 0; c < channels; c++) {
      column_offset.push_back((c * plane + p) * static_cast<int32_t>(sizeof(float)));
    }
  }

  const int32_t vectors = (output_.run() + lanes_ - 1) / lanes_;
  const int log2_block = Log2Block(kernels, output_.run());
  rows_ = &kernels.spmm_rows;
  row_vectors_ = (output_.width() + lanes_ - 1) / lanes_;
  const int32_t across = std::max(1, rows_->max_columns - kTilings[tiling_].narrower);
  tiles_across_ = (row_vectors_ + across - 1) / across;
  by_rows_ = LikesImageRows() && ImageRowsPay(column_offset.data());
  whole_rows_ = tiles_across_ == 1 && row_vectors_ * lanes_ == row;
  widest_ = std::max(1, kernels.spmm.max_tile[kernels::kSpmmVectors][log2_block] - kTilings[tiling_].narrower);
  widest_and_one_ = std::min(widest_, kernels.spmm.max_tile[kernels::kSpmmVectorsAndOne][log2_block]);
  by_pixels_ = num_threads > 1 && SharesPixels(num_threads);
  const int32_t tile_count = by_rows_ ? TilesOf(output_.height()) * tiles_across_
                                      : TilesOfRun(output_.run(), by_pixels_ ? num_threads : 1).count;
  // Enough pieces of work for the threads to end together, and panels whose weights stay in half of a second-level
  // cache of a megabyte while the tiles go by: 7 % of dense 3x3 layers of 14x14x512.
  constexpr size_t kPanelBytes = 512 << 10;
  // Where each panel gathers for itself, no more than threads.
  const int pieces = num_threads == 1 || way_ == Way::kGathered ? num_threads : 6 * num_threads;
  const int by_cache = tile_count > 1 ? static_cast<int>(WeightBytes() / kPanelBytes) : 1;
  const int panels = std::max(1, std::min(std::max(pieces / tile_count, by_cache), weights_.rows / 32));

  // A slice has so many blocks a row that they make up for reading and writing the sums once more.
  constexpr int32_t kBlocksPerRow = 16, kSinglesPerRow = 32;
  const int64_t tile_bytes = by_rows_ ? RowTileBytes() : TileBytes(std::min(vectors, widest_) * lanes_);
  const int32_t slice_bytes = SliceBytes(plane, tile_bytes, by_rows_ ? kSinglesPerRow : kBlocksPerRow << log2_block);
  strided_ = kernels.strided;
  if (by_rows_) {
    const kernels::ImageRows image = {row * static_cast<int32_t>(sizeof(float)),
                                      rows_->shifts && row % kernels::kMaxLanes == 0};
    packed_ = kernels::PackImageRows(weights_.sparse, weights_.bias, column_offset.data(), output_.planes.plane, panels,
                                     slice_bytes, image);
    if (!again_) weights_.sparse = LoweredMatrix();
    return true;
  }
  if (weights_.dense != nullptr) {
    packed_ =
        kernels::PackDense(weights_.dense, weights_.rows, static_cast<int32_t>(column_offset.size()), 1 << log2_block,
                           weights_.bias, column_offset.data(), output_.planes.plane, panels, slice_bytes);
  } else {
    packed_ = kernels::PackLowered(weights_.sparse, weights_.bias, column_offset.data(), output_.planes.plane, panels,
                                   slice_bytes);
    if (!again_) weights_.sparse = LoweredMatrix();
  }
  if (way_ == Way::kGathered) {
    slice_channels_ = slice_bytes == 0 ? channels : slice_bytes / (plane * static_cast<int32_t>(sizeof(float)));
    scratch_floats_ = packed_.panels.size() / packed_.slices * tile_count * SliceFloats();
  }
  // Somewhat more than the first-level cache holds: what is there anyway is fetched in vain.
  constexpr int64_t kNearBytes = 40 << 10;
  const int source = tile_bytes / packed_.slices > kNearBytes ? kernels::kSpmmFar : kernels::kSpmmNear;
  for (int pixels = 0; pixels < kernels::kSpmmPixels; pixels++) {
    const kernels::SpmmTiles* tiles = (packed_.aligned ? kernels.spmm.aligned : kernels.spmm.unaligned)[pixels][source];
    kernels_[pixels] = tiles == nullptr ? nullptr : tiles->kernels[packed_.log2_block];
  }
  return true;
}

// Whether each thread takes a range of pixels, and reads all weights, rather than a range of channels, and reads all
// pixels.
bool Conv::SharesPixels(int num_threads) const {
  if (SharesRows(output_.run(), num_threads)) return true;
  // Of a smaller image a share has a few lines more than its part, so it pays where weights are few: of DenseNet-121's
  // layers of 14x14, 3 to 4 % of the network. MobileNetV1's at 80 % zeros lose 1 %.
  constexpr int32_t kLines = 5;
  constexpr int64_t kPixelBytes = 2;
  const int64_t pixel_bytes = Planes() * output_.run() * static_cast<int64_t>(sizeof(float));
  return output_.run() / kernels::kMaxLanes >= kLines * num_threads &&
         pixel_bytes >= kPixelBytes * static_cast<int64_t>(WeightBytes());
}

// Widths as equal as may be, and for each of the shares as many tiles.
Conv::Tiles Conv::TilesOfRun(int32_t pixels, int shares) const {
  const auto count = [&](int32_t vectors) {
    const int32_t tiles = (vectors + widest_ - 1) / widest_;
    return std::min(vectors, (tiles + shares - 1) / shares * shares);
  };
  // One more pixel comes along with the last tile, unless a vector more only makes the shares equal.
  const int32_t whole = pixels / lanes_;
  const bool and_one = pixels % lanes_ == 1 && whole > 0 && whole % shares == 0;
  if (and_one && (whole + count(whole) - 1) / count(whole) <= widest_and_one_) {
    return {whole, count(whole), kernels::kSpmmVectorsAndOne};
  }
  const int32_t vectors = (pixels + lanes_ - 1) / lanes_;
  return {vectors, count(vectors), kernels::kSpmmVectors};
}

Conv::OneTile Conv::AsOneTile(const kernels::KernelTable& kernels, int log2_block, int64_t pixels) {
  const auto widest = [&](kernels::SpmmPixels of) { return kernels.spmm.max_tile[of][log2_block]; };
  const int64_t whole = pixels / kernels.lanes, more = pixels % kernels.lanes;
  if (more == 1 && whole > 0 && whole <= widest(kernels::kSpmmVectorsAndOne)) return {(whole << log2_block) + 1, true};
  const int64_t vectors = whole + (more > 0 ? 1 : 0);
  return {vectors << log2_block, vectors <= widest(kernels::kSpmmVectors)};
}

// The block of sparse weights, or the best one of dense weights.
int Conv::Log2Block(const kernels::KernelTable& kernels, int64_t pixels) const {
  if (weights_.dense == nullptr) return __builtin_ctz(weights_.sparse.block);
  // Wide blocks load an input vector for more multiplications, but want registers; and a small image is one tile of
  // narrower blocks, for which the weights are read once.
  const bool wide = kernels.spmm.max_tile[kernels::kSpmmVectors][3] >= 3;
  return wide && (AsOneTile(kernels, 3, pixels).fits || !AsOneTile(kernels, 2, pixels).fits) ? 3 : 2;
}

// What a tile of `pixels` reads of all planes, in bytes.
int64_t Conv::TileBytes(int32_t pixels) const {
  if (way_ == Way::kGathered) return Planes() * GatheredFloats() * static_cast<int64_t>(sizeof(float));
  const int64_t row = output_.planes.row, height = options_.kernel_height, line = kernels::kMaxLanes;
  const int64_t reach = std::min(height * (pixels + 2 * line), (height - 1) * row + pixels + 2 * line);
  return Planes() * reach * static_cast<int64_t>(sizeof(float));
}

int64_t Conv::Planes() const {
  return input_.dims[3] * (way_ == Way::kSplit ? static_cast<int64_t>(phases_.size()) : int64_t{1});
}

// The same for the tallest tile of rows of the image; of the whole image, so that slices, which sums are in the order
// of, are the same whether it runs in bands or not.
int64_t Conv::RowTileBytes() const {
  const int64_t rows = std::min(output_.height(), rows_->max_rows[TileVectors()]) + options_.kernel_height - 1;
  const int64_t pixels = int64_t{TileVectors()} * lanes_ + kernels::kMaxLanes;
  return Planes() * rows * pixels * static_cast<int64_t>(sizeof(float));
}

// The widest tile of a row of the image, in vectors.
int32_t Conv::TileVectors() const { return (row_vectors_ + tiles_across_ - 1) / tiles_across_; }

// Tiles one above the other that make up these rows of the image, as equal as may be.
int32_t Conv::TilesOf(int32_t image_rows) const {
  const int32_t most = rows_->max_rows[TileVectors()];
  const int32_t tiles = (image_rows + most - 1) / most;
  const bool there = image_rows == tiles * most || (image_rows + tiles - 1) / tiles <= kernels::kSpmmFewRows;
  return there ? tiles : (image_rows + kernels::kSpmmFewRows - 1) / kernels::kSpmmFewRows;
}

// Whether tiles of rows of the image load less than tiles of runs of pixels do.
bool Conv::ImageRowsPay(const int32_t* column_offset) const {
  const int32_t image_row = output_.planes.row;
  const bool whole_lines = image_row % kernels::kMaxLanes == 0;
  // Vectors that lie in two lines take twice as long; and where they are lines themselves, so do those of the sums,
  // which tiles of runs of pixels have in whole lines.
  if (lanes_ == kernels::kMaxLanes && !whole_lines) return false;
  const double anywhere = 1.0 + static_cast<double>(lanes_) / kernels::kMaxLanes;
  // Of a layer with more blocks, some rows stand for all.
  constexpr size_t kSampledBlocks = 1 << 15;
  const int32_t row_step = static_cast<int32_t>(weights_.sparse.weights() / kSampledBlocks) + 1;
  const double blocks = static_cast<double>(weights_.sparse.weights());
  const double paired = blocks * kernels::ShareInPairs(weights_.sparse, column_offset,
                                                       image_row * static_cast<int32_t>(sizeof(float)), row_step);
  const double tall = std::min(output_.height(), rows_->max_rows[TileVectors()]);
  const double pair = (tall + 1) / tall * anywhere, single = rows_->shifts && whole_lines ? 1.0 : anywhere;
  const double by_rows = (paired / 2 * pair + (blocks - paired) * single) * output_.height() * row_vectors_;
  const double by_runs = blocks * anywhere * ((output_.run() + lanes_ - 1) / lanes_);
  return by_rows < by_runs;
}

// How far apart in memory the planes of a slice may lie, for tiles that read `tile_bytes`; 0 for one slice of all. What
// a slice reads for a tile is to stay in the first-level cache while all rows of a panel go by, but a slice is to have
// so many multiply-adds that they make up for reading and writing the sums once more.
int32_t Conv::SliceBytes(int32_t plane, int64_t tile_bytes, int32_t weights) const {
  // Dense weights of larger kernels read each pixel so often that more of them may come from the second-level cache: 2
  // % of layers of 14x14x512 and 56x56x64. Of 1x1 kernels it is a loss of 1 %.
  const bool often = weights_.dense != nullptr && options_.kernel_height * options_.kernel_width > 1;
  const int64_t cache = kTilings[tiling_].cache_bytes * (often ? 2 : 1);
  if (cache == 0 || tile_bytes == 0) return 0;
  const int64_t planes = Planes();
  const int64_t planes_in_cache = std::max<int64_t>(1, cache * planes / tile_bytes);
  const int64_t values = weights_.dense != nullptr ? static_cast<int64_t>(weights_.rows) * weights_.columns
                                                   : static_cast<int64_t>(weights_.sparse.weights());
  const int64_t slices = std::min((planes + planes_in_cache - 1) / planes_in_cache, values / weights_.rows / weights);
  if (slices < 2) return 0;
  return static_cast<int32_t>((planes + slices - 1) / slices * plane * static_cast<int64_t>(sizeof(float)));
}

bool Conv::InputRows(size_t i, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const {
  if (way_ == Way::kGathered) return false;  // too small an image to be worth it
  if (i == 1) {
    *in_begin = begin;
    *in_end = end;
    return true;
  }
  const int32_t reach = (options_.kernel_height - 1) * options_.dilation_height + 1;
  *in_begin = std::max(0, begin * options_.stride_height - border_.top);
  *in_end = std::min(input_height_, (end - 1) * options_.stride_height - border_.top + reach);
  return true;
}

size_t Conv::WeightBytes() const {
  const size_t values = weights_.dense != nullptr ? static_cast<size_t>(weights_.rows) * weights_.columns
                                                  : weights_.sparse.weights() + weights_.sparse.blocks();
  return values * sizeof(float);
}

// Where the slice of a panel finds a tile's pixels, and what it does with the sums.
template <class Args>
void Conv::Place(const float* x, float* y, const float* residual, int slice, Args* args) const {
  const bool last = slice + 1 == packed_.slices;
  args->x = x;
  args->y = y;
  args->residual = slice > 0 ? y : residual;
  args->low = last ? low_ : -kInfinity;
  args->high = last ? high_ : kInfinity;
}

void Conv::RunRows(const graph::RunContext& context, int32_t begin, int32_t end) const {
  const int slices = packed_.slices, panels = static_cast<int>(packed_.panels.size()) / slices;
  const int32_t row = output_.planes.row;
  // Whole cache lines: a little before the first row is computed again rather than every vector split.
  const int32_t first = begin * row / kernels::kMaxLanes * kernels::kMaxLanes;
  const int32_t last = end == output_.height() ? output_.run() : end * row;
  const Tiles tiles = TilesOfRun(last - first, by_pixels_ ? context.pool->threads() : 1);
  const int64_t input_batch = input_.layout == graph::Layout::kPlanar
                                  ? input_.planes.batch
                                  : static_cast<int64_t>(input_.dims[1]) * input_.dims[2] * input_.dims[3];
  for (int32_t n = 0; n < output_.batch(); n++) {
    const float* x = context.data[inputs[0]] + n * input_batch;
    int32_t origin = 0;  // the pixel at x
    if (way_ != Way::kSplit) {
      x += input_.planes.origin;
    } else {
      Split(x, context.scratch, first, std::min(phase_height_, RowsMet(end)), context.pool);
      x = context.scratch;
      origin = ScratchStart(first);
    }
    const int64_t at = n * output_.planes.batch + output_.planes.origin;
    float* y = context.data[output] + at;
    const float* residual =
        inputs.size() > 1 ? context.data[inputs[1]] + n * residual_batch_ + output_.planes.origin : nullptr;
    if (by_rows_) {
      const int32_t down = TilesOf(end - begin), across = tiles_across_;
      const auto& tile_kernels = whole_rows_ ? rows_->whole : rows_->part;
      context.pool->For(down * across * panels, [&](int task) {
        // Heights and widths as equal as may be.
        const auto cut = [](int32_t size, int32_t part, int32_t parts) {
          return static_cast<int32_t>(static_cast<int64_t>(size) * part / parts);
        };
        const int32_t i = task / across % down, j = task % across;
        const int32_t top = begin + cut(end - begin, i, down), bottom = begin + cut(end - begin, i + 1, down);
        const int32_t left = cut(row_vectors_, j, across), right = cut(row_vectors_, j + 1, across);
        const int32_t pixel = top * row + left * lanes_;
        for (int slice = 0; slice < slices; slice++) {
          kernels::SpmmRowsArgs args =
              packed_.Args<kernels::SpmmRowsArgs>(static_cast<size_t>(task / (down * across)) * slices + slice);
          Place(x + (pixel - origin), y + pixel, residual == nullptr ? nullptr : residual + pixel, slice, &args);
          args.image_row = row;
          args.last_lanes = std::min(lanes_, output_.width() - (right - 1) * lanes_);
          tile_kernels[bottom - top][right - left](args);
        }
      });
      continue;
    }
    context.pool->For(tiles.count * panels, [&](int task) {
      // A thread's share is a range of pixels or else of channels.
      const int32_t tile = by_pixels_ ? task / panels : task % tiles.count;
      const int32_t panel = by_pixels_ ? task % panels : task / tiles.count;
      const int32_t from = static_cast<int32_t>(static_cast<int64_t>(tiles.vectors) * tile / tiles.count);
      const int32_t to = static_cast<int32_t>(static_cast<int64_t>(tiles.vectors) * (tile + 1) / tiles.count);
      const kernels::SpmmKernel kernel =
          kernels_[tile + 1 == tiles.count ? tiles.last : kernels::kSpmmVectors][to - from];
      const int32_t pixel = first + from * lanes_;
      for (int slice = 0; slice < slices; slice++) {
        kernels::SpmmArgs args = packed_.Args(static_cast<size_t>(panel) * slices + slice);
        const float* image = x - origin;
        if (way_ == Way::kGathered) image = Gather(x, slice, context.scratch + task * SliceFloats());
        Place(image + pixel, y + pixel, residual == nullptr ? nullptr : residual + pixel, slice, &args);
        kernel(args);
      }
    });
  }
}

}  // namespace ops
}  // namespace block_sparse
