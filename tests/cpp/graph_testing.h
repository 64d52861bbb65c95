// Ops of the internal graph that are as simple as can be, for tests of the graph itself, and whole tensors to compute
// the same in without a graph.
//
// The ops use every liberty that op.h and value.h grant: they leave NaN between the rows of what they write, past its
// last row up to a whole vector, and in their scratch memory.
#ifndef TESTS_CPP_GRAPH_TESTING_H_
#define TESTS_CPP_GRAPH_TESTING_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/kernel_testing.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/graph/planner.h"
#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/graph/value.h"

namespace block_sparse {
namespace testing {

using graph::Border;
using graph::Dims;

// NHWC, without gaps.
struct Tensor {
  Dims dims;
  std::vector<float> data;

  Tensor() = default;
  explicit Tensor(Dims d) : dims(std::move(d)), data(static_cast<size_t>(graph::Count(dims)), 0.0f) {}
  Tensor(Dims d, Random* random) : Tensor(std::move(d)) { data = random->Floats(data.size()); }

  size_t Index(int32_t n, int32_t y, int32_t x, int32_t c) const {
    return ((static_cast<size_t>(n) * dims[1] + y) * dims[2] + x) * dims[3] + c;
  }
  float& At(int32_t n, int32_t y, int32_t x, int32_t c) { return data[Index(n, y, x, c)]; }
  float At(int32_t n, int32_t y, int32_t x, int32_t c) const { return data[Index(n, y, x, c)]; }
};

// A value in the memory of a run.
class View {
 public:
  View(const graph::Value& value, float* data) : value_(value), data_(data) {}

  float& At(int32_t n, int32_t y, int32_t x, int32_t c) const {
    const graph::Planes& planes = value_.planes;
    if (value_.layout == graph::Layout::kInterleaved) {
      return data_[((static_cast<int64_t>(n) * value_.dims[1] + y) * value_.dims[2] + x) * value_.dims[3] + c];
    }
    return data_[n * planes.batch + static_cast<int64_t>(c) * planes.plane + planes.origin +
                 static_cast<int64_t>(y) * planes.row + x];
  }

  template <class Body>
  void ForEach(const Body& body) const {
    for (int32_t n = 0; n < value_.dims[0]; n++) {
      for (int32_t y = 0; y < value_.dims[1]; y++) {
        for (int32_t x = 0; x < value_.dims[2]; x++) {
          for (int32_t c = 0; c < value_.dims[3]; c++) body(n, y, x, c);
        }
      }
    }
  }

  // NaN wherever an op that writes channels [first, last) may leave anything.
  void PoisonGaps(int32_t first, int32_t last) const {
    if (value_.layout != graph::Layout::kPlanar) return;
    const graph::Planes& planes = value_.planes;
    const int32_t run = value_.run();
    const int32_t end = (run + kernels::kMaxLanes - 1) / kernels::kMaxLanes * kernels::kMaxLanes;
    for (int32_t n = 0; n < value_.batch(); n++) {
      for (int32_t c = first; c < last; c++) {
        float* pixels = data_ + n * planes.batch + static_cast<int64_t>(c) * planes.plane + planes.origin;
        for (int32_t i = 0; i < end; i++) {
          if (i >= run || i % planes.row >= value_.width()) pixels[i] = kNan;
        }
      }
    }
  }

  // The floats that belong to the value, an image of a batch after the other: those between the images of a part of a
  // concatenation are other parts'.
  std::vector<std::pair<const float*, const float*>> Extents() const {
    if (value_.layout == graph::Layout::kInterleaved) return {{data_, data_ + graph::Count(value_.dims)}};
    std::vector<std::pair<const float*, const float*>> extents;
    for (int32_t n = 0; n < value_.batch(); n++) {
      const float* begin = data_ + n * value_.planes.batch;
      extents.push_back({begin, begin + static_cast<int64_t>(value_.channels()) * value_.planes.plane});
    }
    return extents;
  }

  const graph::Value& value() const { return value_; }

 private:
  const graph::Value& value_;
  float* data_;
};

// What the ops of one graph did and saw, in the order they ran.
struct Trace {
  struct Access {
    const graph::Op* op;
    int value;  // -1: scratch
    const float *begin, *end;
  };
  std::vector<Access> accesses;
  std::vector<const graph::Op*> ran;
};

class TestOp : public graph::Op {
 public:
  TestOp(std::vector<int> op_inputs, int op_output, Trace* trace)
      : Op(std::move(op_inputs), op_output), trace_(trace) {}

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable&, int) override {
    for (int v : inputs) input_values_.push_back(v >= 0 ? graph.value(v) : graph::Value());
    output_value_ = graph.value(output);
    return true;
  }
  size_t ScratchFloats() const override { return scratch_floats; }

  void Run(const graph::RunContext& context) const override {
    if (scratch_floats > 0) std::fill(context.scratch, context.scratch + scratch_floats, kNan);
    if (trace_ != nullptr) {
      trace_->ran.push_back(this);
      for (size_t i = 0; i < inputs.size(); i++) {
        if (inputs[i] >= 0) Record(inputs[i], View(input_values_[i], context.data[inputs[i]]).Extents());
      }
      Record(output, View(output_value_, context.data[output]).Extents());
      if (scratch_floats > 0) Record(-1, {{context.scratch, context.scratch + scratch_floats}});
    }
    Compute(context);
  }

  size_t scratch_floats = 0;

 protected:
  // Followed by PoisonGaps of what it wrote.
  virtual void Compute(const graph::RunContext& context) const = 0;
  View Input(const graph::RunContext& context, size_t i) const {
    return View(input_values_[i], context.data[inputs[i]]);
  }
  View Output(const graph::RunContext& context) const { return View(output_value_, context.data[output]); }
  const graph::Value& input_value(size_t i) const { return input_values_[i]; }

 private:
  void Record(int value, const std::vector<std::pair<const float*, const float*>>& extents) const {
    for (const auto& [begin, end] : extents) trace_->accesses.push_back({this, value, begin, end});
  }

  Trace* trace_;
  std::vector<graph::Value> input_values_;
  graph::Value output_value_;
};

// Adds and subtracts all inputs, pixel by pixel. All have the output's shape; layouts may differ.
class MixOp : public TestOp {
 public:
  MixOp(std::vector<int> op_inputs, int op_output, int in_place = -1, Trace* trace = nullptr)
      : TestOp(std::move(op_inputs), op_output, trace), in_place_(in_place) {}
  const char* name() const override { return "mix"; }
  void Constrain(graph::Planner* planner) override {
    for (int v : inputs) planner->SamePlanes(v, output);
  }
  int InPlaceInput() const override { return in_place_; }

  static float Mix(size_t i, float sum, float value) { return (i % 2 == 0 ? sum - value : sum + value) * 0.75f; }
  static Tensor Exact(const std::vector<const Tensor*>& in) {
    Tensor out(in[0]->dims);
    for (size_t p = 0; p < out.data.size(); p++) {
      for (size_t i = 0; i < in.size(); i++) out.data[p] = Mix(i, i == 0 ? 1.0f : out.data[p], in[i]->data[p]);
    }
    return out;
  }

 protected:
  void Compute(const graph::RunContext& context) const override {
    const View out = Output(context);
    out.ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) {
      float sum = 1.0f;
      for (size_t i = 0; i < inputs.size(); i++) sum = Mix(i, sum, Input(context, i).At(n, y, x, c));
      out.At(n, y, x, c) = sum;
    });
    out.PoisonGaps(0, out.value().dims[3]);
  }

 private:
  int in_place_;
};

// Sums the pixels around each pixel: `border` of them on each side, zeros outside the image, which it reads from
// memory. Both values are planar.
class WindowOp : public TestOp {
 public:
  WindowOp(int input, int op_output, const Border& border, Trace* trace = nullptr)
      : TestOp({input}, op_output, trace), border_(border) {}
  const char* name() const override { return "window"; }
  void Constrain(graph::Planner* planner) override {
    planner->SamePlanes(inputs[0], output);
    planner->ZeroBorder(inputs[0], border_);
  }

  static float Weight(int32_t dy, int32_t dx) {
    return 0.125f * static_cast<float>(dy) - 0.25f * static_cast<float>(dx) + 0.5f;
  }
  static Tensor Exact(const Tensor& in, const Border& border) {
    Tensor out(in.dims);
    View(AsValue(out), out.data.data()).ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) {
      float sum = 0.0f;
      for (int32_t dy = -border.top; dy <= border.bottom; dy++) {
        for (int32_t dx = -border.left; dx <= border.right; dx++) {
          const bool inside = y + dy >= 0 && y + dy < in.dims[1] && x + dx >= 0 && x + dx < in.dims[2];
          sum += Weight(dy, dx) * (inside ? in.At(n, y + dy, x + dx, c) : 0.0f);
        }
      }
      out.At(n, y, x, c) = sum;
    });
    return out;
  }
  static graph::Value AsValue(const Tensor& tensor) {
    graph::Value value;
    value.dims = tensor.dims;
    return value;
  }

 protected:
  void Compute(const graph::RunContext& context) const override {
    const View in = Input(context, 0), out = Output(context);
    out.ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) {
      float sum = 0.0f;
      for (int32_t dy = -border_.top; dy <= border_.bottom; dy++) {
        for (int32_t dx = -border_.left; dx <= border_.right; dx++) sum += Weight(dy, dx) * in.At(n, y + dy, x + dx, c);
      }
      out.At(n, y, x, c) = sum;
    });
    out.PoisonGaps(0, out.value().dims[3]);
  }

 private:
  Border border_;
};

// An image of another size, its pixels taken from the input in turn. Wants rows of at least `min_row`.
class ResampleOp : public TestOp {
 public:
  ResampleOp(int input, int op_output, int32_t min_row, Trace* trace = nullptr)
      : TestOp({input}, op_output, trace), min_row_(min_row) {}
  const char* name() const override { return "resample"; }
  void Constrain(graph::Planner* planner) override { planner->MinRow(output, min_row_); }

  static Tensor Exact(const Tensor& in, const Dims& dims) {
    Tensor out(dims);
    View(WindowOp::AsValue(out), out.data.data()).ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) {
      out.At(n, y, x, c) = in.At(n, y % in.dims[1], x % in.dims[2], c % in.dims[3]);
    });
    return out;
  }

 protected:
  void Compute(const graph::RunContext& context) const override {
    const View in = Input(context, 0), out = Output(context);
    const Dims& from = in.value().dims;
    out.ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) {
      out.At(n, y, x, c) = in.At(n, y % from[1], x % from[2], c % from[3]);
    });
    out.PoisonGaps(0, out.value().dims[3]);
  }

 private:
  int32_t min_row_;
};

// All inputs one after the other along the channels; those already in their place are left alone, with the zeros around
// them that others may still want.
class ConcatenationOp : public TestOp {
 public:
  ConcatenationOp(std::vector<int> op_inputs, int op_output, Trace* trace = nullptr)
      : TestOp(std::move(op_inputs), op_output, trace) {}
  const char* name() const override { return "concatenation"; }
  bool ConcatenatesChannels() const override { return true; }
  void Constrain(graph::Planner* planner) override {
    for (int v : inputs) planner->SamePlanes(v, output);
  }

  static Tensor Exact(const std::vector<const Tensor*>& in) {
    Dims dims = in[0]->dims;
    dims[3] = 0;
    for (const Tensor* t : in) dims[3] += t->dims[3];
    Tensor out(dims);
    int32_t first = 0;
    for (const Tensor* t : in) {
      View(WindowOp::AsValue(*t), nullptr).ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) {
        out.At(n, y, x, first + c) = t->At(n, y, x, c);
      });
      first += t->dims[3];
    }
    return out;
  }

  mutable int copied = 0;  // inputs that were not in their place

 protected:
  void Compute(const graph::RunContext& context) const override {
    const View out = Output(context);
    int32_t first = 0;
    for (size_t i = 0; i < inputs.size(); i++) {
      const View in = Input(context, i);
      if (&in.At(0, 0, 0, 0) != &out.At(0, 0, 0, first)) {
        copied++;
        in.ForEach([&](int32_t n, int32_t y, int32_t x, int32_t c) { out.At(n, y, x, first + c) = in.At(n, y, x, c); });
        out.PoisonGaps(first, first + input_value(i).dims[3]);
      }
      first += input_value(i).dims[3];
    }
  }
};

// Runs a prepared graph twice: first with NaN for inputs, so that whatever memory holds afterwards would show in the
// second run, which counts. Each run has its own memory for inputs and outputs.
inline std::vector<Tensor> RunTwice(graph::Graph* graph, const std::vector<const Tensor*>& inputs,
                                    const std::vector<Dims>& output_dims, int threads) {
  graph::ThreadPool pool(threads);
  std::vector<Tensor> outputs;
  for (int run = 0; run < 2; run++) {
    std::vector<std::vector<float>> in;
    std::vector<const float*> in_data;
    std::vector<float*> out_data;
    outputs.clear();
    for (const Tensor* t : inputs) {
      in.push_back(run == 0 ? std::vector<float>(t->data.size(), kNan) : t->data);
      in_data.push_back(in.back().data());
    }
    for (const Dims& dims : output_dims) {
      outputs.emplace_back(dims);
      std::fill(outputs.back().data.begin(), outputs.back().data.end(), kNan);
    }
    for (Tensor& t : outputs) out_data.push_back(t.data.data());
    graph->Run(in_data.data(), out_data.data(), &pool);
    for (size_t i = 0; i < in.size(); i++) {
      if (run == 1) {
        EXPECT_TRUE(SameBits(in[i], inputs[i]->data)) << "input " << i << " was written to";
      }
    }
  }
  return outputs;
}

}  // namespace testing
}  // namespace block_sparse

#endif  // TESTS_CPP_GRAPH_TESTING_H_
