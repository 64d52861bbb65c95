// As much of a TensorFlow Lite runtime as a delegate sees: it is asked for nodes, told to replace some, and runs what
// replaced them. It is as strict as the real ones are in effect: nodes may be looked at only while the delegate is
// being applied and lie elsewhere afterwards, and tensors have new memory at each inference.
#ifndef TESTS_CPP_FAKE_RUNTIME_H_
#define TESTS_CPP_FAKE_RUNTIME_H_

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tensorflow/lite/builtin_ops.h"
#include "tensorflow/lite/core/c/builtin_op_data.h"
#include "tensorflow/lite/core/c/common.h"
#include "tests/cpp/guarded.h"

namespace block_sparse {
namespace testing {

class FakeRuntime {
 public:
  using Dims = std::vector<int32_t>;

  FakeRuntime() {
    context_.impl_ = this;
    context_.GetExecutionPlan = [](TfLiteContext* context, TfLiteIntArray** plan) {
      return Of(context)->GetExecutionPlan(plan);
    };
    context_.GetNodeAndRegistration = [](TfLiteContext* context, int index, TfLiteNode** node,
                                         TfLiteRegistration** registration) {
      return Of(context)->GetNode(index, node, registration);
    };
    context_.PreviewDelegatePartitioning = [](TfLiteContext* context, const TfLiteIntArray* nodes,
                                              TfLiteDelegateParams** params,
                                              int* count) { return Of(context)->Preview(nodes, params, count); };
    context_.ReplaceNodeSubsetsWithDelegateKernels = [](TfLiteContext* context, TfLiteRegistration registration,
                                                        const TfLiteIntArray* nodes, TfLiteDelegate* delegate) {
      return Of(context)->Replace(registration, nodes, delegate);
    };
    context_.ResizeTensor = [](TfLiteContext*, TfLiteTensor* tensor, TfLiteIntArray* dims) {
      free(tensor->dims);
      tensor->dims = dims;
      return kTfLiteOk;
    };
    context_.ReportError = ReportError;
  }
  ~FakeRuntime() {
    for (Kernel& kernel : kernels_) {
      if (kernel.node.user_data != nullptr) kernel.registration.free(&context_, kernel.node.user_data);
    }
    for (TfLiteTensor& tensor : tensors_) free(tensor.dims);
  }
  FakeRuntime(const FakeRuntime&) = delete;
  FakeRuntime& operator=(const FakeRuntime&) = delete;

  // --- The model. ---
  int Tensor(const Dims& dims, TfLiteType type = kTfLiteFloat32) {
    TfLiteTensor tensor = {};
    tensor.type = type;
    tensor.dims = Array(dims);
    tensor.allocation_type = kTfLiteArenaRw;
    tensors_.push_back(tensor);
    return static_cast<int>(tensors_.size()) - 1;
  }
  int Constant(const Dims& dims, const std::vector<float>& values) {
    const int id = Tensor(dims);
    constants_.push_back(std::make_unique<Guarded<float>>(values));
    tensors_[id].allocation_type = kTfLiteMmapRo;
    tensors_[id].data.data = constants_.back()->data();
    tensors_[id].bytes = values.size() * sizeof(float);
    return id;
  }
  // `params` must outlive the runtime.
  int Node(int builtin_code, std::vector<int> inputs, std::vector<int> outputs, void* params = nullptr) {
    nodes_.push_back({builtin_code, "", std::move(inputs), std::move(outputs), params, {}});
    return static_cast<int>(nodes_.size()) - 1;
  }
  int Custom(std::string name, std::vector<uint8_t> options, std::vector<int> inputs, std::vector<int> outputs) {
    nodes_.push_back(
        {kTfLiteBuiltinCustom, std::move(name), std::move(inputs), std::move(outputs), nullptr, std::move(options)});
    return static_cast<int>(nodes_.size()) - 1;
  }
  void Output(int tensor) { outputs_.push_back(tensor); }

  // --- The life of an interpreter. ---
  TfLiteStatus Apply(TfLiteDelegate* delegate) {
    context_.tensors = tensors_.data();
    context_.tensors_size = tensors_.size();
    applying_ = true;
    for (const NodeOfModel& node : nodes_) views_.push_back(std::make_unique<View>(node));
    const TfLiteStatus status = delegate->Prepare(&context_, delegate);
    applying_ = false;
    views_.clear();
    previews_.clear();
    return status;
  }
  void Resize(int tensor, const Dims& dims) {
    free(tensors_[tensor].dims);
    tensors_[tensor].dims = Array(dims);
  }
  TfLiteStatus Allocate() {
    for (Kernel& kernel : kernels_) {
      const TfLiteStatus status = kernel.registration.prepare(&context_, &kernel.node);
      if (status != kTfLiteOk) return status;
    }
    return kTfLiteOk;
  }
  // Runs all kernels with values for the inputs of the model; nodes that were left are done by `left`.
  TfLiteStatus Invoke(const std::map<int, std::vector<float>>& inputs,
                      const std::function<void(int node)>& left = nullptr) {
    std::map<int, std::unique_ptr<Guarded<float>>> memory;
    for (size_t t = 0; t < tensors_.size(); t++) {
      if (tensors_[t].allocation_type == kTfLiteMmapRo) continue;
      const auto given = inputs.find(static_cast<int>(t));
      size_t count = 1;
      for (int32_t d : dims(static_cast<int>(t))) count *= static_cast<size_t>(d);
      auto data = std::make_unique<Guarded<float>>(count);
      std::fill(data->data(), data->data() + count, -1e30f);
      if (given != inputs.end()) {
        EXPECT_EQ(given->second.size(), count);
        std::copy(given->second.begin(), given->second.end(), data->data());
      }
      tensors_[t].data.data = data->data();
      tensors_[t].bytes = count * sizeof(float);
      memory[static_cast<int>(t)] = std::move(data);
    }
    TfLiteStatus status = kTfLiteOk;
    for (int step : Plan()) {
      if (step < static_cast<int>(nodes_.size())) {
        if (left != nullptr) left(step);
      } else if (status == kTfLiteOk) {
        Kernel& kernel = kernels_[step - nodes_.size()];
        status = kernel.registration.invoke(&context_, &kernel.node);
      }
    }
    values_.clear();
    for (auto& [tensor, data] : memory) {
      data->ExpectCanaries();
      values_[tensor].assign(data->data(), data->data() + data->size());
      tensors_[tensor].data.data = nullptr;
    }
    return status;
  }

  // What a tensor held at the end of the last inference.
  const std::vector<float>& values(int tensor) { return values_[tensor]; }
  float* data(int tensor) { return static_cast<float*>(tensors_[tensor].data.data); }
  Dims dims(int tensor) const {
    return Dims(tensors_[tensor].dims->data, tensors_[tensor].dims->data + tensors_[tensor].dims->size);
  }
  TfLiteTensor& tensor(int tensor) { return tensors_[tensor]; }
  // Nodes of each kernel that replaced some.
  std::vector<std::vector<int>> replaced() const {
    std::vector<std::vector<int>> nodes;
    for (const Kernel& kernel : kernels_) nodes.push_back(kernel.nodes);
    return nodes;
  }

  std::string errors;

 private:
  struct NodeOfModel {
    int builtin_code;
    std::string name;
    std::vector<int> inputs, outputs;
    void* params;
    std::vector<uint8_t> options;
  };
  struct Free {
    void operator()(void* p) const { free(p); }
  };
  // A node as the delegate may see it, while it may.
  struct View {
    explicit View(const NodeOfModel& of) : inputs(Array(of.inputs)), outputs(Array(of.outputs)) {
      node.inputs = inputs.get();
      node.outputs = outputs.get();
      node.builtin_data = of.params;
      if (!of.options.empty()) node.custom_initial_data = of.options.data();
      node.custom_initial_data_size = static_cast<int>(of.options.size());
      registration.builtin_code = of.builtin_code;
      registration.custom_name = of.builtin_code == kTfLiteBuiltinCustom ? of.name.c_str() : nullptr;
      registration.version = 1;
    }
    std::unique_ptr<TfLiteIntArray, Free> inputs, outputs;
    TfLiteNode node = {};
    TfLiteRegistration registration = {};
  };
  struct Kernel {
    TfLiteRegistration registration;
    TfLiteNode node;
    std::vector<int> nodes;
  };
  struct Partition {
    explicit Partition(TfLiteDelegate* delegate, const std::vector<int>& of_nodes, const std::vector<int>& of_inputs,
                       const std::vector<int>& of_outputs)
        : nodes(Array(of_nodes)), inputs(Array(of_inputs)), outputs(Array(of_outputs)) {
      params = {delegate, nodes.get(), inputs.get(), outputs.get()};
    }
    std::unique_ptr<TfLiteIntArray, Free> nodes, inputs, outputs;
    TfLiteDelegateParams params;
  };

  static void ReportError(TfLiteContext* context, const char* format, ...) {
    char text[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Of(context)->errors += std::string(text) + "\n";
  }
  static FakeRuntime* Of(TfLiteContext* context) { return static_cast<FakeRuntime*>(context->impl_); }
  static TfLiteIntArray* Array(const std::vector<int>& values) {
    auto* array = static_cast<TfLiteIntArray*>(malloc(sizeof(TfLiteIntArray) + values.size() * sizeof(int)));
    if (array == nullptr) abort();
    array->size = static_cast<int>(values.size());
    std::copy(values.begin(), values.end(), array->data);
    return array;
  }

  TfLiteStatus GetExecutionPlan(TfLiteIntArray** plan) {
    if (!applying_) return kTfLiteError;
    std::vector<int> all(nodes_.size());
    for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<int>(i);
    plan_.reset(Array(all));
    *plan = plan_.get();
    return kTfLiteOk;
  }
  TfLiteStatus GetNode(int index, TfLiteNode** node, TfLiteRegistration** registration) {
    if (!applying_) {
      ADD_FAILURE() << "a node was looked at when it may not be";
      return kTfLiteError;
    }
    *node = &views_[index]->node;
    *registration = &views_[index]->registration;
    return kTfLiteOk;
  }

  // Runs of neighbouring nodes, with the tensors that go in and out.
  std::vector<Partition> Split(const TfLiteIntArray* nodes, TfLiteDelegate* delegate) const {
    std::vector<Partition> partitions;
    for (int i = 0; i < nodes->size;) {
      std::vector<int> members = {nodes->data[i++]};
      while (i < nodes->size && nodes->data[i] == members.back() + 1) members.push_back(nodes->data[i++]);
      const auto member = [&](int n) { return std::count(members.begin(), members.end(), n) > 0; };
      std::vector<int> made, inputs, outputs;
      for (int n : members) made.insert(made.end(), nodes_[n].outputs.begin(), nodes_[n].outputs.end());
      const auto add = [](int tensor, std::vector<int>* to) {
        if (tensor >= 0 && std::count(to->begin(), to->end(), tensor) == 0) to->push_back(tensor);
      };
      for (int n : members) {
        for (int t : nodes_[n].inputs) {
          if (std::count(made.begin(), made.end(), t) == 0) add(t, &inputs);
        }
      }
      for (int t : made) {
        bool outside = std::count(outputs_.begin(), outputs_.end(), t) > 0;
        for (size_t n = 0; n < nodes_.size(); n++) {
          outside |=
              !member(static_cast<int>(n)) && std::count(nodes_[n].inputs.begin(), nodes_[n].inputs.end(), t) > 0;
        }
        if (outside) add(t, &outputs);
      }
      partitions.emplace_back(delegate, members, inputs, outputs);
    }
    return partitions;
  }
  TfLiteStatus Preview(const TfLiteIntArray* nodes, TfLiteDelegateParams** params, int* count) {
    previews_ = Split(nodes, nullptr);
    preview_params_.clear();
    for (const Partition& partition : previews_) preview_params_.push_back(partition.params);
    *params = preview_params_.data();
    *count = static_cast<int>(previews_.size());
    return kTfLiteOk;
  }
  TfLiteStatus Replace(const TfLiteRegistration& registration, const TfLiteIntArray* nodes, TfLiteDelegate* delegate) {
    for (const Partition& partition : Split(nodes, delegate)) {
      Kernel kernel = {registration, {}, {}};
      const TfLiteIntArray* members = partition.params.nodes_to_replace;
      kernel.nodes.assign(members->data, members->data + members->size);
      kernel.node.user_data = registration.init(&context_, reinterpret_cast<const char*>(&partition.params), 0);
      kernel.node.delegate = delegate;
      kernels_.push_back(kernel);
    }
    return kTfLiteOk;
  }
  // Nodes that were left, and nodes_.size() + kernel for those that replaced some, in order.
  std::vector<int> Plan() const {
    std::vector<int> plan;
    for (int n = 0; n < static_cast<int>(nodes_.size()); n++) {
      bool inside = false;
      for (size_t k = 0; k < kernels_.size(); k++) {
        if (std::count(kernels_[k].nodes.begin(), kernels_[k].nodes.end(), n) == 0) continue;
        inside = true;
        if (kernels_[k].nodes[0] == n) plan.push_back(static_cast<int>(nodes_.size() + k));
      }
      if (!inside) plan.push_back(n);
    }
    return plan;
  }

  TfLiteContext context_ = {};
  bool applying_ = false;
  std::vector<TfLiteTensor> tensors_;
  std::vector<std::unique_ptr<Guarded<float>>> constants_;
  std::vector<NodeOfModel> nodes_;
  std::vector<int> outputs_;
  std::vector<std::unique_ptr<View>> views_;
  std::unique_ptr<TfLiteIntArray, Free> plan_;
  std::vector<Partition> previews_;
  std::vector<TfLiteDelegateParams> preview_params_;
  std::vector<Kernel> kernels_;
  std::map<int, std::vector<float>> values_;
};

}  // namespace testing
}  // namespace block_sparse

#endif  // TESTS_CPP_FAKE_RUNTIME_H_
