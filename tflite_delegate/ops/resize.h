// Images of another size, by the nearest pixel or by bilinear interpolation.
#ifndef TFLITE_DELEGATE_OPS_RESIZE_H_
#define TFLITE_DELEGATE_OPS_RESIZE_H_

#include <cstdint>

#include "tflite_delegate/graph/graph.h"

namespace block_sparse {
namespace ops {

struct ResizeOptions {
  bool bilinear = false;  // else nearest
  bool align_corners = false, half_pixel_centers = false;
  int32_t height = 1, width = 1;
};

// Adds the op; returns its output.
int AddResize(graph::Graph* graph, int input, const ResizeOptions& options);

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_RESIZE_H_
