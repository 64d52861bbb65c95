// Ops that the graph inserts by itself: transpositions, copies, zero borders and picks of pixels.
#ifndef TFLITE_DELEGATE_GRAPH_LAYOUT_OPS_H_
#define TFLITE_DELEGATE_GRAPH_LAYOUT_OPS_H_

#include <cstdint>
#include <memory>

#include "tflite_delegate/graph/op.h"

namespace block_sparse {
namespace graph {

// The planar value says which image it is; the other may have any shape of as many numbers.
std::unique_ptr<Op> MakeToPlanar(int input, int output);
std::unique_ptr<Op> MakeToInterleaved(int input, int output);
// Interleaved to interleaved: as many numbers as the output has, from the input's number `first` on.
std::unique_ptr<Op> MakeCopy(int input, int output, int64_t first = 0);
// Writes zeros around the image of a planar value and between its rows.
std::unique_ptr<Op> MakeZeroBorder(int value);
// These pixels of a planar value, as another planar value.
std::unique_ptr<Op> MakePick(int input, int output, const Pixels& pixels);

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_LAYOUT_OPS_H_
