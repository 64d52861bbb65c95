// One node of the runtime's graph without a runtime: claimed, built into a graph of its own, and run.
#ifndef TESTS_CPP_NODE_TESTING_H_
#define TESTS_CPP_NODE_TESTING_H_

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/guarded.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace testing {

class NodeTester {
 public:
  explicit NodeTester(int builtin_code) { registration_.builtin_code = builtin_code; }
  explicit NodeTester(const char* custom_name) : NodeTester(kTfLiteBuiltinCustom) {
    registration_.custom_name = custom_name;
  }

  // Inputs of the node, in order.
  NodeTester& Input(const graph::Dims& dims, const std::vector<float>& values) {
    return Add(dims, kTfLiteFloat32, values.data(), values.size() * sizeof(float), false);
  }
  NodeTester& Constant(const graph::Dims& dims, const std::vector<float>& values) {
    return Add(dims, kTfLiteFloat32, values.data(), values.size() * sizeof(float), true);
  }
  NodeTester& Constant(const graph::Dims& dims, const std::vector<int32_t>& values) {
    return Add(dims, kTfLiteInt32, values.data(), values.size() * sizeof(int32_t), true);
  }
  NodeTester& Absent() {
    inputs_.push_back(-1);
    return *this;
  }
  template <class Struct>
  NodeTester& Params(const Struct& params) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&params);
    params_.assign(bytes, bytes + sizeof(params));
    return *this;
  }
  NodeTester& CustomOptions(std::vector<uint8_t> options) {
    options_ = std::move(options);
    return *this;
  }
  // How many outputs the node has; one if nothing is said.
  NodeTester& Outputs(size_t count) {
    output_count_ = count;
    return *this;
  }
  // The inputs that are images reach the op planar, as from another op of the stretch.
  NodeTester& Planar(bool planar) {
    planar_ = planar;
    return *this;
  }

  // The reason why the node is not claimed, or "".
  std::string Claim() {
    Prepare();
    const ops::OpRegistration* op = ops::FindOp(*view_);
    return op == nullptr ? "no op is registered for it" : op->claim(*view_);
  }

  // What went wrong, or "". The results are then in output() and output_dims().
  std::string Run(const kernels::KernelTable& kernels, int threads) {
    std::string error = Claim();
    if (!error.empty()) return "not claimed: " + error;
    graph::Graph graph;
    std::vector<int> values(tensors_.size(), -1);
    std::vector<const float*> data;
    const size_t first_output = tensors_.size() - output_count_;
    for (size_t t = 0; t < first_output; t++) {
      if (tensors_[t].constant) continue;
      values[t] = graph.AddInput(tensors_[t].dims);
      if (planar_) values[t] = graph.Planar(values[t]);
      data.push_back(reinterpret_cast<const float*>(tensors_[t].bytes->data()));
    }
    ops::Builder builder(&graph, &values);
    error = ops::FindOp(*view_)->build(*view_, &builder);
    if (!error.empty()) return error;
    output_dims_.clear();
    for (size_t t = first_output; t < tensors_.size(); t++) {
      output_dims_.push_back(graph.value(values[t]).dims);
      graph.AddOutput(values[t]);
    }
    if (!graph.Prepare(kernels, threads, &error)) return error;
    std::vector<std::unique_ptr<Guarded<float>>> outputs;
    std::vector<float*> to;
    for (const graph::Dims& dims : output_dims_) {
      outputs.push_back(std::make_unique<Guarded<float>>(static_cast<size_t>(graph::Count(dims))));
      to.push_back(outputs.back()->data());
    }
    graph::ThreadPool pool(threads);
    // Twice, so that what the first run leaves in memory would show.
    graph.Run(data.data(), to.data(), &pool);
    for (auto& output : outputs) {
      for (size_t i = 0; i < output->size(); i++) (*output)[i] = 1e30f;
    }
    graph.Run(data.data(), to.data(), &pool);
    output_.clear();
    for (auto& output : outputs) {
      output->ExpectCanaries();
      output_.emplace_back(output->data(), output->data() + output->size());
    }
    return "";
  }

  const std::vector<float>& output(size_t i = 0) const { return output_[i]; }
  const graph::Dims& output_dims(size_t i = 0) const { return output_dims_[i]; }

 private:
  struct Tensor {
    graph::Dims dims;
    TfLiteType type;
    std::unique_ptr<Guarded<uint8_t>> bytes;
    bool constant;
  };
  struct Free {
    void operator()(void* p) const { free(p); }
  };
  using IntArray = std::unique_ptr<TfLiteIntArray, Free>;

  NodeTester& Add(const graph::Dims& dims, TfLiteType type, const void* data, size_t bytes, bool constant) {
    auto copy = std::make_unique<Guarded<uint8_t>>(bytes);
    if (bytes > 0) memcpy(copy->data(), data, bytes);
    inputs_.push_back(static_cast<int>(tensors_.size()));
    tensors_.push_back({dims, type, std::move(copy), constant});
    return *this;
  }

  TfLiteIntArray* MakeIntArray(const std::vector<int>& values) {
    auto* array = static_cast<TfLiteIntArray*>(malloc(sizeof(TfLiteIntArray) + values.size() * sizeof(int)));
    array->size = static_cast<int>(values.size());
    if (!values.empty()) memcpy(array->data, values.data(), values.size() * sizeof(int));
    arrays_.emplace_back(array);
    return array;
  }

  void Prepare() {
    if (view_ != nullptr) return;
    std::vector<int> outputs;
    for (size_t i = 0; i < output_count_; i++) {
      outputs.push_back(static_cast<int>(tensors_.size()));
      tensors_.push_back({{1}, kTfLiteFloat32, std::make_unique<Guarded<uint8_t>>(4), false});
    }
    for (const Tensor& t : tensors_) {
      TfLiteTensor tensor = {};
      tensor.type = t.type;
      tensor.dims = MakeIntArray(t.dims);
      tensor.allocation_type = t.constant ? kTfLiteMmapRo : kTfLiteArenaRw;
      tensor.bytes = t.bytes->size();
      tensor.data.data = t.constant ? const_cast<uint8_t*>(t.bytes->data()) : nullptr;
      c_tensors_.push_back(tensor);
    }
    context_.tensors = c_tensors_.data();
    context_.tensors_size = c_tensors_.size();
    node_.inputs = MakeIntArray(inputs_);
    node_.outputs = MakeIntArray(outputs);
    node_.builtin_data = params_.empty() ? nullptr : params_.data();
    node_.custom_initial_data = options_.data();
    node_.custom_initial_data_size = static_cast<int>(options_.size());
    view_ = std::make_unique<ops::Node>(&context_, &node_, &registration_);
  }

  std::vector<Tensor> tensors_;
  std::vector<int> inputs_;
  std::vector<uint8_t> params_, options_;
  bool planar_ = false;
  std::vector<IntArray> arrays_;
  std::vector<TfLiteTensor> c_tensors_;
  TfLiteContext context_ = {};
  TfLiteNode node_ = {};
  TfLiteRegistration registration_ = {};
  std::unique_ptr<ops::Node> view_;
  size_t output_count_ = 1;
  std::vector<std::vector<float>> output_;
  std::vector<graph::Dims> output_dims_;
};

}  // namespace testing
}  // namespace block_sparse

#endif  // TESTS_CPP_NODE_TESTING_H_
