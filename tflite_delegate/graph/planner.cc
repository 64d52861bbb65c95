#include "tflite_delegate/graph/planner.h"

#include <algorithm>
#include <limits>

#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace graph {

namespace {

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Planner::Planner(std::vector<Value>* values, const kernels::KernelTable& kernels)
    : values_(*values), kernels_(kernels), parent_(values->size()), classes_(values->size()) {
  for (size_t i = 0; i < parent_.size(); i++) parent_[i] = static_cast<int>(i);
}

int Planner::Root(int value) {
  while (parent_[value] != value) {
    parent_[value] = parent_[parent_[value]];
    value = parent_[value];
  }
  return value;
}

void Planner::SamePlanes(int a, int b) {
  if (values_[a].layout != Layout::kPlanar || values_[b].layout != Layout::kPlanar) return;
  a = Root(a);
  b = Root(b);
  if (a == b) return;
  parent_[b] = a;
  Class& to = classes_[a];
  const Class& from = classes_[b];
  to.min_row = std::max(to.min_row, from.min_row);
  to.whole_lines += from.whole_lines;
  to.reach.top = std::max(to.reach.top, from.reach.top);
  to.reach.left = std::max(to.reach.left, from.reach.left);
  to.reach.bottom = std::max(to.reach.bottom, from.reach.bottom);
  to.reach.right = std::max(to.reach.right, from.reach.right);
}

void Planner::MinRow(int value, int32_t row) {
  if (values_[value].layout != Layout::kPlanar) return;
  Class& of = classes_[Root(value)];
  of.min_row = std::max(of.min_row, row);
}

void Planner::WeighWholeLines(int value, double gain) {
  if (values_[value].layout != Layout::kPlanar) return;
  classes_[Root(value)].whole_lines += gain;
}

void Planner::ZeroBorder(int value, const Border& border) {
  if (values_[value].layout != Layout::kPlanar) return;
  const auto widen = [&border](Border* to) {
    to->top = std::max(to->top, border.top);
    to->left = std::max(to->left, border.left);
    to->bottom = std::max(to->bottom, border.bottom);
    to->right = std::max(to->right, border.right);
  };
  widen(&values_[value].border);
  widen(&classes_[Root(value)].reach);
}

int64_t Planner::PlaneFloats(const Planes& planes, int64_t run, const Border& reach) {
  // A whole vector may be written past the run's end, and a reader of the border reads that far again from each of its
  // shifted starting points.
  int64_t plane = RoundUp(
      planes.origin + RoundUp(run, kernels::kMaxLanes) + static_cast<int64_t>(reach.bottom) * planes.row + reach.right,
      kernels::kMaxLanes);
  // An odd number of cache lines from plane to plane spreads the planes over all sets of a cache; a power of two, such
  // as 32 x 32 pixels, would put the pixels of all channels into a few sets.
  if (plane / kernels::kMaxLanes % 2 == 0) plane += kernels::kMaxLanes;
  return plane;
}

void Planner::Room(int value, int32_t above, int32_t below) {
  if (values_[value].layout != Layout::kPlanar) return;
  Border& reach = classes_[Root(value)].reach;
  reach.top = std::max(reach.top, above);
  reach.bottom = std::max(reach.bottom, below);
}

bool Planner::SetPlanes() {
  // Kernels find pixels by 32-bit offsets in bytes.
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max() / static_cast<int64_t>(sizeof(float));
  for (size_t i = 0; i < values_.size(); i++) {
    Value& value = values_[i];
    if (value.layout != Layout::kPlanar) continue;
    const Class& of = classes_[Root(static_cast<int>(i))];
    int64_t row = std::max(of.min_row, value.width() + std::max(of.reach.left, of.reach.right));
    if (of.whole_lines > 0) row = RoundUp(row, kernels::kMaxLanes);
    const int64_t run = (value.height() - 1) * row + value.width();
    const int64_t origin = RoundUp(of.reach.top * row + of.reach.left, kernels::kMaxLanes);
    if (row > kMax || origin > kMax) return false;
    value.planes.row = static_cast<int32_t>(row);
    value.planes.origin = static_cast<int32_t>(origin);
    const int64_t plane = PlaneFloats(value.planes, run, of.reach);
    if (plane * value.channels() > kMax) return false;
    value.planes.plane = static_cast<int32_t>(plane);
    value.planes.batch = plane * value.channels();
  }
  return true;
}

}  // namespace graph
}  // namespace block_sparse
