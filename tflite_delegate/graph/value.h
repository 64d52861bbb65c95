// What flows along the edges of the internal graph.
#ifndef TFLITE_DELEGATE_GRAPH_VALUE_H_
#define TFLITE_DELEGATE_GRAPH_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace block_sparse {
namespace graph {

using Dims = std::vector<int32_t>;

inline int64_t Count(const Dims& dims) {
  int64_t count = 1;
  for (int32_t d : dims) count *= d;
  return count;
}

// Interleaved is TFLite's own order (NHWC for images), without gaps. Planar is one plane a channel, so that one weight
// block meets a long run of pixels; only 4-D values with more than one pixel are ever planar.
enum class Layout { kInterleaved, kPlanar };

// Pixels around an image that a consumer wants to read as zeros.
struct Border {
  int32_t top = 0, left = 0, bottom = 0, right = 0;
  bool any() const { return (top | left | bottom | right) != 0; }
};

// Where a planar value's pixels are, in floats from its first byte:
//   n * batch + c * plane + origin + y * row + x
// Rows are `row` apart, at least the width; what lies between two rows, and past the last one up to a whole vector, may
// hold anything unless the value's border is kept at zero. Ops may write anything there.
struct Planes {
  int32_t row = 0;
  int32_t origin = 0;  // multiple of kMaxLanes
  int32_t plane = 0;   // multiple of kMaxLanes
  int64_t batch = 0;

  // Pixels of one plane as one run that starts at its origin; includes what lies between the rows.
  int32_t run(int32_t height, int32_t width) const { return (height - 1) * row + width; }
};

struct Value {
  Dims dims;  // TFLite's: NHWC for images
  Layout layout = Layout::kInterleaved;
  Planes planes;                    // planar only; set by the planner
  Border border;                    // planar only: kept at zero by the planner
  const float* constant = nullptr;  // interleaved only: data that never changes

  // Planar values only.
  int32_t batch() const { return dims[0]; }
  int32_t height() const { return dims[1]; }
  int32_t width() const { return dims[2]; }
  int32_t channels() const { return dims[3]; }
  int32_t run() const { return planes.run(height(), width()); }
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_VALUE_H_
