// How an image comes to scratch, padded and split by strides, where a convolution cannot read it in place.
#include <algorithm>

#include "tflite_delegate/ops/conv.h"

namespace block_sparse {
namespace ops {

Conv::Phase Conv::PhaseAt(int32_t y, int32_t x) const {
  const int32_t stride = options_.stride_width, width = input_.dims[2];
  Phase phase;
  phase.top = y - border_.top;
  phase.left = x - border_.left;
  // Column j is pixel j * stride + left of a row, if there is one.
  phase.first = std::min(columns_, phase.left < 0 ? (stride - 1 - phase.left) / stride : 0);
  const int32_t beyond = width - phase.left;  // j * stride < beyond
  phase.last = std::max(phase.first, std::min(columns_, beyond > 0 ? (beyond + stride - 1) / stride : 0));
  phase.pixel = phase.first * stride + phase.left;
  return phase;
}

// The pixel of the output's run that scratch begins with, for runs from pixel `first` on: cache lines stay such.
int32_t Conv::ScratchStart(int32_t first) const {
  const int32_t row = output_.planes.row;
  return first / row * row / kernels::kMaxLanes * kernels::kMaxLanes;
}

// Copies the image to scratch: for each phase (py, px) of the strides that a kernel position needs, the pixels at
// (r * stride_height + py, j * stride_width + px) of the padded image, for r from that of pixel `first` to `end`. Each
// run uses the same scratch, which then stays in the cache.
void Conv::Split(const float* image, float* scratch, int32_t first, int32_t end, graph::ThreadPool* pool) const {
  const int32_t row = output_.planes.row, begin = first / row;
  const int64_t start = ScratchStart(first);
  const int32_t channels = input_.dims[3];
  scratch -= start;
  if (input_.layout == graph::Layout::kPlanar) {
    image += input_.planes.origin;
    pool->For(channels, [&](int c) {
      const float* const plane = image + c * int64_t{input_.planes.plane};
      float* const to = scratch + c * int64_t{scratch_plane_};
      if (options_.stride_width == 2) {
        PickPlane(plane, begin, end, to);
        return;
      }
      for (int32_t r = begin; r < end; r++) SplitRow(plane, r, 1, to);
    });
  } else {
    pool->For(end - begin, [&](int r) { SplitRow(image, begin + r, channels, scratch); });
  }
}

// Rows [begin, end) of all phases of one plane, under a stride of 2.
void Conv::PickPlane(const float* plane, int32_t begin, int32_t end, float* scratch) const {
  const int32_t row = output_.planes.row, stride = options_.stride_height;
  const int64_t row_step = static_cast<int64_t>(stride) * input_.planes.row;
  for (size_t p = 0; p < phases_.size(); p++) {
    const Phase& phase = phases_[p];
    float* to = scratch + static_cast<int64_t>(p) * input_.dims[3] * scratch_plane_;
    // Rows of the image are those from `top` on, before `bottom`.
    const auto first_from = [&](int32_t y) { return (std::max(0, y - phase.top) + stride - 1) / stride; };
    const int32_t top = std::min(end, std::max(begin, first_from(0)));
    const int32_t bottom = std::min(end, std::max(top, first_from(input_.dims[1])));
    if (bottom > top && phase.last > phase.first) {
      const float* from = plane + top * row_step + int64_t{phase.top} * input_.planes.row;
      strided_.pick(from + phase.first * 2 + phase.left, row_step, bottom - top, phase.last - phase.first,
                    to + static_cast<int64_t>(top) * row + phase.first, row);
    }
    // After that, as it writes between the rows.
    for (int32_t r = begin; r < end; r++) {
      const bool inside = r >= top && r < bottom;
      float* const at = to + static_cast<int64_t>(r) * row;
      std::fill(at, at + (inside ? phase.first : columns_), 0.0f);
      if (inside) std::fill(at + phase.last, at + columns_, 0.0f);
    }
  }
}

// Row r of all phases: of `channels` channels, whose pixels lie side by side from `image` on. They go to planes from
// `scratch` on.
void Conv::SplitRow(const float* image, int32_t r, int32_t channels, float* scratch) const {
  const int32_t stride = options_.stride_width;
  const int64_t step = int64_t{channels} * stride;
  const bool planar = input_.layout == graph::Layout::kPlanar;
  const int64_t row_step = planar ? input_.planes.row : int64_t{channels} * input_.dims[2];
  const auto split = step <= kernels::kStridedMaxStep ? strided_.split[step] : nullptr;
  scratch += static_cast<int64_t>(r) * output_.planes.row;
  float* parts[kernels::kStridedMaxStep] = {};  // for the pixels of one stretch of `stride`, channel by channel
  for (size_t p = 0; p < phases_.size(); p++) {
    const Phase& phase = phases_[p];
    float* to = scratch + static_cast<int64_t>(p) * input_.dims[3] * scratch_plane_;
    const int32_t y = r * options_.stride_height + phase.top;
    const bool outside = y < 0 || y >= input_.dims[1];
    const float* pixels = outside ? nullptr : image + y * row_step;
    const int32_t whole = split != nullptr && !outside ? common_columns_ : 0;
    for (int32_t c = 0; c < channels; c++, to += scratch_plane_) {
      const int32_t zeros = outside ? columns_ : phase.first;
      for (int32_t j = 0; j < zeros; j++) to[j] = 0.0f;
      if (outside) continue;
      for (int32_t j = phase.first + whole; j < phase.last; j++) {
        to[j] = pixels[(static_cast<int64_t>(j) * stride + phase.left) * channels + c];
      }
      for (int32_t j = phase.last; j < columns_; j++) to[j] = 0.0f;
      if (whole > 0) parts[phase.pixel * channels + c] = to + phase.first;
    }
    // Phases of the same rows stand next to each other.
    if (whole > 0 && (p + 1 == phases_.size() || phases_[p + 1].top != phase.top)) {
      split(pixels, whole, parts);
      std::fill(parts, parts + step, nullptr);
    }
  }
}

}  // namespace ops
}  // namespace block_sparse
