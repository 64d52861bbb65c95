// A 4-D value as ops on planar images see it.
#ifndef TFLITE_DELEGATE_OPS_IMAGE_H_
#define TFLITE_DELEGATE_OPS_IMAGE_H_

#include <algorithm>
#include <cstdint>

#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/graph/value.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace ops {

inline int64_t WholeLines(int64_t pixels) {
  return (pixels + kernels::kMaxLanes - 1) / kernels::kMaxLanes * kernels::kMaxLanes;
}

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
    return static_cast<int32_t>(WholeLines(planes.run(height, width)));
  }
};

// Whether threads share an image by its rows rather than by its channels. A convolution then reads what its own thread
// made, but for a row or two, and not half of it from another core's cache. The shares of a small image, though, are
// mostly cache lines that lie in both: with 5 lines rather than 16, MobileNetV1 ran 0.99 times as fast with two
// threads. With 16, that and V2, V3-Large, EfficientNet-Lite0 and ResNet-50 ran 1.01 to 1.03 times as fast, and 1.04 to
// 1.2 times where the cores share no cache. Elementwise ops are left by channels, as most of what they read is made: by
// rows, from 5 lines on, MobileNetV3-Large took 12 % longer.
inline bool SharesRows(int32_t run, int threads) {
  constexpr int32_t kLines = 16;  // of each plane, a share
  return run / kernels::kMaxLanes >= kLines * threads;
}

// Shares out `channels` planes of `batch` images, each in so many parts: body(n, part, first channel, channels). `work`
// is what one plane costs, in the order of a number read, multiplied or written.
template <class Body>
void ForEachPlane(graph::ThreadPool* pool, int32_t batch, int32_t parts, int32_t channels, int64_t work,
                  const Body& body) {
  constexpr int64_t kTask = 1 << 14;  // less is not worth handing out
  int64_t pieces = pool->threads() == 1 ? 1 : 4 * pool->threads();
  pieces = std::max<int64_t>(1, std::min(pieces, work * channels / kTask) / parts);
  const int32_t step = static_cast<int32_t>((channels + pieces - 1) / pieces);
  const int32_t tasks = (channels + step - 1) / step;
  pool->For(batch * parts * tasks, [&](int task) {
    const int32_t first = task % tasks * step;
    body(task / (tasks * parts), task / tasks % parts, first, std::min(step, channels - first));
  });
}

// The same of whole planes: body(n, first channel, channels).
template <class Body>
void ForEachPlane(graph::ThreadPool* pool, int32_t batch, int32_t channels, int64_t work, const Body& body) {
  ForEachPlane(pool, batch, 1, channels, work,
               [&](int32_t n, int32_t, int32_t first, int32_t count) { body(n, first, count); });
}

}  // namespace ops
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPS_IMAGE_H_
