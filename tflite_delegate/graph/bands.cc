#include "tflite_delegate/graph/bands.h"

#include <algorithm>
#include <cstdint>

#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace graph {

namespace {

// What an op reads and writes in one band is to fit half a second-level cache of a megabyte: the windows of the whole
// group go round in it. An op that touches less than three times that is left whole, because a band costs a call and
// reads the weights once more. Measured on MobileNetV1, V2, V3-Large and EfficientNet-Lite0 with bands of 256 to 1024
// KiB and limits of 1200 KiB to never.
//
// With more than one thread there are no bands: all threads would wait for each other after every op of every band, and
// find half of the rows that it reads in another's cache. Two threads ran MobileNetV1 a tenth faster without, V2 and
// ResNet-50 some per cent.
constexpr int64_t kBandBytes = 512 << 10;
constexpr int64_t kLargeBytes = 1536 << 10;
constexpr int64_t kBytesPerWeightByte = 16;
// An op that computes little loses little by reading from the last-level cache, and made at once its output is in the
// second-level cache for what follows: in bands, ResNet-50's pooling, 4 MiB with its output, cost the network 1 to 2 %.
// VGG-16's, of 8 and 15 MiB, won it 2 to 3 %.
constexpr int64_t kLargeLittleBytes = 5 << 20;

int64_t Bytes(const Value& value) {
  return static_cast<int64_t>(value.planes.plane) * value.channels() * static_cast<int64_t>(sizeof(float));
}

// Bytes that the op touches, or 0 if it does not run by rows. An op with a residual does not: it can write over it when
// it runs whole, and not touching memory beats touching it in bands.
int64_t Footprint(const Op& op, const std::vector<Value>& values) {
  const Value& output = values[op.output];
  if (output.layout != Layout::kPlanar || output.batch() != 1 || op.inputs.size() > 1) return 0;
  int64_t bytes = Bytes(output);
  int32_t begin, end;
  for (size_t i = 0; i < op.inputs.size(); i++) {
    if (op.inputs[i] < 0) continue;
    const Value& input = values[op.inputs[i]];
    if (!op.InputRows(i, 0, output.height(), &begin, &end)) return 0;
    bytes += input.layout == Layout::kPlanar ? Bytes(input) : Count(input.dims) * static_cast<int64_t>(sizeof(float));
  }
  return bytes;
}

bool Large(const Op& op, int64_t bytes) {
  return bytes >= (op.ComputesLittle() ? kLargeLittleBytes : kLargeBytes) &&
         static_cast<int64_t>(op.WeightBytes()) * kBytesPerWeightByte <= bytes;
}

// Some more bands, if that makes all of them alike; best of as many rows as a depthwise kernel takes at a time.
int MakeAlike(int bands, int32_t height) {
  for (int32_t rows : {kernels::kDepthwiseRows, 1}) {
    for (int more = bands; more <= bands * 3 / 2; more++) {
      if (height % more == 0 && height / more % rows == 0) return more;
    }
  }
  return bands;
}

std::vector<Group> FindGroups(const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values) {
  std::vector<Group> groups;
  const int count = static_cast<int>(ops.size());
  for (int first = 0; first < count;) {
    int last = first;
    int64_t largest = 0;
    bool shrunk = false;
    for (; last < count; last++) {
      const int64_t bytes = Footprint(*ops[last], values);
      // An op that only tidies up after its neighbour comes along.
      const bool tidies = bytes > 0 && ops[last]->inputs[0] == ops[last]->output && last > first;
      if (!tidies && (shrunk || !Large(*ops[last], bytes))) break;
      largest = std::max(largest, bytes);
      // What follows a stride has fewer rows and wants larger bands.
      const Value& input = values[ops[last]->inputs[0]];
      shrunk = shrunk || (last > first && values[ops[last]->output].height() < input.height());
    }
    const int end = std::max(last, first + 1);
    int bands = 1;
    if (end - first > 1) {
      const int32_t height = values[ops[end - 1]->output].height();
      bands = static_cast<int>(std::min<int64_t>(height, (largest + kBandBytes - 1) / kBandBytes));
      bands = MakeAlike(bands, height);
    }
    if (bands > 1) {
      groups.push_back({first, end - 1, bands});
    } else {
      for (int i = first; i < end; i++) groups.push_back({i, i, 1});
    }
    first = end;
  }
  return groups;
}

// Turns of the ops of one group, each row once and after all that it needs.
std::vector<Step> TurnsOf(const Group& group, const std::vector<std::unique_ptr<Op>>& ops,
                          const std::vector<Value>& values) {
  std::vector<Step> turns;
  const int size = group.last - group.first + 1;
  std::vector<int32_t> done(size, 0), target(size);
  std::vector<int32_t> needed(values.size(), 0);  // rows of each value, from the top
  for (int band = 0; band < group.bands; band++) {
    for (int j = size - 1; j >= 0; j--) {
      const Op& op = *ops[group.first + j];
      const int32_t height = values[op.output].height();
      // The last op sets the pace; whatever nobody in the group asked for is completed in the last band.
      if (j == size - 1) {
        needed[op.output] = static_cast<int32_t>(static_cast<int64_t>(height) * (band + 1) / group.bands);
      }
      target[j] = band == group.bands - 1 ? height : std::max(done[j], std::min(height, needed[op.output]));
      for (size_t i = 0; i < op.inputs.size() && target[j] > 0; i++) {
        int32_t begin, end;
        if (op.inputs[i] < 0 || !op.InputRows(i, 0, target[j], &begin, &end)) continue;
        needed[op.inputs[i]] = std::max(needed[op.inputs[i]], end);
      }
    }
    for (int j = 0; j < size; j++) {
      if (target[j] > done[j]) turns.push_back({group.first + j, -1, done[j], target[j]});
      done[j] = target[j];
    }
  }
  return turns;
}

// Groups of one op each, which run whole. Those that would have had bands are told which rows would have been in one
// turn.
std::vector<Group> RunWhole(const std::vector<Group>& groups, const std::vector<std::unique_ptr<Op>>& ops,
                            const std::vector<Value>& values) {
  std::vector<Group> whole;
  for (const Group& group : groups) {
    for (int i = group.first; i <= group.last; i++) whole.push_back({i, i, 1});
    if (group.bands == 1) continue;
    std::vector<std::vector<int32_t>> ends(group.last - group.first + 1);
    for (const Step& turn : TurnsOf(group, ops, values)) ends[turn.op - group.first].push_back(turn.end);
    for (int i = group.first; i <= group.last; i++) ops[i]->SetRuns(ends[i - group.first]);
  }
  return whole;
}

// The first row that a turn from row `begin` on touches: an op may start at the beginning of a cache line.
int32_t FirstTouched(const Value& value, int32_t begin) {
  const int32_t pixel = begin * value.planes.row / kernels::kMaxLanes * kernels::kMaxLanes;
  return pixel / value.planes.row;
}

// Values that can have a window: made and read in this group alone, by ops that take planes of any size.
std::vector<bool> Windowed(const Group& group, const std::vector<std::unique_ptr<Op>>& ops,
                           const std::vector<Value>& values, const std::vector<bool>& pinned) {
  std::vector<bool> windowed(values.size(), false);
  for (int i = group.first; i <= group.last; i++) windowed[ops[i]->output] = !pinned[ops[i]->output];
  for (int i = 0; i < static_cast<int>(ops.size()); i++) {
    const bool inside = i >= group.first && i <= group.last;
    for (size_t k = 0; k < ops[i]->inputs.size(); k++) {
      const int v = ops[i]->inputs[k];
      if (v < 0) continue;
      if (!inside) windowed[v] = false;
      // A residual and the output it is added to share one description of their planes.
      if (k > 0) windowed[v] = windowed[ops[i]->output] = false;
    }
  }
  return windowed;
}

// Appends the turns, with the slides that keep every windowed value's rows at hand, and sizes the windows.
void AppendGroup(const Group& group, const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values,
                 const std::vector<bool>& pinned, Bands* bands) {
  const std::vector<Step> turns = TurnsOf(group, ops, values);
  const std::vector<bool> windowed = Windowed(group, ops, values, pinned);
  // From the last turn back: the first row of each value that this turn or a later one still touches.
  constexpr int32_t kNone = INT32_MAX;
  std::vector<int32_t> touched(values.size(), kNone);
  std::vector<std::vector<int32_t>> first(turns.size());  // by turn, of the value it writes
  for (size_t t = turns.size(); t-- > 0;) {
    const Op& op = *ops[turns[t].op];
    const int out = op.output;
    const int32_t begin = FirstTouched(values[out], turns[t].begin);
    const bool tidies = op.inputs[0] == out;
    // Tidying reaches a row further up.
    const int32_t written = tidies ? std::max(0, FirstTouched(values[out], begin) - 2) : begin;
    touched[out] = std::min(touched[out], written);
    for (size_t i = 0; i < op.inputs.size(); i++) {
      int32_t in_begin, in_end;
      if (op.inputs[i] < 0 || tidies || !op.InputRows(i, begin, turns[t].end, &in_begin, &in_end)) continue;
      touched[op.inputs[i]] = std::min(touched[op.inputs[i]], std::max(0, in_begin));
    }
    first[t] = {touched[out]};
  }
  std::vector<int32_t> base(values.size(), 0), filled(values.size(), 0);
  for (size_t t = 0; t < turns.size(); t++) {
    const Op& op = *ops[turns[t].op];
    const int out = op.output;
    if (windowed[out] && op.inputs[0] != out) {
      const int32_t wanted = first[t][0];
      if (wanted > base[out]) {
        bands->steps.push_back({-1, out, wanted, filled[out]});
        base[out] = wanted;
      }
      bands->window[out] = std::max(bands->window[out], turns[t].end - base[out]);
    }
    filled[out] = std::max(filled[out], turns[t].end);
    bands->steps.push_back(turns[t]);
  }
}

}  // namespace

Bands PlanBands(const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values,
                const std::vector<bool>& pinned, int num_threads) {
  Bands bands;
  bands.groups = FindGroups(ops, values);
  if (num_threads > 1) bands.groups = RunWhole(bands.groups, ops, values);
  bands.window.assign(values.size(), 0);
  for (const Group& group : bands.groups) {
    if (group.bands > 1) {
      AppendGroup(group, ops, values, pinned, &bands);
    } else {
      bands.steps.push_back({group.first, -1, 0, -1});
    }
  }
  return bands;
}

}  // namespace graph
}  // namespace block_sparse
