#include "tflite_delegate/stretch.h"

#include <string>
#include <utility>

#include "tflite_delegate/log.h"
#include "tflite_delegate/report.h"
#include "tflite_delegate/tuning_file.h"

namespace block_sparse {

std::unique_ptr<Stretch> Stretch::Create(TfLiteContext* context, const TfLiteDelegateParams& params,
                                         const DelegateOptions& options, std::shared_ptr<graph::ThreadPool> pool) {
  std::unique_ptr<Stretch> stretch(new Stretch(options, std::move(pool)));
  const TfLiteIntArray* nodes = params.nodes_to_replace;
  for (int i = 0; i < nodes->size; i++) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    if (context->GetNodeAndRegistration(context, nodes->data[i], &node, &registration) != kTfLiteOk) return nullptr;
    stretch->nodes_.emplace_back(context, node, registration);
  }
  for (int i = 0; i < params.input_tensors->size; i++) {
    const int tensor = params.input_tensors->data[i];
    if (tensor >= 0 && context->tensors[tensor].allocation_type != kTfLiteMmapRo) stretch->inputs_.push_back(tensor);
  }
  const TfLiteIntArray* outputs = params.output_tensors;
  stretch->outputs_.assign(outputs->data, outputs->data + outputs->size);
  stretch->input_data_.resize(stretch->inputs_.size());
  stretch->output_data_.resize(stretch->outputs_.size());
  return stretch;
}

Stretch::~Stretch() {
  if (!options_.profile || graph_ == nullptr) return;
  for (const std::string& line : graph_->Profile()) Log(line);
}

bool Stretch::BuiltFor(const TfLiteContext* context) const {
  if (graph_ == nullptr) return false;
  for (size_t i = 0; i < inputs_.size(); i++) {
    if (ops::DimsOf(&context->tensors[inputs_[i]]) != built_for_[i]) return false;
  }
  return true;
}

TfLiteStatus Stretch::Build(TfLiteContext* context) {
  auto built = std::make_unique<graph::Graph>();
  std::vector<int> value_of_tensor(context->tensors_size, -1);
  built_for_.clear();
  for (int tensor : inputs_) {
    const std::string reason = ops::CheckFloat(&context->tensors[tensor], "an input of the stretch");
    if (!reason.empty()) {
      context->ReportError(context, "block_sparse: %s (tensor %d)", reason.c_str(), tensor);
      return kTfLiteError;
    }
    built_for_.push_back(ops::DimsOf(&context->tensors[tensor]));
    value_of_tensor[tensor] = built->AddInput(built_for_.back());
  }
  ops::Builder builder(built.get(), &value_of_tensor);
  for (const ops::Node& node : nodes_) {
    const ops::OpRegistration* op = ops::FindOp(node);
    const std::string reason = op != nullptr ? op->build(node, &builder) : "an op that is not known";
    if (!reason.empty()) {
      context->ReportError(context, "block_sparse: %s", reason.c_str());
      return kTfLiteError;
    }
  }
  output_dims_.clear();
  for (int tensor : outputs_) {
    output_dims_.push_back(built->value(value_of_tensor[tensor]).dims);
    built->AddOutput(value_of_tensor[tensor]);
  }
  std::string error;
  const bool tune = !options_.tuning_path.empty();
  graph::Tuning tuning = tune ? ReadTuning(options_.tuning_path, *options_.kernels) : graph::Tuning("", "");
  bool ready = built->Prepare(*options_.kernels, pool_->threads(), &error, tune ? &tuning : nullptr);
  if (ready && built->NeedsTuning()) {
    Log("measuring the ways of computing each layer; they are kept in " + options_.tuning_path);
    ready = built->Tune(*options_.kernels, pool_.get(), &tuning, &error);
    if (ready && !WriteFile(options_.tuning_path, tuning.Text())) {
      error = "cannot write `tuning_path`, " + options_.tuning_path;
      ready = false;
    }
  }
  if (!ready) {
    context->ReportError(context, "block_sparse: %s", error.c_str());
    return kTfLiteError;
  }
  graph_ = std::move(built);
  graph_->EnableProfile(options_.profile);
  return kTfLiteOk;
}

TfLiteStatus Stretch::Prepare(TfLiteContext* context) {
  if (!BuiltFor(context)) {
    graph_.reset();
    const TfLiteStatus status = Build(context);
    if (status != kTfLiteOk) return status;
  }
  for (size_t i = 0; i < outputs_.size(); i++) {
    TfLiteTensor* tensor = &context->tensors[outputs_[i]];
    if (tensor->dims != nullptr && ops::DimsOf(tensor) == output_dims_[i] && tensor->type == kTfLiteFloat32) continue;
    TfLiteIntArray* dims =
        static_cast<TfLiteIntArray*>(malloc(sizeof(TfLiteIntArray) + output_dims_[i].size() * sizeof(int)));
    if (dims == nullptr) return kTfLiteError;
    dims->size = static_cast<int>(output_dims_[i].size());
    for (int d = 0; d < dims->size; d++) dims->data[d] = output_dims_[i][d];
    const TfLiteStatus status = context->ResizeTensor(context, tensor, dims);  // which now owns dims
    if (status != kTfLiteOk) return status;
  }
  return kTfLiteOk;
}

TfLiteStatus Stretch::Invoke(TfLiteContext* context) {
  for (size_t i = 0; i < inputs_.size(); i++) {
    input_data_[i] = static_cast<const float*>(context->tensors[inputs_[i]].data.data);
    if (input_data_[i] == nullptr) return kTfLiteError;
  }
  for (size_t i = 0; i < outputs_.size(); i++) {
    output_data_[i] = static_cast<float*>(context->tensors[outputs_[i]].data.data);
    if (output_data_[i] == nullptr) return kTfLiteError;
  }
  graph_->Run(input_data_.data(), output_data_.data(), pool_.get());
  return kTfLiteOk;
}

}  // namespace block_sparse
