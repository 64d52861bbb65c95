#include "tflite_delegate/graph/bands.h"

#include <algorithm>
#include <cstdint>

#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace graph {

namespace {

constexpr int64_t kBytesPerWeightByte = 16;
// How much longer than an equal part of the group's rows, each made once, the longest share may be. Ops that run whole
// cost more than that: they read and write the last-level cache.
constexpr double kLongestShare = 1.3;

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

// Some more bands, if that makes all of them alike; best of as many rows as a depthwise kernel takes at a time.
int MakeAlike(int bands, int32_t height) {
  for (int32_t rows : {kernels::kDepthwiseRows, 1}) {
    for (int more = bands; more <= bands * 3 / 2; more++) {
      if (height % more == 0 && height / more % rows == 0) return more;
    }
  }
  return bands;
}

// Ops [first, last] and in how many bands they run; one op alone runs whole, in one.
struct Stretch {
  int first, last, bands;
};

class BandPlanner {
 public:
  BandPlanner(const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values,
              const std::vector<bool>& pinned, const BandLimits& limits)
      : ops_(ops), values_(values), pinned_(pinned), limits_(limits) {
    bands_.window.assign(values.size(), 0);
  }

  Bands Plan(int num_threads) {
    for (const Stretch& stretch : FindStretches()) {
      if (stretch.bands == 1) {
        AddWhole(stretch.first, stretch.last);
        continue;
      }
      const Turns whole = {TurnsOf(stretch, {0, Height(stretch.last), stretch.bands})};
      std::vector<std::vector<int32_t>> ends(stretch.last - stretch.first + 1);
      for (const Step& turn : whole[0]) ends[turn.op - stretch.first].push_back(turn.end);
      for (int i = stretch.first; i <= stretch.last; i++) ops_[i]->SetRuns(ends[i - stretch.first]);
      if (num_threads == 1) {
        AddShares(stretch, whole);
      } else {
        for (const Stretch& part : CutAtKept(stretch)) AddPart(part, num_threads);
      }
    }
    return std::move(bands_);
  }

 private:
  // Rows [begin, end) of a stretch's last output, in so many bands.
  struct Share {
    int32_t begin, end;
    int bands;
  };
  using Turns = std::vector<std::vector<Step>>;  // by share

  int32_t Height(int op) const { return values_[ops_[op]->output].height(); }
  // It only works on what its neighbour made.
  bool Tidies(int op) const { return ops_[op]->inputs[0] == ops_[op]->output; }

  bool Large(const Op& op, int64_t bytes) const {
    return bytes > 0 && bytes >= (op.ComputesLittle() ? limits_.large_little : limits_.large) &&
           static_cast<int64_t>(op.WeightBytes()) * kBytesPerWeightByte <= bytes;
  }

  int64_t LargestFootprint(int first, int last) const {
    int64_t largest = 0;
    for (int i = first; i <= last; i++) largest = std::max(largest, Footprint(*ops_[i], values_));
    return largest;
  }

  // Ops by ops that all are large, to the second that makes the image smaller: what follows has fewer rows and wants
  // larger bands.
  std::vector<Stretch> FindStretches() const {
    std::vector<Stretch> stretches;
    const int count = static_cast<int>(ops_.size());
    for (int first = 0; first < count;) {
      int last = first;
      bool shrunk = false;
      for (; last < count; last++) {
        const int64_t bytes = Footprint(*ops_[last], values_);
        const bool tidies = bytes > 0 && Tidies(last) && last > first;
        if (!tidies && (shrunk || !Large(*ops_[last], bytes))) break;
        shrunk = shrunk || (last > first && Height(last) < values_[ops_[last]->inputs[0]].height());
      }
      last = std::max(last - 1, first);
      stretches.push_back({first, last, BandsOf(first, last)});
      first = last + 1;
    }
    return stretches;
  }

  int BandsOf(int first, int last) const {
    if (first == last) return 1;
    const int64_t bands =
        std::min<int64_t>(Height(last), (LargestFootprint(first, last) + limits_.band - 1) / limits_.band);
    return MakeAlike(static_cast<int>(bands), Height(last));
  }

  // Parts whose values live inside of them, but for the last.
  std::vector<Stretch> CutAtKept(const Stretch& stretch) const {
    std::vector<Stretch> parts;
    const std::vector<bool> windowed = Windowed(stretch);
    for (int first = stretch.first, last = first; last <= stretch.last; last++) {
      if (last < stretch.last && windowed[ops_[last]->output]) continue;
      parts.push_back({first, last, BandsOf(first, last)});
      first = last + 1;
    }
    return parts;
  }

  // Nothing where that would cost more than it saves.
  Turns ShareOut(const Stretch& part, int num_threads) const {
    if (LargestFootprint(part.first, part.last) < limits_.shared) return {};
    const std::vector<bool> windowed = Windowed(part);
    for (int i = part.first; i < part.last; i++) {
      if (!windowed[ops_[i]->output]) return {};
    }
    const int32_t height = Height(part.last), rows = (height + part.bands - 1) / part.bands;
    double once = 0.0, longest = 0.0;
    for (int i = part.first; i <= part.last; i++) once += static_cast<double>(Footprint(*ops_[i], values_));
    Turns shares;
    for (int32_t t = 1, begin = 0; t <= num_threads; t++) {
      const int32_t end =
          t == num_threads ? height : CleanCut(part.last, static_cast<int64_t>(height) * t / num_threads);
      if (end <= begin) return {};
      shares.push_back(TurnsOf(part, {begin, end, (end - begin + rows - 1) / rows}));
      double cost = 0.0;
      for (const Step& turn : shares.back()) {
        cost += static_cast<double>(Footprint(*ops_[turn.op], values_)) * (turn.end - turn.begin) / Height(turn.op);
      }
      longest = std::max(longest, cost);
      begin = end;
    }
    return longest * num_threads <= kLongestShare * once ? shares : Turns();
  }

  // The nearest row where two shares of the op's output can meet; 0 if there is none.
  int32_t CleanCut(int op, int64_t row) const {
    const int32_t height = Height(op), middle = static_cast<int32_t>(row);
    for (int32_t away = 0; away < height; away++) {
      for (int32_t cut : {middle - away, middle + away}) {
        if (cut > 0 && cut < height && ops_[op]->MayCut(cut) &&
            ops_[op]->CutsClean(cut, values_[ops_[op]->output].planes)) {
          return cut;
        }
      }
    }
    return 0;
  }

  // The nearest row, in steps of `step`, where a run of the op may end and another begin.
  int32_t Cut(int op, int32_t row, int32_t step) const {
    const int32_t height = Height(op);
    while (row > 0 && row < height && !ops_[op]->MayCut(row)) row += step;
    return row;
  }

  // Turns of the ops of one share, each row once and after all that it needs.
  std::vector<Step> TurnsOf(const Stretch& stretch, const Share& share) const {
    std::vector<Step> turns;
    const int size = stretch.last - stretch.first + 1;
    std::vector<int32_t> done(size, 0), target(size);
    if (share.begin > 0) {
      constexpr int32_t kNone = INT32_MAX;
      std::vector<int32_t> from(values_.size(), kNone);
      from[ops_[stretch.last]->output] = share.begin;
      for (int j = size - 1; j >= 0; j--) {
        const Op& op = *ops_[stretch.first + j];
        const int32_t height = Height(stretch.first + j);
        done[j] = Cut(stretch.first + j, std::min(from[op.output], height), -1);
        for (size_t i = 0; i < op.inputs.size() && done[j] < height; i++) {
          int32_t begin, end;
          if (op.inputs[i] < 0 || !op.InputRows(i, done[j], height, &begin, &end)) continue;
          from[op.inputs[i]] = std::min(from[op.inputs[i]], begin);
        }
      }
    }
    std::vector<int32_t> needed(values_.size(), 0);  // rows of each value, from the top
    for (int band = 1; band <= share.bands; band++) {
      // The last op sets the pace; whatever nobody in the stretch asked for is completed in the last band.
      const bool complete = band == share.bands && share.end == Height(stretch.last);
      needed[ops_[stretch.last]->output] =
          share.begin + static_cast<int32_t>(static_cast<int64_t>(share.end - share.begin) * band / share.bands);
      for (int j = size - 1; j >= 0; j--) {
        const Op& op = *ops_[stretch.first + j];
        const int32_t height = Height(stretch.first + j), wanted = std::min(height, needed[op.output]);
        target[j] = complete ? height : std::max(done[j], Cut(stretch.first + j, wanted, 1));
        for (size_t i = 0; i < op.inputs.size() && target[j] > done[j]; i++) {
          int32_t begin, end;
          if (op.inputs[i] < 0 || !op.InputRows(i, 0, target[j], &begin, &end)) continue;
          needed[op.inputs[i]] = std::max(needed[op.inputs[i]], end);
        }
      }
      for (int j = 0; j < size; j++) {
        if (target[j] > done[j]) turns.push_back({stretch.first + j, -1, done[j], target[j]});
        done[j] = target[j];
      }
    }
    return turns;
  }

  // The first row that a turn from row `begin` on touches: an op may start at the beginning of a cache line.
  int32_t FirstTouched(const Value& value, int32_t begin) const {
    const int32_t pixel = begin * value.planes.row / kernels::kMaxLanes * kernels::kMaxLanes;
    return pixel / value.planes.row;
  }

  // Values that can have a window: made and read in this stretch alone, by ops that take planes of any size.
  std::vector<bool> Windowed(const Stretch& stretch) const {
    std::vector<bool> windowed(values_.size(), false);
    for (int i = stretch.first; i <= stretch.last; i++) windowed[ops_[i]->output] = !pinned_[ops_[i]->output];
    for (int i = 0; i < static_cast<int>(ops_.size()); i++) {
      const bool inside = i >= stretch.first && i <= stretch.last;
      for (size_t k = 0; k < ops_[i]->inputs.size(); k++) {
        const int v = ops_[i]->inputs[k];
        if (v < 0) continue;
        if (!inside) windowed[v] = false;
        // A residual and the output it is added to share one description of their planes.
        if (k > 0) windowed[v] = windowed[ops_[i]->output] = false;
      }
    }
    return windowed;
  }

  void AddPart(Stretch part, int num_threads) {
    // What tidies up after the op before the part, or after its last one, would do so in another share's rows.
    const int first = part.first, last = part.last;
    while (part.first < part.last && Tidies(part.first)) part.first++;
    while (part.first < part.last && Tidies(part.last)) part.last--;
    AddWhole(first, part.first - 1);
    const Turns shares = part.bands > 1 ? ShareOut(part, num_threads) : Turns();
    if (shares.empty()) {
      AddWhole(part.first, part.last);
    } else {
      AddShares(part, shares);
    }
    AddWhole(part.last + 1, last);
  }

  void AddWhole(int first, int last) {
    for (int i = first; i <= last; i++) bands_.groups.push_back({i, i, {{{i, -1, 0, -1}}}});
  }

  void AddShares(const Stretch& stretch, const Turns& shares) {
    const std::vector<bool> windowed = Windowed(stretch);
    Group group = {stretch.first, stretch.last, {}};
    for (const std::vector<Step>& turns : shares) group.shares.push_back(WithSlides(turns, windowed));
    bands_.groups.push_back(std::move(group));
  }

  // The turns with the slides that keep every windowed value's rows at hand. Sizes the windows.
  std::vector<Step> WithSlides(const std::vector<Step>& turns, const std::vector<bool>& windowed) {
    // From the last turn back: the first row of each value that this turn or a later one still touches.
    constexpr int32_t kNone = INT32_MAX;
    std::vector<int32_t> touched(values_.size(), kNone);
    std::vector<int32_t> first(turns.size());  // by turn, of the value it writes
    for (size_t t = turns.size(); t-- > 0;) {
      const Op& op = *ops_[turns[t].op];
      const int out = op.output;
      const int32_t begin = FirstTouched(values_[out], turns[t].begin);
      // Tidying reaches a row further up.
      const bool tidies = Tidies(turns[t].op);
      const int32_t written = tidies ? std::max(0, FirstTouched(values_[out], begin) - 2) : begin;
      touched[out] = std::min(touched[out], written);
      for (size_t i = 0; i < op.inputs.size(); i++) {
        int32_t in_begin, in_end;
        if (op.inputs[i] < 0 || tidies || !op.InputRows(i, begin, turns[t].end, &in_begin, &in_end)) continue;
        touched[op.inputs[i]] = std::min(touched[op.inputs[i]], std::max(0, in_begin));
      }
      first[t] = touched[out];
    }
    std::vector<Step> steps;
    std::vector<int32_t> base(values_.size(), 0), filled(values_.size(), 0);
    for (size_t t = 0; t < turns.size(); t++) {
      const int out = ops_[turns[t].op]->output;
      if (windowed[out] && !Tidies(turns[t].op)) {
        if (first[t] > base[out]) {
          steps.push_back({-1, out, first[t], filled[out]});
          base[out] = first[t];
        }
        bands_.window[out] = std::max(bands_.window[out], turns[t].end - base[out]);
      }
      filled[out] = std::max(filled[out], turns[t].end);
      steps.push_back(turns[t]);
    }
    return steps;
  }

  const std::vector<std::unique_ptr<Op>>& ops_;
  const std::vector<Value>& values_;
  const std::vector<bool>& pinned_;
  const BandLimits limits_;
  Bands bands_;
};

}  // namespace

Bands PlanBands(const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values,
                const std::vector<bool>& pinned, int num_threads, const BandLimits& limits) {
  return BandPlanner(ops, values, pinned, limits).Plan(num_threads);
}

}  // namespace graph
}  // namespace block_sparse
