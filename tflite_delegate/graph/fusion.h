// Rewrites of the op list before planes are planned: a pad goes into its consumer; an addition, of a value or of a
// constant, and a clamp go into their producer. Each looks at ops only through their fusion hooks (op.h).
#ifndef TFLITE_DELEGATE_GRAPH_FUSION_H_
#define TFLITE_DELEGATE_GRAPH_FUSION_H_

#include <memory>
#include <vector>

#include "tflite_delegate/graph/op.h"

namespace block_sparse {
namespace graph {

// `outputs` are values that must stay.
void Fuse(std::vector<std::unique_ptr<Op>>* ops, size_t value_count, const std::vector<int>& outputs);

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_FUSION_H_
