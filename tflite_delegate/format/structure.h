// What a structure is to the reader: a name and a function that checks the structure's own keys against the values and,
// if it is to, lowers the matrix. One file a structure, one line in the table of structures.cc.
#ifndef TFLITE_DELEGATE_FORMAT_STRUCTURE_H_
#define TFLITE_DELEGATE_FORMAT_STRUCTURE_H_

#include <cstddef>
#include <cstdint>

#include "tflite_delegate/format/key_reader.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/options.h"

namespace block_sparse::format {

// The keys common to all structures, already checked.
struct StructureInput {
  BlockSparseOp op;
  int32_t rows = 0;       // rows * columns < 2^31
  int32_t columns = 0;    // positions * channels
  int32_t positions = 1;  // kernel_height * kernel_width; 1 for a fully connected layer
  int32_t channels = 0;
  const float* values = nullptr;
  size_t value_count = 0;
  ReadTo to = ReadTo::kLower;
};

struct Structure {
  const char* name;
  bool (*read)(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix);
};

// What a block costs beside its rows (lowering.h) in the kernels of the operator.
inline double BlockOverhead(BlockSparseOp op) {
  return op == BlockSparseOp::kFullyConnected ? kVectorBlockOverhead : kBlockOverhead;
}

// The table of all structures.
extern const Structure kStructures[];
extern const size_t kStructureCount;

bool ReadUnalignedBlock(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix);
bool ReadAlignedBlock(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix);
bool ReadPattern(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix);
bool ReadBlockPunched(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix);
bool ReadBlockRowColumn(const StructureInput& input, KeyReader* keys, LoweredMatrix* matrix);

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_STRUCTURE_H_
