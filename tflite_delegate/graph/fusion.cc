#include "tflite_delegate/graph/fusion.h"

#include <algorithm>
#include <utility>

namespace block_sparse {
namespace graph {

namespace {

class Fuser {
 public:
  Fuser(std::vector<std::unique_ptr<Op>>* ops, size_t value_count, const std::vector<int>& outputs)
      : ops_(*ops), value_count_(value_count), outputs_(outputs) {}

  void Run() {
    Count();
    for (size_t i = 0; i < ops_.size(); i++) {
      if (ops_[i] != nullptr) FusePads(i);
    }
    Count();
    for (size_t i = 0; i < ops_.size(); i++) {
      if (ops_[i] != nullptr) FuseIntoProducer(i);
    }
    ops_.erase(std::remove(ops_.begin(), ops_.end(), nullptr), ops_.end());
  }

 private:
  void Count() {
    uses_.assign(value_count_, 0);
    producer_.assign(value_count_, -1);
    for (size_t i = 0; i < ops_.size(); i++) {
      if (ops_[i] == nullptr) continue;
      for (int v : ops_[i]->inputs) {
        if (v >= 0) uses_[v]++;
      }
      producer_[ops_[i]->output] = static_cast<int>(i);
    }
    for (int v : outputs_) uses_[v]++;
  }

  // A pad whose every consumer takes it over disappears; otherwise those that can read around it and it stays.
  void FusePads(size_t i) {
    Op& consumer = *ops_[i];
    if (consumer.inputs.empty() || consumer.inputs[0] < 0) return;
    const int pad = producer_[consumer.inputs[0]];
    Border border;
    if (pad < 0 || ops_[pad] == nullptr || !ops_[pad]->IsZeroPad(&border) || !consumer.FuseZeroPad(border)) return;
    const int padded = consumer.inputs[0];
    consumer.inputs[0] = ops_[pad]->inputs[0];
    if (--uses_[padded] == 0) ops_[pad] = nullptr;
  }

  void FuseIntoProducer(size_t i) {
    float low, high;
    int shift;
    if (ops_[i]->IsClamp(&low, &high)) {
      const int from = Producer(ops_[i]->inputs[0]);
      if (from >= 0 && ops_[from]->FuseClamp(low, high)) Replace(i, from);
    } else if (const int shifted = ops_[i]->ShiftsInput(&shift, &low, &high); shifted >= 0) {
      const int from = Producer(ops_[i]->inputs[shifted]);
      if (from >= 0 && ops_[from]->FuseShift(shift, low, high)) Replace(i, from);
    } else if (ops_[i]->IsAdd(&low, &high)) {
      // Into the later of the two producers, where the other operand is there already.
      int a = ops_[i]->inputs[0], b = ops_[i]->inputs[1];
      if (a == b) return;
      if (producer_[a] > producer_[b]) std::swap(a, b);
      if (TryResidual(i, b, a)) return;
      TryResidual(i, a, b);
    }
  }

  bool TryResidual(size_t add, int produced, int residual) {
    float low, high;
    ops_[add]->IsAdd(&low, &high);
    const int from = Producer(produced);
    if (from < 0 || !ops_[from]->FuseResidual(residual, low, high)) return false;
    Replace(add, from);
    return true;
  }

  // The op that produces `value` if nobody else reads it.
  int Producer(int value) const {
    const int from = producer_[value];
    return from >= 0 && ops_[from] != nullptr && uses_[value] == 1 ? from : -1;
  }

  // Op `from`, changed to produce what op `i` did, takes its place: all that it reads is there by then.
  void Replace(size_t i, int from) {
    ops_[from]->output = ops_[i]->output;
    ops_[i] = std::move(ops_[from]);
    producer_[ops_[i]->output] = static_cast<int>(i);
  }

  std::vector<std::unique_ptr<Op>>& ops_;
  size_t value_count_;
  const std::vector<int>& outputs_;
  std::vector<int> uses_, producer_;
};

}  // namespace

void Fuse(std::vector<std::unique_ptr<Op>>* ops, size_t value_count, const std::vector<int>& outputs) {
  Fuser(ops, value_count, outputs).Run();
}

}  // namespace graph
}  // namespace block_sparse
