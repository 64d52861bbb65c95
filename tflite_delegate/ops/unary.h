// Functions of one number, applied to whole values in either layout. They return the output.
#ifndef TFLITE_DELEGATE_OPS_UNARY_H_
#define TFLITE_DELEGATE_OPS_UNARY_H_

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/kernels/elementwise.h"

namespace block_sparse {
namespace ops {

// p and q as kernels::Unary says.
int AddUnary(graph::Graph* graph, kernels::Unary kind, int input, float p = 0.0f, float q = 0.0f);
// Slopes below 0: one, or one a channel. They must outlive the graph.
int AddPrelu(graph::Graph* graph, int input, const float* slopes, bool per_channel);

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_UNARY_H_
