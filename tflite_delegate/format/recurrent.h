// Checked custom options of the block-sparse recurrent operators: what the layer computes, and for each of its matrices
// a map of options of its own, as a block-sparse fully connected layer has.
#ifndef TFLITE_DELEGATE_FORMAT_RECURRENT_H_
#define TFLITE_DELEGATE_FORMAT_RECURRENT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "tflite_delegate/format/flexbuffer.h"

namespace block_sparse {

enum class RecurrentOp { kGru, kLstm };

struct RecurrentOptions {
  int32_t units = 0;
  int32_t gates = 0;              // 3 or 4
  bool reset_after = true;        // GRU: the reset gate multiplies the recurrent kernel's product, not the state
  bool return_sequences = false;  // output 0 has the state after every step, not after the last one alone
  // A masked layer's: output 0 is zero where the mask is, not what it was a step before.
  bool zero_output_for_mask = false;
  // The matrices' own options, which lie in the buffer that was read. Without data: the matrix is stored dense.
  format::Bytes kernel, recurrent_kernel, candidate_kernel;
};

// Reads `options`, a FlexBuffer map (docs/format.md). On failure returns false and `*error` says which key is wrong and
// how; `*parsed` is then unspecified.
bool ReadRecurrent(RecurrentOp op, const uint8_t* options, size_t options_size, RecurrentOptions* parsed,
                   std::string* error);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_FORMAT_RECURRENT_H_
