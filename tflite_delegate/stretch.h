// A stretch of claimed nodes, as the runtime sees it: one node that is prepared for its inputs' shapes and invoked.
#ifndef TFLITE_DELEGATE_STRETCH_H_
#define TFLITE_DELEGATE_STRETCH_H_

#include <memory>
#include <utility>
#include <vector>

#include "tensorflow/lite/core/c/common.h"
#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/ops/node.h"
#include "tflite_delegate/options.h"

namespace block_sparse {

class Stretch {
 public:
  // Null if the runtime does not let its nodes be seen.
  static std::unique_ptr<Stretch> Create(TfLiteContext* context, const TfLiteDelegateParams& params,
                                         const DelegateOptions& options, std::shared_ptr<graph::ThreadPool> pool);
  ~Stretch();

  // Builds and prepares the internal graph if the inputs' shapes are not those it was built for.
  TfLiteStatus Prepare(TfLiteContext* context);
  TfLiteStatus Invoke(TfLiteContext* context);

 private:
  Stretch(const DelegateOptions& options, std::shared_ptr<graph::ThreadPool> pool)
      : options_(options), pool_(std::move(pool)) {}
  bool BuiltFor(const TfLiteContext* context) const;
  TfLiteStatus Build(TfLiteContext* context);

  DelegateOptions options_;
  std::shared_ptr<graph::ThreadPool> pool_;  // outlives a delegate that is destroyed before the interpreter
  std::vector<ops::Node> nodes_;
  std::vector<int> inputs_, outputs_;  // tensors; inputs without the constants
  std::vector<graph::Dims> built_for_;
  std::vector<graph::Dims> output_dims_;
  std::unique_ptr<graph::Graph> graph_;
  std::vector<const float*> input_data_;
  std::vector<float*> output_data_;
};

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_STRETCH_H_
