// The structures that a file may name. A new one is a file with its function and a line here.
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

const Structure kStructures[] = {
    {"unaligned_block", ReadUnalignedBlock}, {"aligned_block", ReadAlignedBlock},      {"pattern", ReadPattern},
    {"block_punched", ReadBlockPunched},     {"block_row_column", ReadBlockRowColumn},
};
const size_t kStructureCount = sizeof(kStructures) / sizeof(kStructures[0]);

}  // namespace block_sparse::format
