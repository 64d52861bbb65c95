// Every kind of node that the delegate can run, a line each.
#include <cstring>

#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

#define BLOCK_SPARSE_OPS(OP)     \
  OP(kBlockSparseConv2D)         \
  OP(kBlockSparseFullyConnected) \
  OP(kConv2D)                    \
  OP(kFullyConnected)

#define DECLARE(op) extern const OpRegistration op;
BLOCK_SPARSE_OPS(DECLARE)

const OpRegistration* FindOp(const Node& node) {
#define ADDRESS(op) &op,
  static constexpr const OpRegistration* kOps[] = {BLOCK_SPARSE_OPS(ADDRESS)};
  for (const OpRegistration* op : kOps) {
    if (op->builtin_code != node.builtin_code()) continue;
    if (op->custom_name == nullptr ||
        (node.custom_name() != nullptr && strcmp(op->custom_name, node.custom_name()) == 0)) {
      return op;
    }
  }
  return nullptr;
}

}  // namespace ops
}  // namespace block_sparse
