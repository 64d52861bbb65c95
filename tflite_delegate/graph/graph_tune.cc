// Which tiling of each op is the fastest, by running the graph with all of them.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tflite_delegate/graph/graph.h"

namespace block_sparse {
namespace graph {

bool Graph::NeedsTuning() const {
  return std::any_of(to_tune_.begin(), to_tune_.end(), [](const std::string& kind) { return !kind.empty(); });
}

bool Graph::Tune(const kernels::KernelTable& kernels, ThreadPool* pool, Tuning* tuning, std::string* error) {
  // The first is left only for what is faster by more than two measurements of one tiling differ.
  constexpr double kGain = 0.97;
  constexpr int kRounds = 4, kRuns = 3;
  struct Kind {
    std::vector<size_t> ops;
    std::vector<int64_t> time;  // by tiling: the sum of its ops' shortest
  };
  std::map<std::string, Kind> kinds;
  std::vector<std::vector<int64_t>> shortest(ops_.size());
  size_t most = 0;
  for (size_t i = 0; i < ops_.size(); i++) {
    if (to_tune_[i].empty()) continue;
    const size_t tilings = static_cast<size_t>(ops_[i]->Tilings());
    Kind& kind = kinds[to_tune_[i]];
    kind.ops.push_back(i);
    kind.time.assign(tilings, 0);
    shortest[i].assign(tilings, INT64_MAX);
    most = std::max(most, tilings);
  }
  to_tune_.assign(ops_.size(), "");

  std::vector<std::vector<float>> memory;
  std::vector<const float*> inputs;
  std::vector<float*> outputs;
  for (int v : inputs_) memory.emplace_back(Floats(v));
  for (int v : outputs_) memory.emplace_back(Floats(v));
  for (size_t i = 0; i < memory.size(); i++) {
    if (i < inputs_.size()) {
      inputs.push_back(memory[i].data());
    } else {
      outputs.push_back(memory[i].data());
    }
  }
  for (int round = 0; round < kRounds; round++) {
    for (size_t tiling = 0; tiling < most; tiling++) {
      for (size_t i = 0; i < ops_.size(); i++) {
        if (tiling >= shortest[i].size()) continue;
        ops_[i]->SetTiling(static_cast<int>(tiling), true);
        if (!PrepareOp(ops_[i].get(), kernels, pool->threads(), error)) return false;
      }
      for (int run = 0; run <= kRuns; run++) {
        EnableProfile(true);
        Run(inputs.data(), outputs.data(), pool);
        for (size_t i = 0; i < ops_.size() && run > 0; i++) {  // the first touches what was packed
          if (tiling < shortest[i].size())
            shortest[i][tiling] = std::min(shortest[i][tiling], Nanoseconds(static_cast<int>(i)));
        }
      }
    }
  }
  EnableProfile(false);
  for (auto& [name, kind] : kinds) {
    for (size_t i : kind.ops) {
      for (size_t tiling = 0; tiling < kind.time.size(); tiling++) kind.time[tiling] += shortest[i][tiling];
    }
    auto best = std::min_element(kind.time.begin(), kind.time.end());
    if (static_cast<double>(*best) > kGain * static_cast<double>(kind.time[0])) best = kind.time.begin();
    const int tiling = static_cast<int>(best - kind.time.begin());
    tuning->Set(name, tiling);
    for (size_t i : kind.ops) {
      ops_[i]->SetTiling(tiling, false);
      if (!PrepareOp(ops_[i].get(), kernels, pool->threads(), error)) return false;
    }
  }
  return true;
}

}  // namespace graph
}  // namespace block_sparse
