// The kernels behind pool.h, as templates over the vectors of a CPU level: down the columns first, a vector of columns
// at a time, into one row of scratch; then along that row.
#ifndef TFLITE_DELEGATE_KERNELS_POOL_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_POOL_IMPL_H_

#include <algorithm>

#include "tflite_delegate/kernels/pool.h"
#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

template <class Simd, bool kMaximum>
class Pool {
  using Vec = typename Simd::Vec;
  static constexpr int kLanes = Simd::kLanes;

  static BLOCK_SPARSE_INLINE Vec Fold(Vec all, Vec x) { return kMaximum ? Simd::MaxOrNan(all, x) : Simd::Add(all, x); }
  static BLOCK_SPARSE_INLINE float FoldNumbers(float all, float x) {
    return kMaximum ? (all > x || all != all ? all : x) : all + x;
  }

  // body(column, lanes) for vectors that cover [0, width); the last one overlaps its neighbour where there is one.
  template <class Body>
  static BLOCK_SPARSE_INLINE void Cover(int32_t width, const Body& body) {
    if (width < kLanes) {
      body(0, width);
      return;
    }
    for (int32_t i = 0; i < width; i += kLanes) body(std::min(i, width - kLanes), kLanes);
  }

  // rows > 0 rows of the image into t.
  static void Down(const float* x, int64_t row, int32_t rows, bool outside, const PoolArgs& args, float* t) {
    Cover(args.x_width, [&](int32_t i, int n) BLOCK_SPARSE_LAMBDA {
      const float* p = x + i;
      if (n == kLanes) {
        Vec all = Simd::Load(p);
        for (int32_t k = 1; k < rows; k++) all = Fold(all, Simd::Load(p += row));
        if (kMaximum && outside) all = Fold(all, Simd::Set1(args.outside));
        Simd::Store(t + i, all);
      } else {
        Vec all = Simd::LoadN(p, n);
        for (int32_t k = 1; k < rows; k++) all = Fold(all, Simd::LoadN(p += row, n));
        if (kMaximum && outside) all = Fold(all, Simd::Set1(args.outside));
        Simd::Store(t + i, all);
      }
    });
  }

  static BLOCK_SPARSE_INLINE Vec Finish(Vec all, const PoolArgs& args, int32_t column, int32_t rows) {
    if (!kMaximum) {
      all = Simd::Div(all, Simd::Mul(Simd::Load(args.columns + column), Simd::Set1(static_cast<float>(rows))));
    }
    return Simd::Clamp(all, Simd::Set1(args.low), Simd::Set1(args.high));
  }

  // t is where the window of the first output column starts.
  static void Along(const float* t, int32_t rows, const PoolArgs& args, float* y) {
    const auto store = [&](float* to, Vec v, int n) BLOCK_SPARSE_LAMBDA {
      if (n == kLanes) {
        Simd::Store(to, v);
      } else {
        Simd::StoreN(to, v, n);
      }
    };
    if (args.stride_width == 1) {
      Cover(args.y_width, [&](int32_t i, int n) BLOCK_SPARSE_LAMBDA {
        Vec all = Simd::Load(t + i);
        for (int32_t k = 1; k < args.window_width; k++) all = Fold(all, Simd::Load(t + i + k));
        store(y + i, Finish(all, args, i, rows), n);
      });
    } else if (args.stride_width == 2 && args.y_width > 1) {
      Cover(args.y_width, [&](int32_t i, int n) BLOCK_SPARSE_LAMBDA {
        const float* p = t + static_cast<int64_t>(2) * i;
        Vec all, odd;
        Simd::LoadPairs(p, &all, &odd);
        if (args.window_width > 1) all = Fold(all, odd);
        for (int32_t k = 2; k < args.window_width; k++) all = Fold(all, Simd::LoadEven(p + k));
        store(y + i, Finish(Simd::InOrder(all), args, i, rows), n);
      });
    } else {
      for (int32_t i = 0; i < args.y_width; i++) {
        const float* p = t + static_cast<int64_t>(i) * args.stride_width;
        float all = p[0];
        for (int32_t k = 1; k < args.window_width; k++) all = FoldNumbers(all, p[k]);
        Simd::StoreN(y + i, Finish(Simd::Set1(all), args, i, rows), 1);
      }
    }
  }

 public:
  static void Run(const PoolArgs& args) {
    // Columns outside the image, which Down leaves alone.
    float* t = args.scratch;
    const int32_t width = (args.y_width - 1) * args.stride_width + args.window_width;
    std::fill(t, t + args.pad_left, args.outside);
    for (int32_t i = args.pad_left + args.x_width; i < width; i++) t[i] = args.outside;
    for (int32_t c = 0; c < args.count; c++) {
      const float* x = args.x + static_cast<int64_t>(c) * args.x_plane;
      float* y = args.y + static_cast<int64_t>(c) * args.y_plane;
      for (int32_t oy = 0; oy < args.y_height; oy++) {
        const int32_t top = oy * args.stride_height - args.pad_top;
        const int32_t first = std::max(0, top), last = std::min(args.x_height, top + args.window_height);
        Down(x + static_cast<int64_t>(first) * args.x_row, args.x_row, last - first, last - first < args.window_height,
             args, t + args.pad_left);
        // A vector stored over a narrow image reaches past it.
        if (args.x_width < kLanes) {
          for (int32_t i = args.pad_left + args.x_width; i < width; i++) t[i] = args.outside;
        }
        Along(t, last - first, args, y + static_cast<int64_t>(oy) * args.y_row);
      }
    }
  }
};

template <class Simd>
constexpr PoolKernels MakePoolKernels() {
  return {Pool<Simd, true>::Run, Pool<Simd, false>::Run};
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_POOL_IMPL_H_
