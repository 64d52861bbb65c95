#include "tflite_delegate/graph/unread_pixels.h"

#include <algorithm>
#include <utility>

#include "tflite_delegate/graph/layout_ops.h"

namespace block_sparse {
namespace graph {

namespace {

class Thinner {
 public:
  Thinner(std::vector<std::unique_ptr<Op>>* ops, std::vector<Value>* values, const std::vector<int>& outputs)
      : ops_(*ops), values_(*values), outputs_(outputs), readers_(values->size()), picked_(values->size()) {}

  // From the last op to the first: one that took over a stride may read less itself.
  void Run() {
    for (const auto& op : ops_) {
      for (int v : op->inputs) {
        if (v >= 0) readers_[v].push_back(op.get());
      }
    }
    for (size_t i = ops_.size(); i-- > 0;) ThinOutput(ops_[i].get());
    std::vector<std::unique_ptr<Op>> all;
    for (std::unique_ptr<Op>& op : ops_) {
      const int made = op->output;
      all.push_back(std::move(op));
      for (const Picked& picked : picked_[made]) all.push_back(MakePick(made, picked.value, picked.pixels));
    }
    ops_ = std::move(all);
  }

 private:
  // Some of a value's pixels, as another value.
  struct Picked {
    Pixels pixels;
    int value;
  };

  void ThinOutput(Op* op) {
    const int whole = op->output;
    if (values_[whole].layout != Layout::kPlanar) return;
    if (MakeOnlyWhatIsRead(op)) return;
    const std::vector<Op*> readers = readers_[whole];
    for (Op* reader : readers) {
      const Pixels pixels = reader->Reads(whole);
      if (!Thins(whole, pixels)) continue;
      reader->ReadAll();
      Replace(reader, 0, Pick(whole, pixels));
    }
  }

  bool MakeOnlyWhatIsRead(Op* op) {
    const int whole = op->output;
    const std::vector<Op*> readers = readers_[whole];
    const std::vector<Picked> picked = picked_[whole];
    if (readers.empty() && picked.empty()) return false;
    if (std::find(outputs_.begin(), outputs_.end(), whole) != outputs_.end()) return false;
    const Pixels pixels = picked.empty() ? readers[0]->Reads(whole) : picked[0].pixels;
    const bool alike =
        std::all_of(readers.begin(), readers.end(), [&](const Op* r) { return r->Reads(whole) == pixels; }) &&
        std::all_of(picked.begin(), picked.end(), [&](const Picked& p) { return p.pixels == pixels; });
    if (!alike || !Thins(whole, pixels) || !op->MakeOnly(pixels)) return false;
    op->output = Pick(whole, pixels);
    picked_[whole].clear();
    for (Op* reader : readers) {
      reader->ReadAll();
      Replace(reader, 0, op->output);
    }
    for (size_t k = 1; k < op->inputs.size(); k++) {
      if (op->inputs[k] >= 0) Replace(op, k, Pick(op->inputs[k], pixels));
    }
    return true;
  }

  // An image of one pixel would have another layout.
  bool Thins(int value, const Pixels& pixels) const {
    const Value& image = values_[value];
    return !(pixels == Pixels()) && (image.height() > pixels.down || image.width() > pixels.across);
  }

  void Replace(Op* reader, size_t input, int value) {
    std::vector<Op*>& readers = readers_[reader->inputs[input]];
    readers.erase(std::find(readers.begin(), readers.end(), reader));
    reader->inputs[input] = value;
    readers_[value].push_back(reader);
  }

  int Pick(int value, const Pixels& pixels) {
    for (const Picked& picked : picked_[value]) {
      if (picked.pixels == pixels) return picked.value;
    }
    Value thin;
    thin.layout = Layout::kPlanar;
    thin.dims = values_[value].dims;
    thin.dims[1] = (thin.dims[1] + pixels.down - 1) / pixels.down;
    thin.dims[2] = (thin.dims[2] + pixels.across - 1) / pixels.across;
    const int id = static_cast<int>(values_.size());
    values_.push_back(std::move(thin));
    readers_.emplace_back();
    picked_.emplace_back();
    picked_[value].push_back({pixels, id});
    return id;
  }

  std::vector<std::unique_ptr<Op>>& ops_;
  std::vector<Value>& values_;
  const std::vector<int>& outputs_;
  std::vector<std::vector<Op*>> readers_;    // by value, but for those that pick; twice if it is read twice
  std::vector<std::vector<Picked>> picked_;  // by value
};

}  // namespace

void SkipUnreadPixels(std::vector<std::unique_ptr<Op>>* ops, std::vector<Value>* values,
                      const std::vector<int>& outputs) {
  Thinner(ops, values, outputs).Run();
}

}  // namespace graph
}  // namespace block_sparse
