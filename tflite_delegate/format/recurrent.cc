#include "tflite_delegate/format/recurrent.h"

#include <limits>

#include "tflite_delegate/format/key_reader.h"

namespace block_sparse {
namespace {

// As many rows as any matrix may have, divided among the gates.
constexpr int64_t kMaxUnits = int64_t{1} << 22;

bool ReadMatrix(format::KeyReader* keys, const char* key, format::Bytes* matrix) {
  if (!keys->Has(key)) return true;
  if (!keys->Blob(key, matrix)) return false;
  return matrix->size > 0 || keys->Fail(key, "is empty; expected a FlexBuffer map");
}

// Of use to densify alone; but a file in which they are not what they should be is a broken file.
bool CheckLoop(format::KeyReader* keys) {
  int32_t unused_index;
  for (const char* key : {"condition_subgraph", "body_subgraph", "dense_opcode"}) {
    if (keys->Has(key) && !keys->Int(key, 0, std::numeric_limits<int32_t>::max(), &unused_index)) return false;
  }
  format::Bytes tensors;
  for (const char* key : {"loop_inputs", "loop_outputs"}) {
    if (!keys->Has(key)) continue;
    if (!keys->Blob(key, &tensors)) return false;
    if (tensors.size % sizeof(int32_t) != 0) {
      return keys->Fail(key, "has " + format::Decimal(tensors.size) + " bytes; expected a multiple of 4");
    }
  }
  bool unused_flag;
  return !keys->Has("zero_sequence") || keys->Bool("zero_sequence", &unused_flag);
}

}  // namespace

bool ReadRecurrent(RecurrentOp op, const uint8_t* options, size_t options_size, RecurrentOptions* parsed,
                   std::string* error) {
  *parsed = RecurrentOptions();
  format::FlexMap map;
  format::KeyReader keys(&map, error);
  std::string reason;
  if (!map.Open(options, options_size, &reason)) return keys.Fail("custom options: " + reason);
  int32_t version;
  if (!keys.Int("version", 1, 1, &version) || !keys.Int("units", 1, kMaxUnits, &parsed->units) ||
      !keys.Bool("return_sequences", &parsed->return_sequences)) {
    return false;
  }
  const bool gru = op == RecurrentOp::kGru;
  parsed->gates = gru ? 3 : 4;
  if (gru && !keys.Bool("reset_after", &parsed->reset_after)) return false;
  if (keys.Has("zero_output_for_mask") && !keys.Bool("zero_output_for_mask", &parsed->zero_output_for_mask)) {
    return false;
  }
  if (!ReadMatrix(&keys, "kernel", &parsed->kernel) ||
      !ReadMatrix(&keys, "recurrent_kernel", &parsed->recurrent_kernel) ||
      !ReadMatrix(&keys, "candidate_kernel", &parsed->candidate_kernel)) {
    return false;
  }
  if (parsed->candidate_kernel.data != nullptr && parsed->reset_after) {
    return keys.Fail("candidate_kernel", gru ? "stands beside \"reset_after\"; expected one of the two"
                                             : "is there; expected none, as an LSTM has no such matrix");
  }
  return CheckLoop(&keys);
}

}  // namespace block_sparse
