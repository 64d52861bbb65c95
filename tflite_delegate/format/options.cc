#include "tflite_delegate/format/options.h"

#include <limits>
#include <vector>

#include "tflite_delegate/format/flexbuffer.h"
#include "tflite_delegate/format/key_reader.h"
#include "tflite_delegate/format/structure.h"

namespace block_sparse {
namespace format {
namespace {

// A row costs the reader memory though the file need not hold a byte for it, so a tiny file must not ask for too many.
// Well above any network's layer.
constexpr int64_t kMaxExtent = int64_t{1} << 24;
constexpr int64_t kMaxElements = (int64_t{1} << 31) - 1;

bool ReadConvolution(KeyReader* keys, ConvOptions* conv) {
  if (!keys->Int("kernel_height", 1, kMaxExtent, &conv->kernel_height) ||
      !keys->Int("kernel_width", 1, kMaxExtent, &conv->kernel_width) ||
      !keys->Int("stride_height", 1, kMaxExtent, &conv->stride_height) ||
      !keys->Int("stride_width", 1, kMaxExtent, &conv->stride_width) ||
      !keys->Int("dilation_height", 1, kMaxExtent, &conv->dilation_height) ||
      !keys->Int("dilation_width", 1, kMaxExtent, &conv->dilation_width)) {
    return false;
  }
  // The dilated kernel's extent, (kernel - 1) * dilation + 1, is bounded too, so that later stages can add to it.
  const auto too_wide = [](int64_t kernel, int64_t dilation) { return (kernel - 1) * dilation + 1 > kMaxExtent; };
  const std::string message =
      "makes the dilated kernel larger than " + Decimal(kMaxExtent) + " pixels; expected a smaller kernel or dilation";
  if (too_wide(conv->kernel_height, conv->dilation_height)) return keys->Fail("dilation_height", message);
  if (too_wide(conv->kernel_width, conv->dilation_width)) return keys->Fail("dilation_width", message);
  size_t padding;
  if (!keys->Choice("padding", {"valid", "same"}, &padding)) return false;
  conv->padding_same = padding == 1;
  return true;
}

bool ReadCommon(BlockSparseOp op, KeyReader* keys, BlockSparseOptions* parsed, StructureInput* input) {
  int32_t version;
  if (!keys->Int("version", 1, 1, &version)) return false;
  if (!keys->Int("rows", 1, kMaxExtent, &input->rows) || !keys->Int("columns", 1, kMaxExtent, &input->columns)) {
    return false;
  }
  const int64_t elements = static_cast<int64_t>(input->rows) * input->columns;
  if (elements > kMaxElements) {
    return keys->Fail("columns", "is " + Decimal(input->columns) + ", which with " + Decimal(input->rows) +
                                     " rows makes " + Decimal(elements) + " elements; expected fewer than 2^31");
  }
  input->op = op;
  input->channels = input->columns;
  if (op == BlockSparseOp::kConv2D) {
    if (!ReadConvolution(keys, &parsed->conv)) return false;
    const int64_t positions = static_cast<int64_t>(parsed->conv.kernel_height) * parsed->conv.kernel_width;
    if (input->columns % positions != 0) {
      return keys->Fail("columns", "is " + Decimal(input->columns) + "; expected a multiple of the " +
                                       Decimal(parsed->conv.kernel_height) + " x " +
                                       Decimal(parsed->conv.kernel_width) + " kernel positions");
    }
    input->positions = static_cast<int32_t>(positions);
    input->channels = static_cast<int32_t>(input->columns / positions);
  } else {
    if (!keys->Bool("keep_num_dims", &parsed->keep_num_dims)) return false;
  }
  size_t activation;
  if (!keys->Choice("activation", {"none", "relu", "relu_n1_to_1", "relu6"}, &activation)) return false;
  constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kReluN1To1,
                                         Activation::kRelu6};
  parsed->activation = kActivations[activation];
  // Of use to densify alone; but a file in which they are not what they should be is a broken file.
  Bytes unused;
  int32_t unused_index;
  if (keys->Has("negative_zero_rows") &&
      !keys->Blob("negative_zero_rows", (static_cast<uint64_t>(input->rows) + 7) / 8, &unused)) {
    return false;
  }
  return !keys->Has("dense_opcode") || keys->Int("dense_opcode", 0, std::numeric_limits<int32_t>::max(), &unused_index);
}

}  // namespace
}  // namespace format

bool ReadBlockSparse(BlockSparseOp op, ReadTo to, const uint8_t* options, size_t options_size, const float* values,
                     size_t value_count, BlockSparseOptions* parsed, LoweredMatrix* matrix, std::string* error) {
  *parsed = BlockSparseOptions();
  *matrix = LoweredMatrix();
  format::FlexMap map;
  format::KeyReader keys(&map, error);
  std::string reason;
  if (!map.Open(options, options_size, &reason)) return keys.Fail("custom options: " + reason);

  format::StructureInput input;
  if (!format::ReadCommon(op, &keys, parsed, &input)) return false;
  if (value_count == 0 || value_count > static_cast<uint64_t>(format::kMaxElements)) {
    return keys.Fail("values tensor: it has " + format::Decimal(value_count) +
                     " elements; expected at least 1 and fewer than 2^31");
  }
  if (values == nullptr) return keys.Fail("values tensor: it has no data; expected a constant");
  input.values = values;
  input.value_count = value_count;
  input.to = to;

  std::vector<const char*> names;
  for (size_t i = 0; i < format::kStructureCount; ++i) names.push_back(format::kStructures[i].name);
  size_t structure;
  if (!keys.Choice("structure", names, &structure)) return false;
  if (!format::kStructures[structure].read(input, &keys, matrix)) return false;
  matrix->rows = input.rows;
  matrix->columns = input.columns;
  return true;
}

}  // namespace block_sparse
