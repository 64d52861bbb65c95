#include "tflite_delegate/graph/layout_ops.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "tflite_delegate/graph/graph.h"

namespace block_sparse {
namespace graph {

namespace {

// Pixels and channels that change places at a time, by way of memory of their own: a column of a matrix steps by a
// power of two more often than not, so that its numbers share a few lines of the cache.
constexpr int32_t kTile = 16;
// Channels of a task.
constexpr int32_t kTaskChannels = 128;

class Transpose : public Op {
 public:
  Transpose(int input, int output, bool to_planar) : Op({input}, output), to_planar_(to_planar) {}
  const char* name() const override { return to_planar_ ? "to_planar" : "to_interleaved"; }

  bool Prepare(const Graph& graph, const kernels::KernelTable&, int) override {
    image_ = graph.value(to_planar_ ? output : inputs[0]);
    return true;
  }

  void Run(const RunContext& context) const override {
    const float* from = context.data[inputs[0]];
    float* to = context.data[output];
    const Planes& planes = image_.planes;
    const int32_t height = image_.height(), width = image_.width(), channels = image_.channels();
    const int32_t parts = (channels + kTaskChannels - 1) / kTaskChannels;
    context.pool->For(image_.batch() * height * parts, [&](int task) {
      const int32_t i = task / parts, n = i / height, y = i % height;
      const int64_t planar = n * planes.batch + planes.origin + static_cast<int64_t>(y) * planes.row;
      const int64_t interleaved = static_cast<int64_t>(i) * width * channels;
      const int32_t first = task % parts * kTaskChannels, last = std::min(channels, first + kTaskChannels);
      for (int32_t c = first; c < last; c += kTile) {
        for (int32_t x = 0; x < width; x += kTile) {
          const int32_t wide = std::min(kTile, width - x), deep = std::min(kTile, last - c);
          const int64_t plane = planar + static_cast<int64_t>(c) * planes.plane + x;
          const int64_t pixel = interleaved + static_cast<int64_t>(x) * channels + c;
          if (to_planar_) {
            Tile(from + pixel, channels, wide, deep, to + plane, planes.plane);
          } else {
            Tile(from + plane, planes.plane, deep, wide, to + pixel, channels);
          }
        }
      }
    });
  }

 private:
  static void Tile(const float* from, int64_t from_row, int32_t rows, int32_t columns, float* to, int64_t to_row) {
    float tile[kTile][kTile];
    for (int32_t r = 0; r < rows; r++, from += from_row) {
      for (int32_t c = 0; c < columns; c++) tile[c][r] = from[c];
    }
    for (int32_t c = 0; c < columns; c++, to += to_row) memcpy(to, tile[c], static_cast<size_t>(rows) * sizeof(float));
  }

  bool to_planar_;
  Value image_;
};

class Copy : public Op {
 public:
  Copy(int input, int output, int64_t first) : Op({input}, output), first_(first) {}
  const char* name() const override { return "copy"; }
  bool Prepare(const Graph& graph, const kernels::KernelTable&, int) override {
    bytes_ = static_cast<size_t>(Count(graph.value(output).dims)) * sizeof(float);
    return true;
  }
  void Run(const RunContext& context) const override {
    const float* from = context.data[inputs[0]] + first_;
    if (context.data[output] != from) memcpy(context.data[output], from, bytes_);
  }

 private:
  int64_t first_;
  size_t bytes_ = 0;
};

class ZeroBorder : public Op {
 public:
  explicit ZeroBorder(int value) : Op({value}, value) {}
  const char* name() const override { return "zero_border"; }
  bool Prepare(const Graph& graph, const kernels::KernelTable&, int) override {
    image_ = graph.value(output);
    return true;
  }

  bool InputRows(size_t, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const override {
    *in_begin = begin;
    *in_end = end;
    return true;
  }

  void Run(const RunContext& context) const override { RunRows(context, 0, image_.height()); }

  void RunRows(const RunContext& context, int32_t begin, int32_t end) const override {
    const Planes& planes = image_.planes;
    const Border& border = image_.border;
    const int32_t width = image_.width(), height = image_.height(), channels = image_.channels();
    const int32_t before = border.top * planes.row + border.left;
    const int32_t gap = planes.row - width;
    const int32_t after = border.bottom * planes.row + border.right;
    // The producer may have written a little before its first row again, over zeros that were there.
    const int32_t first_gap = std::max(0, begin - 1 - kernels::kMaxLanes / planes.row);
    const int32_t last_gap = std::min(end, height - 1);
    // A task of a few channels, so that handing it out does not cost more than doing it.
    constexpr int32_t kChannels = 32;
    const int32_t tasks = (channels + kChannels - 1) / kChannels;
    context.pool->For(image_.batch() * tasks, [&](int task) {
      float* batch = context.data[output] + task / tasks * planes.batch;
      const int32_t first = task % tasks * kChannels, last = std::min(channels, first + kChannels);
      for (int32_t c = first; c < last; c++) {
        float* pixels = batch + static_cast<int64_t>(c) * planes.plane + planes.origin;
        if (begin == 0) std::fill(pixels - before, pixels, 0.0f);
        float* past = pixels + width;
        for (int32_t y = first_gap; y < last_gap; y++) {
          float* at = past + static_cast<int64_t>(y) * planes.row;
          if (gap == 1) {
            *at = 0.0f;
          } else {
            std::fill(at, at + gap, 0.0f);
          }
        }
        if (end < height) continue;
        // From the last pixel on, only as far as a reader looks: a whole gap may not fit into the plane.
        past = pixels + image_.run();
        std::fill(past, past + after, 0.0f);
      }
    });
  }

 private:
  Value image_;
};

class PickPixels : public Op {
 public:
  PickPixels(int input, int output, const Pixels& pixels) : Op({input}, output), pixels_(pixels) {}
  const char* name() const override { return "pick"; }

  bool Prepare(const Graph& graph, const kernels::KernelTable& kernels, int) override {
    from_ = graph.value(inputs[0]);
    to_ = graph.value(output);
    pick_ = pixels_.across == 2 ? kernels.strided.pick : nullptr;
    return true;
  }

  bool InputRows(size_t, int32_t begin, int32_t end, int32_t* in_begin, int32_t* in_end) const override {
    *in_begin = begin * pixels_.down;
    *in_end = (end - 1) * pixels_.down + 1;
    return true;
  }
  bool ComputesLittle() const override { return true; }
  bool CutsClean(int32_t, const Planes&) const override { return true; }

  void Run(const RunContext& context) const override { RunRows(context, 0, to_.height()); }

  void RunRows(const RunContext& context, int32_t begin, int32_t end) const override {
    constexpr int32_t kChannels = 16;
    const int32_t channels = to_.channels(), tasks = (channels + kChannels - 1) / kChannels;
    const int64_t from_row = static_cast<int64_t>(from_.planes.row) * pixels_.down, to_row = to_.planes.row;
    context.pool->For(to_.batch() * tasks, [&](int task) {
      const int64_t batch = task / tasks;
      const int32_t first = task % tasks * kChannels, last = std::min(channels, first + kChannels);
      for (int64_t c = first; c < last; c++) {
        const float* from = context.data[inputs[0]] + batch * from_.planes.batch + c * from_.planes.plane +
                            from_.planes.origin + begin * from_row;
        float* to =
            context.data[output] + batch * to_.planes.batch + c * to_.planes.plane + to_.planes.origin + begin * to_row;
        if (pick_ != nullptr) {
          pick_(from, from_row, end - begin, to_.width(), to, to_row);
          continue;
        }
        for (int32_t y = begin; y < end; y++, from += from_row, to += to_row) {
          for (int32_t x = 0; x < to_.width(); x++) to[x] = from[static_cast<int64_t>(x) * pixels_.across];
        }
      }
    });
  }

 private:
  Pixels pixels_;
  Value from_, to_;
  void (*pick_)(const float*, int64_t, int32_t, int32_t, float*, int64_t) = nullptr;
};

}  // namespace

std::unique_ptr<Op> MakeToPlanar(int input, int output) { return std::make_unique<Transpose>(input, output, true); }
std::unique_ptr<Op> MakeToInterleaved(int input, int output) {
  return std::make_unique<Transpose>(input, output, false);
}
std::unique_ptr<Op> MakeCopy(int input, int output, int64_t first) {
  return std::make_unique<Copy>(input, output, first);
}
std::unique_ptr<Op> MakeZeroBorder(int value) { return std::make_unique<ZeroBorder>(value); }
std::unique_ptr<Op> MakePick(int input, int output, const Pixels& pixels) {
  return std::make_unique<PickPixels>(input, output, pixels);
}

}  // namespace graph
}  // namespace block_sparse
