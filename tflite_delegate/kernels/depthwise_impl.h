// The kernels behind depthwise.h, as templates over the vectors of a CPU level.
//
// Registers: a strip of one vector of output pixels by kRows output rows; a column of the kernel at a time, whose input
// rows are loaded once each and multiplied into up to kKernel accumulators.
//
//    kernel column kx:   weights w[0][kx] .. w[K-1][kx]                         K registers
//    input row i:        one load, at column x + kx                            1 or 2 in flight
//    output row r:       acc[r] += w[i - r * stride][kx] * input               kRows accumulators
//
// Columns outside the image are masked in the multiply-add (strips at the left and right edge only), rows outside it
// are read from a row of zeros. The last strip of a row overlaps its neighbour instead of reaching into the next row.
#ifndef TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_

#include <algorithm>
#include <utility>

#include "tflite_delegate/kernels/depthwise.h"
#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

// Read in place of rows above and below the image: two vectors of any level and the reach of any kernel.
alignas(64) inline constexpr float kDepthwiseZeros[64] = {};

template <class Simd, int kKernel, int kStride>
class Depthwise {
  using Vec = typename Simd::Vec;
  using Mask = typename Simd::Mask;
  // 7 divides the heights of most networks; without vectors there is nothing to gain.
  static constexpr int kRows = Simd::kLanes > 1 ? 7 : 1;

  struct Plane {
    const float* weights;
    const float* x;  // the pixel under the kernel's first, for the first output pixel of this row
    float* y;
    int64_t x_step, y_step;  // from row to row
    int32_t above, height;   // input rows above the first, and image rows from the kernel's first row on
  };

  // One strip of kCount rows; n pixels of it are stored.
  template <int kCount, bool kEdge>
  static __attribute__((noinline)) void Strip(const DepthwiseArgs& args, const Plane& plane, int32_t column,
                                              int32_t n) {
    constexpr int kInputs = (kCount - 1) * kStride + kKernel;
    const int64_t dilation = kStride == 1 ? args.dilation_width : 1;
    const float* rows[kInputs];
    Unroll<kInputs>([&](auto i) BLOCK_SPARSE_LAMBDA {
      const float* row = plane.x + i * plane.x_step + static_cast<int64_t>(column) * kStride;
      if constexpr (i < kKernel - 1) row = i < plane.above ? kDepthwiseZeros : row;
      if constexpr (i >= (kCount - 1) * kStride + 1) row = i >= plane.height ? kDepthwiseZeros : row;
      rows[i] = row;
    });
    const int32_t* inside = args.inside + static_cast<int64_t>(column) * kStride;

    Vec acc[kCount];
    Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA { acc[r] = Simd::Set1(plane.weights[0]); });
    const auto multiply = [&](auto i, Vec x, const Vec(&w)[kKernel], Mask mask) BLOCK_SPARSE_LAMBDA {
      Unroll<kKernel>([&](auto ky) BLOCK_SPARSE_LAMBDA {
        constexpr int kDown = i - ky;
        if constexpr (kDown >= 0 && kDown % kStride == 0 && kDown / kStride < kCount) {
          Vec& sum = acc[kDown / kStride];
          sum = kEdge ? Simd::FmaWhere(mask, sum, x, w[ky]) : Simd::Fma(sum, x, w[ky]);
        }
      });
    };
    const auto weights = [&](int kx, Vec(&w)[kKernel]) BLOCK_SPARSE_LAMBDA {
      Unroll<kKernel>([&](auto ky) BLOCK_SPARSE_LAMBDA { w[ky] = Simd::Set1(plane.weights[1 + ky * kKernel + kx]); });
    };
    if constexpr (kStride == 1) {
      Unroll<kKernel>([&](auto kx) BLOCK_SPARSE_LAMBDA {
        Vec w[kKernel];
        weights(kx, w);
        const Mask mask = kEdge ? Simd::LoadMask(inside + kx * dilation) : Mask();
        Unroll<kInputs>([&](auto i) BLOCK_SPARSE_LAMBDA { multiply(i, Simd::Load(rows[i] + kx * dilation), w, mask); });
      });
    } else {
      Unroll<kKernel / 2>([&](auto pair) BLOCK_SPARSE_LAMBDA {
        constexpr int kx = 2 * pair;
        Vec w0[kKernel], w1[kKernel];
        weights(kx, w0);
        weights(kx + 1, w1);
        const Mask mask0 = kEdge ? Simd::LoadEvenMask(inside + kx) : Mask();
        const Mask mask1 = kEdge ? Simd::LoadEvenMask(inside + kx + 1) : Mask();
        Unroll<kInputs>([&](auto i) BLOCK_SPARSE_LAMBDA {
          Vec even, odd;
          Simd::LoadPairs(rows[i] + kx, &even, &odd);
          multiply(i, even, w0, mask0);
          multiply(i, odd, w1, mask1);
        });
      });
      Vec w[kKernel];
      weights(kKernel - 1, w);
      const Mask mask = kEdge ? Simd::LoadEvenMask(inside + kKernel - 1) : Mask();
      Unroll<kInputs>([&](auto i) BLOCK_SPARSE_LAMBDA { multiply(i, Simd::LoadEven(rows[i] + kKernel - 1), w, mask); });
    }

    const Vec low = Simd::Set1(args.low), high = Simd::Set1(args.high);
    Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA {
      Vec v = Simd::Clamp(acc[r], low, high);
      if constexpr (kStride == 2) v = Simd::InOrder(v);
      float* y = plane.y + r * plane.y_step + column;
      if (!kEdge || n == Simd::kLanes) {
        Simd::Store(y, v);
      } else {
        Simd::StoreN(y, v, n);
      }
    });
  }

  template <int kCount>
  static void Rows(const DepthwiseArgs& args, const Plane& plane) {
    const int64_t dilation = kStride == 1 ? args.dilation_width : 1;
    const int32_t width = args.y_width, n = std::min(width, Simd::kLanes);
    // Columns from a strip's first pixel to its last one.
    const int64_t reach = (Simd::kLanes - 1) * kStride + (kKernel - 1) * dilation;
    for (int32_t column = 0; column < width; column += Simd::kLanes) {
      const int32_t at = std::max(0, std::min(column, width - Simd::kLanes));
      const int64_t left = static_cast<int64_t>(at) * kStride - args.pad_left;
      if (n == Simd::kLanes && left >= 0 && left + reach < args.x_width) {
        Strip<kCount, false>(args, plane, at, n);
      } else {
        Strip<kCount, true>(args, plane, at, n);
      }
    }
  }

  template <int... kCount>
  static void Remainder(int32_t rows, const DepthwiseArgs& args, const Plane& plane,
                        std::integer_sequence<int, kCount...>) {
    (void)((rows == kCount + 1 ? (Rows<kCount + 1>(args, plane), true) : false) || ...);
  }

 public:
  static void Run(const DepthwiseArgs& args) {
    constexpr int kWeights = 1 + kKernel * kKernel;
    const int32_t dilation = kStride == 1 ? args.dilation_height : 1;
    for (int32_t c = args.first; c < args.first + args.count; c++) {
      const float* x = args.x + static_cast<int64_t>(c / args.multiplier) * args.x_plane;
      float* y = args.y + static_cast<int64_t>(c) * args.y_plane;
      // A dilated kernel sees every dilation-th row: as many images, each with its rows that far apart.
      for (int32_t phase = 0; phase < std::min(dilation, args.y_height); phase++) {
        const int32_t rows = (args.y_height - phase + dilation - 1) / dilation;
        for (int32_t r = 0; r < rows; r += kRows) {
          const int32_t out = phase + r * dilation, in = out * kStride - args.pad_top;
          Plane plane;
          plane.weights = args.weights + static_cast<int64_t>(c) * kWeights;
          plane.x = x + static_cast<int64_t>(in) * args.x_row - args.pad_left;
          plane.y = y + static_cast<int64_t>(out) * args.y_row;
          plane.x_step = static_cast<int64_t>(dilation) * args.x_row;
          plane.y_step = static_cast<int64_t>(dilation) * args.y_row;
          plane.above = in >= 0 ? 0 : (-in + dilation - 1) / dilation;
          plane.height = in >= args.x_height ? 0 : (args.x_height - in + dilation - 1) / dilation;
          if (rows - r >= kRows) {
            Rows<kRows>(args, plane);
          } else {
            Remainder(rows - r, args, plane, std::make_integer_sequence<int, kRows - 1>());
          }
        }
      }
    }
  }
};

// Adds one tap at a time to a row of sums that lies in the output.
template <class Simd>
struct DepthwiseAny {
  static void AddTap(const float* x, int32_t stride, float weight, float* y, int32_t n) {
    if (stride != 1) {
      for (int32_t i = 0; i < n; i++) y[i] += x[static_cast<int64_t>(i) * stride] * weight;
      return;
    }
    const typename Simd::Vec w = Simd::Set1(weight);
    int32_t i = 0;
    for (; i + Simd::kLanes <= n; i += Simd::kLanes) {
      Simd::Store(y + i, Simd::Fma(Simd::Load(y + i), Simd::Load(x + i), w));
    }
    if (i < n) Simd::StoreN(y + i, Simd::Fma(Simd::LoadN(y + i, n - i), Simd::LoadN(x + i, n - i), w), n - i);
  }

  static void Run(const DepthwiseArgs& args) {
    const int32_t taps = args.kernel_height * args.kernel_width;
    for (int32_t c = args.first; c < args.first + args.count; c++) {
      const float* x = args.x + static_cast<int64_t>(c / args.multiplier) * args.x_plane;
      const float* weights = args.weights + static_cast<int64_t>(c) * (1 + taps);
      for (int32_t oy = 0; oy < args.y_height; oy++) {
        float* y = args.y + static_cast<int64_t>(c) * args.y_plane + static_cast<int64_t>(oy) * args.y_row;
        std::fill(y, y + args.y_width, weights[0]);
        for (int32_t t = 0; t < taps; t++) {
          const int64_t iy = static_cast<int64_t>(oy) * args.stride_height - args.pad_top +
                             static_cast<int64_t>(t / args.kernel_width) * args.dilation_height;
          if (iy < 0 || iy >= args.x_height) continue;
          // Output columns whose pixel under this tap is inside: 0 <= ox * stride + shift < width.
          const int64_t stride = args.stride_width;
          const int64_t shift = static_cast<int64_t>(t % args.kernel_width) * args.dilation_width - args.pad_left;
          const int64_t first = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
          const int64_t last =
              std::min<int64_t>(args.y_width, args.x_width <= shift ? 0 : (args.x_width - shift + stride - 1) / stride);
          if (first >= last) continue;
          AddTap(x + iy * args.x_row + first * stride + shift, args.stride_width, weights[1 + t], y + first,
                 static_cast<int32_t>(last - first));
        }
        for (int32_t ox = 0; ox < args.y_width; ox++) {
          const float raised = args.low > y[ox] ? args.low : y[ox];
          y[ox] = args.high < raised ? args.high : raised;
        }
      }
    }
  }
};

template <class Simd>
constexpr DepthwiseKernels MakeDepthwiseKernels() {
  return {{Depthwise<Simd, 3, 1>::Run, Depthwise<Simd, 5, 1>::Run},
          {Depthwise<Simd, 3, 2>::Run, Depthwise<Simd, 5, 2>::Run},
          DepthwiseAny<Simd>::Run};
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_
