#include "tflite_delegate/graph/tuning.h"

#include <algorithm>
#include <cstddef>

namespace block_sparse {
namespace graph {

namespace {

// Far more than any op has, and few enough for an op to take any of them.
constexpr int kMaxTiling = 99;

}  // namespace

Tuning::Tuning(const std::string& machine, const std::string& text) : machine_(" on " + machine) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    int tiling = 0;
    size_t at = begin;
    for (; at < end && text[at] >= '0' && text[at] <= '9' && tiling <= kMaxTiling; at++) {
      tiling = tiling * 10 + (text[at] - '0');
    }
    if (at > begin && at + 1 < end && text[at] == ' ' && tiling <= kMaxTiling) {
      tilings_[text.substr(at + 1, end - at - 1)] = tiling;
    }
    begin = end + 1;
  }
}

int Tuning::Find(const std::string& kind) const {
  const auto found = tilings_.find(kind + machine_);
  return found == tilings_.end() ? -1 : found->second;
}

void Tuning::Set(const std::string& kind, int tiling) { tilings_[kind + machine_] = tiling; }

std::string Tuning::Text() const {
  std::string text;
  for (const auto& [name, tiling] : tilings_) text += std::to_string(tiling) + " " + name + "\n";
  return text;
}

}  // namespace graph
}  // namespace block_sparse
