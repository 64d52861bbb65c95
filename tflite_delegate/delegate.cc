#include "tflite_delegate/delegate.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/log.h"
#include "tflite_delegate/ops/node.h"
#include "tflite_delegate/report.h"
#include "tflite_delegate/stretch.h"

namespace block_sparse {

namespace {

struct Delegate {
  TfLiteDelegate base;  // first, so that a pointer to one is a pointer to the other
  DelegateOptions options;
  std::shared_ptr<graph::ThreadPool> pool;
};

TfLiteRegistration StretchRegistration() {
  TfLiteRegistration registration = {};
  registration.custom_name = "BlockSparseDelegate";
  registration.version = 1;
  registration.init = [](TfLiteContext* context, const char* buffer, size_t) -> void* {
    const auto* params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
    const auto* delegate = static_cast<const Delegate*>(params->delegate->data_);
    return Stretch::Create(context, *params, delegate->options, delegate->pool).release();
  };
  registration.free = [](TfLiteContext*, void* data) { delete static_cast<Stretch*>(data); };
  registration.prepare = [](TfLiteContext* context, TfLiteNode* node) {
    auto* stretch = static_cast<Stretch*>(node->user_data);
    return stretch == nullptr ? kTfLiteError : stretch->Prepare(context);
  };
  registration.invoke = [](TfLiteContext* context, TfLiteNode* node) {
    return static_cast<Stretch*>(node->user_data)->Invoke(context);
  };
  return registration;
}

std::string OpName(const ops::Node& node) {
  if (node.custom_name() != nullptr) return node.custom_name();
  return "builtin op " + std::to_string(node.builtin_code());
}

bool IsBlockSparse(const ops::Node& node) {
  return node.builtin_code() == kTfLiteBuiltinCustom && ops::FindOp(node) != nullptr;
}

struct IntArrayDeleter {
  void operator()(TfLiteIntArray* array) const { free(array); }
};
using IntArray = std::unique_ptr<TfLiteIntArray, IntArrayDeleter>;

IntArray MakeIntArray(const std::vector<int>& values) {
  IntArray array(static_cast<TfLiteIntArray*>(malloc(sizeof(TfLiteIntArray) + values.size() * sizeof(int))));
  if (array != nullptr) {
    array->size = static_cast<int>(values.size());
    std::copy(values.begin(), values.end(), array->data);
  }
  return array;
}

TfLiteStatus Prepare(TfLiteContext* context, TfLiteDelegate* base) {
  const auto* delegate = static_cast<const Delegate*>(base->data_);
  Report report;
  report.version = kVersion;
  report.kernels = kKernels;
  report.cpu = delegate->options.kernels->name;
  report.threads = delegate->options.num_threads;

  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  // What the converter leaves in the place of a loop's body: nothing to say, and no report to write over the model's.
  if (plan->size == 0 && context->tensors_size == 0) return kTfLiteOk;
  const std::vector<int> nodes(plan->data, plan->data + plan->size);

  std::vector<int> claimable, sparse;
  for (int index : nodes) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    if (context->GetNodeAndRegistration(context, index, &node, &registration) != kTfLiteOk) return kTfLiteError;
    const ops::Node view(context, node, registration);
    const ops::OpRegistration* op = ops::FindOp(view);
    NodeReport of_node = {index, OpName(view), ""};
    if (op == nullptr) {
      of_node.left = "the delegate has no such op";
    } else {
      of_node.left = op->claim(view);
      if (IsBlockSparse(view)) {
        if (!of_node.left.empty()) {
          // Nobody else can run it: the model is unusable, and this is the last place where the reason is known.
          const std::string message = of_node.op + " (node " + std::to_string(index) + "): " + of_node.left;
          context->ReportError(context, "%s", message.c_str());
          return kTfLiteError;
        }
        sparse.push_back(index);
      }
      if (of_node.left.empty()) claimable.push_back(index);
    }
    report.nodes.push_back(std::move(of_node));
  }

  // A stretch without a block-sparse op would only take dense work away from the runtime's own kernels.
  std::vector<int> claimed;
  if (!sparse.empty()) {
    TfLiteDelegateParams* partitions = nullptr;
    int partition_count = 0;
    const IntArray supported = MakeIntArray(claimable);
    if (supported == nullptr ||
        context->PreviewDelegatePartitioning(context, supported.get(), &partitions, &partition_count) != kTfLiteOk) {
      return kTfLiteError;
    }
    for (int p = 0; p < partition_count; p++) {
      const TfLiteIntArray* members = partitions[p].nodes_to_replace;
      const int* end = members->data + members->size;
      if (std::none_of(members->data, end, [&](int n) { return std::count(sparse.begin(), sparse.end(), n) > 0; })) {
        continue;
      }
      report.partitions++;
      claimed.insert(claimed.end(), members->data, end);
    }
    std::sort(claimed.begin(), claimed.end());
  }
  for (NodeReport& node : report.nodes) {
    if (node.left.empty() && !std::binary_search(claimed.begin(), claimed.end(), node.node)) {
      node.left = "its stretch has no block-sparse op";
    }
  }

  Log(report.Summary());
  for (const NodeReport& node : report.nodes) {
    const std::string name = "  node " + std::to_string(node.node) + ", " + node.op;
    if (!node.left.empty()) Log(name + ": left, " + node.left);
    if (node.left.empty() && delegate->options.verbose) Log(name + ": claimed");
  }
  if (!delegate->options.report_path.empty() && !WriteFile(delegate->options.report_path, report.Json())) {
    context->ReportError(context, "block_sparse: cannot write the report to %s", delegate->options.report_path.c_str());
    return kTfLiteError;
  }
  if (claimed.empty()) return kTfLiteOk;
  const IntArray to_replace = MakeIntArray(claimed);
  if (to_replace == nullptr) return kTfLiteError;
  return context->ReplaceNodeSubsetsWithDelegateKernels(context, StretchRegistration(), to_replace.get(), base);
}

}  // namespace

TfLiteDelegate* CreateDelegate(const DelegateOptions& options) {
  auto delegate = std::make_unique<Delegate>();
  delegate->base = {};
  delegate->base.data_ = delegate.get();
  delegate->base.Prepare = Prepare;
  // Without it the runtime prepares every op before it asks the delegate, and stumbles over ours.
  delegate->base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  delegate->options = options;
  delegate->pool = std::make_shared<graph::ThreadPool>(options.num_threads);
  return &delegate.release()->base;
}

const char* CpuLevel(const TfLiteDelegate* delegate) {
  return static_cast<const Delegate*>(delegate->data_)->options.kernels->name;
}

void DestroyDelegate(TfLiteDelegate* delegate) {
  if (delegate != nullptr) delete static_cast<Delegate*>(delegate->data_);
}

}  // namespace block_sparse
