// How the pixels of a small image come to scratch, where larger kernels are about to multiply by them.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/image.h"

namespace block_sparse {
namespace ops {

int64_t Conv::MostParts() const {
  return int64_t{options_.kernel_width} * std::min(options_.kernel_height, options_.stride_height);
}

// Whether an image is small enough to be one tile, and so much smaller without anything between its rows that this
// makes up for the gathering. To be asked before planes are set: other ops may yet need something there.
bool Conv::GatheringPays(const graph::Planner& planner) const {
  const graph::Value &in = planner.value(inputs[0]), &out = planner.value(output);
  const kernels::KernelTable& kernels = planner.kernels();
  const ConvOptions& o = options_;
  const int64_t positions = int64_t{o.kernel_height} * o.kernel_width;
  if (positions == 1 || in.layout != graph::Layout::kPlanar || o.stride_width > kernels::kGatherMaxStep) return false;
  if (LikesImageRows()) return false;
  const int64_t pixels = int64_t{out.height()} * out.width();
  const int log2_block = Log2Block(kernels, pixels);
  const OneTile gathered = AsOneTile(kernels, log2_block, pixels);
  if (!gathered.fits) return false;
  const int64_t between = o.stride_height == 1 && o.stride_width == 1
                              ? std::max(border_.left, border_.right)
                              : (o.kernel_width - 1) * o.dilation_width / o.stride_width;
  const int64_t not_gathered = AsOneTile(kernels, log2_block, pixels + (out.height() - 1) * between).work;
  // Of a channel.
  const int64_t parts = MostParts();
  const int64_t part = RowsMet(out.height()) * (int64_t{out.width()} + between) + 2 * kernels::kMaxLanes;
  if (in.channels() * parts * part > kMaxFloats) return false;
  const int64_t columns = positions * in.channels();
  const int64_t weights = weights_.dense != nullptr ? weights_.rows * columns : weights_.sparse.weights();
  constexpr int64_t kGathered = 4;  // multiply-adds that gathering a vector takes the time of
  return (weights >> log2_block) * (not_gathered - gathered.work) >
         kGathered * in.channels() * parts * (part / kernels.lanes);
}

// Positions of the kernel that lie above each other, in rows that a stride takes together, meet the same pixels rows
// apart: they have one part of scratch. Sets where in scratch each position finds the first pixel of a channel; false
// if that is out of reach.
bool Conv::PrepareGathering(std::vector<int32_t>* position) {
  const ConvOptions& o = options_;
  const int64_t row = output_.planes.row, rows = RowsMet(output_.height());
  // Whole vectors of a part's last row are written, and those of a tile read.
  const int64_t part_floats = WholeLines(std::max((rows - 1) * row + WholeLines(output_.width()),
                                                  (rows - output_.height()) * row + WholeLines(output_.run())));
  const int64_t most_parts = MostParts();
  if (part_floats > kMaxFloats / most_parts / input_.channels()) return false;
  part_floats_ = static_cast<int32_t>(part_floats);
  gathered_parts_ = 0;
  gathered_from_ = std::vector<int32_t>(static_cast<size_t>(most_parts));
  gathered_mask_ = std::vector<int32_t>(static_cast<size_t>(most_parts * part_floats));
  std::vector<int32_t> parts_to(static_cast<size_t>(o.stride_height));  // the end of the parts that rows have, or 0
  for (int32_t ky = 0; ky < o.kernel_height; ky++) {
    const int32_t y = ky * o.dilation_height, top = y % o.stride_height - border_.top;
    int32_t& end = parts_to[y % o.stride_height];
    const bool known = end > 0;
    if (!known) {
      gathered_parts_ += o.kernel_width;
      end = gathered_parts_;
    }
    for (int32_t kx = 0; kx < o.kernel_width; kx++) {
      const int64_t part = end - o.kernel_width + kx;
      (*position)[ky * o.kernel_width + kx] = static_cast<int32_t>(part * part_floats + y / o.stride_height * row);
      if (known) continue;
      const int32_t left = kx * o.dilation_width - border_.left;
      gathered_from_[part] = top * input_.planes.row + left;
      for (int64_t i = 0; i < part_floats; i++) {
        const int64_t from_y = i / row * o.stride_height + top, from_x = i % row * o.stride_width + left;
        const bool inside = from_y >= 0 && from_y < input_.height() && from_x >= 0 && from_x < input_.width();
        gathered_mask_[part * part_floats + i] = inside ? -1 : 0;
      }
    }
  }
  return true;
}

int64_t Conv::GatheredFloats() const { return int64_t{gathered_parts_} * part_floats_; }
int64_t Conv::SliceFloats() const { return slice_channels_ * GatheredFloats(); }

// Gathers a slice's channels to scratch; returns where channel 0 would be.
const float* Conv::Gather(const float* image, int slice, float* scratch) const {
  const int32_t first = slice * slice_channels_;
  const ConvOptions& o = options_;
  const int32_t row = output_.planes.row, rows = RowsMet(output_.height());
  kernels::GatherArgs args = {};
  args.x_plane = input_.planes.plane;
  args.channels = std::min(slice_channels_, input_.channels() - first);
  args.y_plane = GatheredFloats();
  if (o.stride_height == 1 && o.stride_width == 1 && input_.planes.row == row) {
    args.rows = 1;  // of all rows
    args.columns = (rows - 1) * row + output_.width();
  } else {
    args.x_row = int64_t{o.stride_height} * input_.planes.row;
    args.rows = rows;
    args.columns = output_.width();
    args.y_row = row;
  }
  image += int64_t{first} * input_.planes.plane;
  for (int32_t part = 0; part < gathered_parts_; part++) {
    args.x = image + gathered_from_[part];
    args.mask = gathered_mask_.data() + int64_t{part} * part_floats_;
    args.y = scratch + int64_t{part} * part_floats_;
    strided_.gather[o.stride_width](args);
  }
  return scratch - first * GatheredFloats();
}

}  // namespace ops
}  // namespace block_sparse
