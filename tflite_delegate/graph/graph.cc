#include "tflite_delegate/graph/graph.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "tflite_delegate/graph/fusion.h"
#include "tflite_delegate/graph/layout_ops.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/graph/unread_pixels.h"

namespace block_sparse {
namespace graph {

namespace {

constexpr size_t kAlignFloats = 16;            // a cache line
constexpr size_t kMargin = 16 * kAlignFloats;  // kernels read so far past either end of the arena, at most

size_t RoundUp(size_t floats) { return (floats + kAlignFloats - 1) / kAlignFloats * kAlignFloats; }

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

bool HasPixels(const Dims& dims) { return dims.size() == 4 && static_cast<int64_t>(dims[1]) * dims[2] > 1; }

}  // namespace

int Graph::AddValue(const Dims& dims, bool interleaved) {
  Value value;
  value.dims = dims;
  value.layout = HasPixels(dims) && !interleaved ? Layout::kPlanar : Layout::kInterleaved;
  values_.push_back(std::move(value));
  return static_cast<int>(values_.size()) - 1;
}

int Graph::AddPlanarValue(const Dims& dims) {
  const int id = AddValue(dims);
  values_[id].layout = Layout::kPlanar;
  return id;
}

int Graph::AddConstant(const Dims& dims, const float* data) {
  const int id = AddValue(dims, true);
  values_[id].constant = data;
  return id;
}

int Graph::AddInput(const Dims& dims) {
  const int id = AddValue(dims, true);
  inputs_.push_back(id);
  return id;
}

int Graph::Planar(int value) {
  if (values_[value].layout == Layout::kPlanar || !HasPixels(values_[value].dims)) return value;
  for (const auto& [from, to] : transposed_) {
    if (from == value) return to;
  }
  const int planar = AddValue(values_[value].dims);
  AddOp(MakeToPlanar(value, planar));
  transposed_.push_back({value, planar});
  return planar;
}

int Graph::Interleaved(int value) {
  if (values_[value].layout == Layout::kInterleaved) return value;
  for (const auto& [from, to] : transposed_) {
    if (from == value) return to;
  }
  const int interleaved = AddValue(values_[value].dims, true);
  AddOp(MakeToInterleaved(value, interleaved));
  transposed_.push_back({value, interleaved});
  return interleaved;
}

void Graph::AddOutput(int value) {
  value = Interleaved(value);
  // An output lies in memory of the caller's, so it can be neither an input nor another output.
  const bool taken = values_[value].constant != nullptr ||
                     std::find(inputs_.begin(), inputs_.end(), value) != inputs_.end() ||
                     std::find(outputs_.begin(), outputs_.end(), value) != outputs_.end();
  if (taken) {
    const int copy = AddValue(values_[value].dims, true);
    AddOp(MakeCopy(value, copy));
    value = copy;
  }
  outputs_.push_back(value);
}

void Graph::RemoveUnusedOps() {
  std::vector<bool> used(values_.size(), false);
  for (int v : outputs_) used[v] = true;
  for (size_t i = ops_.size(); i-- > 0;) {
    if (!used[ops_[i]->output]) {
      ops_[i] = nullptr;
      continue;
    }
    for (int v : ops_[i]->inputs) {
      if (v >= 0) used[v] = true;
    }
  }
  ops_.erase(std::remove(ops_.begin(), ops_.end(), nullptr), ops_.end());
}

void Graph::InsertZeroBorders() {
  std::vector<std::unique_ptr<Op>> ops;
  for (std::unique_ptr<Op>& op : ops_) {
    const int output = op->output;
    ops.push_back(std::move(op));
    if (values_[output].border.any()) ops.push_back(MakeZeroBorder(output));
  }
  ops_ = std::move(ops);
}

// Inputs of a concatenation along the channels are produced where they will stand in its output.
void Graph::AliasConcatenations() {
  for (size_t i = ops_.size(); i-- > 0;) {
    const Op& op = *ops_[i];
    if (!op.ConcatenatesChannels()) continue;
    const Planes& to = values_[op.output].planes;
    int64_t channel = 0;
    for (int v : op.inputs) {
      const Value& value = values_[v];
      if (value.layout == Layout::kPlanar && alias_[v] < 0 && value.planes.row == to.row &&
          value.planes.origin == to.origin && value.planes.plane == to.plane) {
        alias_[v] = op.output;
        alias_at_[v] = channel * to.plane;
      }
      channel += value.channels();
    }
  }
  // A part's images are as far apart as the whole's.
  for (size_t v = 0; v < values_.size(); v++) {
    if (values_[v].layout == Layout::kPlanar) values_[v].planes.batch = values_[Root(static_cast<int>(v))].planes.batch;
  }
}

void Graph::PlanBandsAndWindows(int num_threads) {
  // Parts of concatenations, and what they are parts of, are laid out as wholes.
  std::vector<bool> pinned(values_.size(), false);
  for (size_t v = 0; v < values_.size(); v++) {
    pinned[v] = pinned[v] || alias_[v] >= 0;
    if (alias_[v] >= 0) pinned[alias_[v]] = true;
  }
  for (int v : outputs_) pinned[v] = true;
  bands_ = PlanBands(ops_, values_, pinned, num_threads, band_limits_);
  std::vector<int32_t> most(ops_.size(), 0);
  std::vector<bool> shared(values_.size(), false);
  for (const Group& group : bands_.groups) {
    for (const std::vector<Step>& steps : group.shares) {
      for (const Step& step : steps) {
        if (step.op >= 0) most[step.op] = std::max(most[step.op], step.end - step.begin);
      }
    }
    for (int i = group.first; i <= group.last; i++) shared[ops_[i]->output] = group.shares.size() > 1;
  }
  for (size_t i = 0; i < ops_.size(); i++) {
    if (most[i] > 0) ops_[i]->SetMostRows(most[i]);
  }
  for (size_t v = 0; v < values_.size(); v++) {
    if (bands_.window[v] == 0) continue;
    Value& value = values_[v];
    // The window begins with a cache line, which holds the zeros left of its first row too.
    const int64_t run =
        static_cast<int64_t>(bands_.window[v]) * value.planes.row + value.border.left + kernels::kMaxLanes;
    const int64_t plane = Planner::PlaneFloats(value.planes, run, value.border);
    if (plane >= value.planes.plane && !shared[v]) {
      bands_.window[v] = 0;  // whole after all
      continue;
    }
    value.planes.plane = static_cast<int32_t>(plane);
    value.planes.batch = static_cast<int64_t>(value.planes.plane) * value.channels();
  }
}

// Moves the rows that are still needed to the window's beginning. Pointers to the value are kept such that rows are
// counted from the image's top, wherever the window is.
void Graph::Slide(const Step& step, size_t share, ThreadPool* pool) {
  float* const window = shares_[share].window[step.value];
  float*& data = shares_[share].data[step.value];
  if (window == nullptr) return;  // kept whole
  const Value& value = values_[step.value];
  const Planes& planes = value.planes;
  const int64_t from = std::max<int64_t>(0, static_cast<int64_t>(step.begin) * planes.row - value.border.left);
  const int64_t begin = from / kernels::kMaxLanes * kernels::kMaxLanes;
  const int64_t moved = begin - (window - data);
  const int64_t kept = std::max<int64_t>(0, static_cast<int64_t>(step.end) * planes.row - begin);
  if (moved == 0) return;
  data -= moved;
  constexpr int32_t kChannels = 16;
  pool->For((value.channels() + kChannels - 1) / kChannels, [&](int task) {
    const int32_t last = std::min(value.channels(), (task + 1) * kChannels);
    for (int32_t c = task * kChannels; c < last; c++) {
      float* plane = window + static_cast<int64_t>(c) * planes.plane + planes.origin;
      memmove(plane, plane + moved, static_cast<size_t>(kept) * sizeof(float));
    }
  });
}

int Graph::Root(int value) const {
  while (alias_[value] >= 0) value = alias_[value];
  return value;
}

size_t Graph::Floats(int id) const {
  const Value& value = values_[id];
  if (value.layout == Layout::kPlanar) return static_cast<size_t>(value.planes.batch) * value.batch();
  return static_cast<size_t>(Count(value.dims));
}

bool Graph::PlanMemory() {
  const int op_count = static_cast<int>(ops_.size());
  std::vector<bool> outside(values_.size(), false);
  for (int v : inputs_) outside[v] = true;
  for (int v : outputs_) outside[v] = true;

  // Within a group every op may run again after any other, so all that it touches lives through the whole group.
  std::vector<const Group*> group_of(op_count);
  size_t most_shares = 1;
  for (const Group& group : bands_.groups) {
    std::fill(group_of.begin() + group.first, group_of.begin() + group.last + 1, &group);
    most_shares = std::max(most_shares, group.shares.size());
  }

  // First and last op that touches each piece of memory.
  std::vector<int> first(values_.size(), op_count), last(values_.size(), -1);
  const auto touch = [&](int value, int op) {
    const int root = Root(value);
    first[root] = std::min(first[root], group_of[op]->first);
    last[root] = std::max(last[root], group_of[op]->last);
  };
  for (int i = 0; i < op_count; i++) {
    touch(ops_[i]->output, i);
    for (int v : ops_[i]->inputs) {
      if (v >= 0) touch(v, i);
    }
  }

  for (int i = 0; i < op_count; i++) {
    const int k = ops_[i]->InPlaceInput();
    if (k < 0 || group_of[i]->last > group_of[i]->first) continue;
    const int from = ops_[i]->inputs[k], to = ops_[i]->output;
    const int root = Root(from);
    if (from == to || alias_[to] >= 0 || outside[to] || outside[root] || values_[from].constant != nullptr) continue;
    // Writing over a part of something larger, or over what is read later, would destroy it.
    const bool whole = root == from || Floats(from) == Floats(root);
    if (!whole || last[root] != i || Floats(from) != Floats(to)) continue;
    bool read_elsewhere = false;
    for (size_t j = 0; j < ops_[i]->inputs.size(); j++) {
      const int other = ops_[i]->inputs[j];
      read_elsewhere |= static_cast<int>(j) != k && other >= 0 && Root(other) == root;
    }
    if (read_elsewhere) continue;
    // `to` may itself be the root of others (a concatenation); they would come along. Keep to the simple case.
    if (std::find(alias_.begin(), alias_.end(), to) != alias_.end()) continue;
    alias_[to] = from;
    alias_at_[to] = 0;
    last[root] = std::max(last[root], last[to]);
  }

  struct Piece {
    int value;  // -1 - op for scratch
    size_t share;
    size_t floats;
    int first, last;
    size_t at;
  };
  std::vector<Piece> pieces;
  for (size_t v = 0; v < values_.size(); v++) {
    const int id = static_cast<int>(v);
    if (alias_[v] >= 0 || outside[v] || values_[v].constant != nullptr || last[v] < 0) continue;
    // Every share has windows of its own. What one reads past its window's end, another must not write.
    const size_t windows = bands_.window[v] > 0 ? group_of[first[v]]->shares.size() : 1;
    const size_t floats = RoundUp(Floats(id)) + (windows > 1 ? kMargin : 0);
    for (size_t share = 0; share < windows; share++) pieces.push_back({id, share, floats, first[v], last[v], 0});
  }
  for (int i = 0; i < op_count; i++) {
    const size_t scratch = ops_[i]->ScratchFloats();
    if (scratch == 0) continue;
    const size_t count = group_of[i]->shares.size();
    const int from = count > 1 ? group_of[i]->first : i, to = count > 1 ? group_of[i]->last : i;
    for (size_t share = 0; share < count; share++) pieces.push_back({-1 - i, share, RoundUp(scratch), from, to, 0});
  }

  // Largest first, each into the lowest gap among those that live at the same time.
  std::vector<size_t> order(pieces.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return pieces[a].floats > pieces[b].floats; });
  std::vector<size_t> placed;  // by position
  size_t total = 0;
  for (size_t index : order) {
    Piece& piece = pieces[index];
    size_t at = 0;
    for (size_t other_index : placed) {
      const Piece& other = pieces[other_index];
      if (other.last < piece.first || other.first > piece.last) continue;
      if (other.at >= at + piece.floats) break;
      at = std::max(at, other.at + other.floats);
    }
    piece.at = at;
    total = std::max(total, at + piece.floats);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), index,
                                   [&](size_t a, size_t b) { return pieces[a].at < pieces[b].at; }),
                  index);
  }
  // What lies between rows is computed with although nobody reads the result; the arena's zeros keep slow denormals
  // out of it. Readers of a tile may look a little past the last plane.
  total += 2 * kMargin;
  if (!arena_.Allocate(total)) return false;

  Share empty;
  empty.window.assign(values_.size(), nullptr);
  empty.data.assign(values_.size(), nullptr);
  empty.scratch.assign(ops_.size(), nullptr);
  shares_.assign(most_shares, empty);
  for (const Piece& piece : pieces) {
    float* const at = arena_.data() + kMargin + piece.at;
    if (piece.value < 0) {
      shares_[piece.share].scratch[-1 - piece.value] = at;
    } else if (bands_.window[piece.value] > 0) {
      shares_[piece.share].window[piece.value] = at;
    } else {
      for (Share& share : shares_) share.data[piece.value] = at;
    }
  }
  for (Share& share : shares_) {
    std::vector<float*>& data = share.data;
    for (size_t v = 0; v < values_.size(); v++) {
      if (values_[v].constant != nullptr) data[v] = const_cast<float*>(values_[v].constant);
      if (alias_[v] < 0) continue;
      int64_t at = 0;
      int root = static_cast<int>(v);
      for (; alias_[root] >= 0; root = alias_[root]) at += alias_at_[root];
      if (data[root] != nullptr) data[v] = data[root] + at;
    }
  }
  return true;
}

bool Graph::PrepareOp(Op* op, const kernels::KernelTable& kernels, int num_threads, std::string* error) const {
  if (op->Prepare(*this, kernels, num_threads)) return true;
  *error = std::string(op->name()) + ": too large to be packed";
  return false;
}

bool Graph::Prepare(const kernels::KernelTable& kernels, int num_threads, std::string* error, const Tuning* tuning) {
  Fuse(&ops_, values_.size(), outputs_);
  RemoveUnusedOps();
  SkipUnreadPixels(&ops_, &values_, outputs_);
  Planner planner(&values_, kernels);
  for (const auto& op : ops_) op->Constrain(&planner);
  if (!planner.SetPlanes()) {
    *error = "a tensor is too large: one image must stay below 2^29 values";
    return false;
  }
  InsertZeroBorders();
  alias_.assign(values_.size(), -1);
  alias_at_.assign(values_.size(), 0);
  AliasConcatenations();
  PlanBandsAndWindows(num_threads);
  for (const auto& op : ops_) {
    std::string kind;
    if (tuning != nullptr && op->Tilings() > 1) {
      kind = op->TilingKey(*this);
      const int tiling = tuning->Find(kind);
      const bool known = tiling >= 0 && tiling < op->Tilings();
      op->SetTiling(known ? tiling : 0, !known);
      if (known) kind.clear();
    }
    to_tune_.push_back(kind);
    if (!PrepareOp(op.get(), kernels, num_threads, error)) return false;
  }
  if (!PlanMemory()) {
    *error = "out of memory for the activations";
    return false;
  }
  return true;
}

void Graph::Run(const float* const* inputs, float* const* outputs, ThreadPool* pool) {
  for (Share& share : shares_) {
    for (size_t i = 0; i < inputs_.size(); i++) share.data[inputs_[i]] = const_cast<float*>(inputs[i]);
    for (size_t i = 0; i < outputs_.size(); i++) share.data[outputs_[i]] = outputs[i];
    for (size_t v = 0; v < share.window.size(); v++) {
      if (share.window[v] != nullptr) share.data[v] = share.window[v];
    }
  }
  for (const Group& group : bands_.groups) {
    if (group.shares.size() == 1) {
      RunSteps(group.shares[0], 0, pool);
    } else {
      const int count = static_cast<int>(group.shares.size());
      pool->For(count, [&](int share) { RunSteps(group.shares[share], share, &alone_); });
    }
  }
  profiled_runs_++;
}

void Graph::RunSteps(const std::vector<Step>& steps, size_t index, ThreadPool* pool) {
  Share& share = shares_[index];
  const bool profile = !share.profile_ns.empty();
  int64_t before = profile ? Now() : 0;
  for (const Step& step : steps) {
    if (step.op < 0) {
      Slide(step, index, pool);
      continue;
    }
    const RunContext context = {share.data.data(), share.scratch[step.op], pool};
    if (step.end < 0) {
      ops_[step.op]->Run(context);
    } else {
      ops_[step.op]->RunRows(context, step.begin, step.end);
    }
    if (profile) {
      const int64_t after = Now();
      share.profile_ns[step.op] += after - before;
      before = after;
    }
  }
}

void Graph::EnableProfile(bool enable) {
  for (Share& share : shares_) share.profile_ns.assign(enable ? ops_.size() : 0, 0);
  profiled_runs_ = 0;
}

int64_t Graph::Nanoseconds(int op) const {
  int64_t sum = 0, count = 0;
  for (const Share& share : shares_) {
    const int64_t ns = share.profile_ns.empty() ? 0 : share.profile_ns[op];
    sum += ns;
    count += ns > 0 ? 1 : 0;
  }
  return sum / std::max<int64_t>(1, count);
}

std::vector<std::string> Graph::Profile() const {
  std::vector<std::string> lines;
  const bool profiled = !shares_.empty() && !shares_[0].profile_ns.empty() && profiled_runs_ > 0;
  for (size_t i = 0; i < ops_.size() && profiled; i++) {
    std::string shape;
    for (int32_t d : values_[ops_[i]->output].dims) shape += (shape.empty() ? "" : "x") + std::to_string(d);
    char time[32];
    const double us = static_cast<double>(Nanoseconds(static_cast<int>(i))) / static_cast<double>(profiled_runs_) / 1e3;
    snprintf(time, sizeof time, "%9.2f us  ", us);
    lines.push_back(time + std::string(ops_[i]->name()) + " -> " + shape);
  }
  return lines;
}

}  // namespace graph
}  // namespace block_sparse
