// Values one after the other along one axis.
#ifndef TFLITE_DELEGATE_OPS_CONCAT_H_
#define TFLITE_DELEGATE_OPS_CONCAT_H_

#include <vector>

#include "tflite_delegate/graph/graph.h"

namespace block_sparse {
namespace ops {

// Adds the op and the conversions of layout it needs; returns its output, or -1 if the shapes do not fit.
int AddConcat(graph::Graph* graph, std::vector<int> inputs, int axis);

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_CONCAT_H_
