// A 4-D value as ops on planar images see it.
#ifndef TFLITE_DELEGATE_OPS_IMAGE_H_
#define TFLITE_DELEGATE_OPS_IMAGE_H_

#include <algorithm>
#include <cstdint>

#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/graph/value.h"

namespace block_sparse {
namespace ops {

struct Image {
  int32_t batch = 0, height = 0, width = 0, channels = 0;
  graph::Planes planes;
  bool planar = false;  // else one pixel: its channels are planes without room for whole vectors

  Image() = default;
  explicit Image(const graph::Value& value)
      : batch(value.dims[0]),
        height(value.dims[1]),
        width(value.dims[2]),
        channels(value.dims[3]),
        planes(value.planes),
        planar(value.layout == graph::Layout::kPlanar) {
    if (planar) return;
    planes.row = 1;
    planes.origin = 0;
    planes.plane = 1;
    planes.batch = channels;
  }

  int64_t Plane(int32_t n, int32_t c) const {
    return n * planes.batch + static_cast<int64_t>(c) * planes.plane + planes.origin;
  }
  // Pixels of a plane as one run of whole vectors, which may be read and written.
  int32_t Run() const {
    if (!planar) return 1;
    return (planes.run(height, width) + kVector - 1) / kVector * kVector;
  }

  static constexpr int32_t kVector = 16;
};

// Shares out `channels` planes of `batch` images: body(n, first channel, channels). `work` is what one plane costs, in
// the order of a number read, multiplied or written.
template <class Body>
void ForEachPlane(graph::ThreadPool* pool, int32_t batch, int32_t channels, int64_t work, const Body& body) {
  constexpr int64_t kTask = 1 << 14;  // less is not worth handing out
  int64_t pieces = pool->threads() == 1 ? 1 : 4 * pool->threads();
  pieces = std::max<int64_t>(1, std::min(pieces, work * channels / kTask));
  const int32_t step = static_cast<int32_t>((channels + pieces - 1) / pieces);
  const int32_t tasks = (channels + step - 1) / step;
  pool->For(batch * tasks, [&](int task) {
    const int32_t first = task % tasks * step;
    body(task / tasks, first, std::min(step, channels - first));
  });
}

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_IMAGE_H_
