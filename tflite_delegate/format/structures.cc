// The structures that a file may name. A new one is a file with its function and a line here.
#include "tflite_delegate/format/structure.h"

namespace block_sparse::format {

const Structure kStructures[] = {
    {"unaligned_block", LowerUnalignedBlock}, {"aligned_block", LowerAlignedBlock},      {"pattern", LowerPattern},
    {"block_punched", LowerBlockPunched},     {"block_row_column", LowerBlockRowColumn},
};
const size_t kStructureCount = sizeof(kStructures) / sizeof(kStructures[0]);

}  // namespace block_sparse::format
