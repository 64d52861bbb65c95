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
      : ops_(*ops), values_(*values), outputs_(outputs) {}

  // From the last op to the first: one that took over a stride may read less itself.
  void Run() {
    for (size_t i = ops_.size(); i-- > 0;) ThinOutput(ops_[i].get());
    if (picked_.empty()) return;
    std::vector<std::unique_ptr<Op>> all;
    for (std::unique_ptr<Op>& op : ops_) {
      const int made = op->output;
      all.push_back(std::move(op));
      for (const Picked& picked : picked_) {
        if (picked.from == made) all.push_back(MakePick(made, picked.value, picked.pixels));
      }
    }
    ops_ = std::move(all);
  }

 private:
  // Some of a value's pixels, as another value.
  struct Picked {
    int from, value;
    Pixels pixels;
  };

  void ThinOutput(Op* op) {
    const int whole = op->output;
    if (values_[whole].layout != Layout::kPlanar) return;
    const Pixels read = AllRead(whole);
    const bool made = Thins(whole, read) && op->MakeOnly(read);
    for (const auto& reader : ops_) {
      if (reader->inputs.empty() || reader->inputs[0] != whole) continue;
      const Pixels pixels = reader->Reads(whole);
      if (!Thins(whole, pixels)) continue;
      reader->inputs[0] = Pick(whole, pixels);
      reader->ReadAll();
    }
    if (!made) return;
    op->output = Pick(whole, read);
    for (size_t k = 1; k < op->inputs.size(); k++) {
      if (op->inputs[k] >= 0) op->inputs[k] = Pick(op->inputs[k], read);
    }
    picked_.erase(std::find_if(picked_.begin(), picked_.end(), [&](const Picked& p) { return p.from == whole; }));
  }

  // The pixels that all readers read, if these are the same; else all.
  Pixels AllRead(int value) const {
    if (std::find(outputs_.begin(), outputs_.end(), value) != outputs_.end()) return {};
    Pixels all;
    bool any = false;
    const auto add = [&](const Pixels& pixels) {
      all = !any || all == pixels ? pixels : Pixels();
      any = true;
    };
    for (const auto& op : ops_) {
      for (int v : op->inputs) {
        if (v == value) add(op->Reads(value));
      }
    }
    for (const Picked& picked : picked_) {
      if (picked.from == value) add(picked.pixels);
    }
    return all;
  }

  // An image of one pixel would have another layout.
  bool Thins(int value, const Pixels& pixels) const {
    const Value& image = values_[value];
    return !(pixels == Pixels()) && (image.height() > pixels.down || image.width() > pixels.across);
  }

  int Pick(int value, const Pixels& pixels) {
    for (const Picked& picked : picked_) {
      if (picked.from == value && picked.pixels == pixels) return picked.value;
    }
    Value thin;
    thin.layout = Layout::kPlanar;
    thin.dims = values_[value].dims;
    thin.dims[1] = (thin.dims[1] + pixels.down - 1) / pixels.down;
    thin.dims[2] = (thin.dims[2] + pixels.across - 1) / pixels.across;
    const int id = static_cast<int>(values_.size());
    values_.push_back(std::move(thin));
    picked_.push_back({value, id, pixels});
    return id;
  }

  std::vector<std::unique_ptr<Op>>& ops_;
  std::vector<Value>& values_;
  const std::vector<int>& outputs_;
  std::vector<Picked> picked_;
};

}  // namespace

void SkipUnreadPixels(std::vector<std::unique_ptr<Op>>* ops, std::vector<Value>* values,
                      const std::vector<int>& outputs) {
  Thinner(ops, values, outputs).Run();
}

}  // namespace graph
}  // namespace block_sparse
