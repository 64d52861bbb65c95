// Checked custom options of the block-sparse operators. A model file is untrusted: everything that a later stage relies
// on is established here, and a reason that names the key is given for what is refused.
#ifndef TFLITE_DELEGATE_FORMAT_OPTIONS_H_
#define TFLITE_DELEGATE_FORMAT_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "tflite_delegate/format/lowered.h"

namespace block_sparse {

enum class Activation { kNone, kRelu, kReluN1To1, kRelu6 };

struct ConvOptions {
  int32_t kernel_height = 1, kernel_width = 1;
  int32_t stride_height = 1, stride_width = 1;
  int32_t dilation_height = 1, dilation_width = 1;
  bool padding_same = false;
};

struct BlockSparseOptions {
  Activation activation = Activation::kNone;
  bool keep_num_dims = false;  // fully connected only
  ConvOptions conv;            // convolution only
};

enum class BlockSparseOp { kConv2D, kFullyConnected };

// What options are read for. An op is claimed by kCheck, which finds all that is wrong but leaves of the matrix no more
// than its rows and columns; lowering takes most of the time.
enum class ReadTo { kCheck, kLower };

// Reads and checks `options` (a FlexBuffer map, see docs/format.md) against the values tensor, and lowers the matrix,
// which may refer to `values`.
// On failure returns false and `*error` says which key is wrong and how; `*parsed` and `*matrix` are then unspecified.
bool ReadBlockSparse(BlockSparseOp op, ReadTo to, const uint8_t* options, size_t options_size, const float* values,
                     size_t value_count, BlockSparseOptions* parsed, LoweredMatrix* matrix, std::string* error);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_FORMAT_OPTIONS_H_
