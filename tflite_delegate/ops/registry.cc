// Every kind of node that the delegate can run, a line each.
#include <cstring>

#include "tflite_delegate/ops/node.h"

namespace block_sparse {
namespace ops {

#define BLOCK_SPARSE_OPS(OP)     \
  OP(kAdd)                       \
  OP(kAveragePool2D)             \
  OP(kBlockSparseConv2D)         \
  OP(kBlockSparseFullyConnected) \
  OP(kBlockSparseGru)            \
  OP(kBlockSparseLstm)           \
  OP(kConcatenation)             \
  OP(kConv2D)                    \
  OP(kDepthwiseConv2D)           \
  OP(kDiv)                       \
  OP(kElu)                       \
  OP(kExpandDims)                \
  OP(kFullyConnected)            \
  OP(kHardSwish)                 \
  OP(kLeakyRelu)                 \
  OP(kLogistic)                  \
  OP(kMaxPool2D)                 \
  OP(kMean)                      \
  OP(kMul)                       \
  OP(kPad)                       \
  OP(kPadV2)                     \
  OP(kPrelu)                     \
  OP(kReduceMax)                 \
  OP(kRelu)                      \
  OP(kRelu6)                     \
  OP(kReluN1To1)                 \
  OP(kReshape)                   \
  OP(kResizeBilinear)            \
  OP(kResizeNearestNeighbor)     \
  OP(kSoftmax)                   \
  OP(kSqueeze)                   \
  OP(kSub)                       \
  OP(kSum)                       \
  OP(kTanh)

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
