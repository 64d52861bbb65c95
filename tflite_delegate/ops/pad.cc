#include "tflite_delegate/ops/pad.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tflite_delegate/ops/image.h"
#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

namespace {

class Pad : public graph::Op {
 public:
  Pad(int input, int op_output, const Padding& padding, float value, bool image)
      : Op({input}, op_output), padding_(padding), value_(value), image_(image) {}
  const char* name() const override { return "pad"; }

  bool IsZeroPad(graph::Border* border) const override {
    *border = {padding_[1][0], padding_[2][0], padding_[1][1], padding_[2][1]};
    return image_ && value_ == 0.0f && padding_[0] == kNothing && padding_[3] == kNothing;
  }

  bool Prepare(const graph::Graph& graph, const kernels::KernelTable&, int) override {
    const graph::Value& in = graph.value(inputs[0]);
    const graph::Value& out = graph.value(output);
    planar_ = in.layout == graph::Layout::kPlanar || out.layout == graph::Layout::kPlanar;
    if (planar_) {
      input_ = Image(in);
      output_ = Image(out);
      return true;
    }
    for (int i = 0; i < 4; i++) {
      const int lacking = 4 - static_cast<int>(in.dims.size());
      in_dims_[i] = i < lacking ? 1 : in.dims[i - lacking];
      out_dims_[i] = i < lacking ? 1 : out.dims[i - lacking];
    }
    return true;
  }

  void Run(const graph::RunContext& context) const override {
    const float* x = context.data[inputs[0]];
    float* y = context.data[output];
    if (planar_) {
      RunPlanar(x, y, context.pool);
    } else {
      RunInterleaved(x, y, context.pool);
    }
  }

 private:
  static constexpr std::array<int32_t, 2> kNothing = {0, 0};

  void RunPlanar(const float* x, float* y, graph::ThreadPool* pool) const {
    const int64_t work = static_cast<int64_t>(output_.height) * output_.width;
    ForEachPlane(pool, output_.batch, output_.channels, work, [&](int32_t n, int32_t first, int32_t count) {
      const int32_t from_n = n - padding_[0][0];
      for (int32_t c = first; c < first + count; c++) {
        const int32_t from_c = c - padding_[3][0];
        const bool inside = from_n >= 0 && from_n < input_.batch && from_c >= 0 && from_c < input_.channels;
        const float* from = inside ? x + input_.Plane(from_n, from_c) : nullptr;
        float* to = y + output_.Plane(n, c);
        for (int32_t row = 0; row < output_.height; row++, to += output_.planes.row) {
          const int32_t from_row = row - padding_[1][0];
          if (from == nullptr || from_row < 0 || from_row >= input_.height) {
            std::fill(to, to + output_.width, value_);
            continue;
          }
          Row(from + static_cast<int64_t>(from_row) * input_.planes.row, input_.width, padding_[2], to);
        }
      }
    });
  }

  void RunInterleaved(const float* x, float* y, graph::ThreadPool* pool) const {
    const int64_t width = out_dims_[3];
    pool->For(out_dims_[0] * out_dims_[1], [&](int task) {
      const int32_t i0 = task / out_dims_[1] - padding_[0][0], i1 = task % out_dims_[1] - padding_[1][0];
      float* to = y + task * width * out_dims_[2];
      for (int32_t row = 0; row < out_dims_[2]; row++, to += width) {
        const int32_t i2 = row - padding_[2][0];
        if (i0 < 0 || i0 >= in_dims_[0] || i1 < 0 || i1 >= in_dims_[1] || i2 < 0 || i2 >= in_dims_[2]) {
          std::fill(to, to + width, value_);
          continue;
        }
        const int64_t from = ((static_cast<int64_t>(i0) * in_dims_[1] + i1) * in_dims_[2] + i2) * in_dims_[3];
        Row(x + from, in_dims_[3], padding_[3], to);
      }
    });
  }

  void Row(const float* from, int32_t width, const std::array<int32_t, 2>& around, float* to) const {
    std::fill(to, to + around[0], value_);
    memcpy(to + around[0], from, static_cast<size_t>(width) * sizeof(float));
    to += around[0] + width;
    std::fill(to, to + around[1], value_);
  }

  Padding padding_;
  float value_;
  bool image_;  // has 4 dimensions
  bool planar_ = false;
  Image input_, output_;
  std::array<int32_t, 4> in_dims_ = {}, out_dims_ = {};
};

}  // namespace

int AddPad(graph::Graph* graph, int input, const Padding& padding, float value) {
  graph::Dims out = graph->value(input).dims;
  const size_t lacking = 4 - out.size();
  int64_t count = 1;
  for (size_t i = 0; i < out.size(); i++) {
    const int64_t size = static_cast<int64_t>(out[i]) + padding[lacking + i][0] + padding[lacking + i][1];
    count *= std::min<int64_t>(size, std::numeric_limits<int32_t>::max());
    if (count > std::numeric_limits<int32_t>::max()) return -1;
    out[i] = static_cast<int32_t>(size);
  }
  const bool image = out.size() == 4;
  const bool planar = graph->value(input).layout == graph::Layout::kPlanar;
  const int output = graph->AddValue(out, !planar);
  graph->AddOp(std::make_unique<Pad>(input, output, padding, value, image));
  return output;
}

namespace {

// Paddings as the node has them; "" or what is wrong.
std::string ReadPadding(const Node& node, Padding* padding, float* value) {
  const TfLiteTensor* tensor = node.input(1);
  if (tensor == nullptr || tensor->allocation_type != kTfLiteMmapRo || tensor->data.data == nullptr) {
    return "its paddings are not constant";
  }
  const bool wide = tensor->type == kTfLiteInt64;
  if (!wide && tensor->type != kTfLiteInt32) return "its paddings are neither int32 nor int64";
  const int rank = node.input(0)->dims->size;
  if (rank < 1 || rank > 4 || tensor->dims->size != 2 || tensor->dims->data[0] != rank || tensor->dims->data[1] != 2 ||
      tensor->bytes != static_cast<size_t>(rank) * 2 * (wide ? sizeof(int64_t) : sizeof(int32_t))) {
    return "its paddings have another shape";
  }
  *padding = {};
  for (int i = 0; i < 2 * rank; i++) {
    int64_t v;
    if (wide) {
      memcpy(&v, static_cast<const int64_t*>(tensor->data.data) + i, sizeof v);
    } else {
      int32_t narrow;
      memcpy(&narrow, static_cast<const int32_t*>(tensor->data.data) + i, sizeof narrow);
      v = narrow;
    }
    if (v < 0 || v > (1 << 24)) return "its paddings are out of range";
    (*padding)[4 - rank + i / 2][i % 2] = static_cast<int32_t>(v);
  }
  *value = 0.0f;
  if (node.input(2) != nullptr) {
    const std::string reason = CheckConstant(node.input(2), "the padding value");
    if (!reason.empty()) return reason;
    if (graph::Count(DimsOf(node.input(2))) != 1) return "its padding value is not one number";
    *value = *Floats(node.input(2));
  }
  return "";
}

std::string Claim(const Node& node) {
  if (node.input_count() < 2 || node.input_count() > 3) return "it does not have 2 or 3 inputs";
  std::string reason = CheckFloat(node.input(0), "the input");
  if (reason.empty()) reason = CheckFloat(node.output(0), "the output");
  Padding padding;
  float value;
  return reason.empty() ? ReadPadding(node, &padding, &value) : reason;
}

std::string Build(const Node& node, Builder* builder) {
  Padding padding;
  float value;
  std::string reason = ReadPadding(node, &padding, &value);
  if (!reason.empty()) return "PAD: " + reason;
  const int output = AddPad(&builder->graph(), builder->Input(node, 0), padding, value);
  if (output < 0) return "PAD: the output is too large";
  builder->SetOutput(node, output);
  return "";
}

}  // namespace

extern const OpRegistration kPad, kPadV2;
constexpr OpRegistration kPad = {kTfLiteBuiltinPad, nullptr, Claim, Build};
constexpr OpRegistration kPadV2 = {kTfLiteBuiltinPadv2, nullptr, Claim, Build};

}  // namespace ops
}  // namespace block_sparse
