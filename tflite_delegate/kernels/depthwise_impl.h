// The kernels behind depthwise.h, as templates over the vectors of a CPU level.
//
// Registers: a strip of one vector of output pixels by up to kMostRows output rows; a column of the kernel at a time,
// whose input rows are loaded once each and multiplied into up to kKernel accumulators.
//
//    kernel column kx:   weights w[0][kx] .. w[K-1][kx]                         K registers
//    input row i:        one load, at column x + kx                            1 or 2 in flight
//    output row r:       acc[r] += w[i - r * stride][kx] * input               kMostRows accumulators
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

template <class Simd, int kKernel, int kStride, bool kDilated>
class Depthwise {
  using Vec = typename Simd::Vec;
  using Mask = typename Simd::Mask;

 public:
  // Without vectors there is nothing to gain.
  static constexpr int kRows = Simd::kLanes == 1 ? 1 : Simd::kRegisters >= 32 && !kDilated ? kDepthwiseRows : 4;

 private:
  // Where just one more is left, it comes along.
  static constexpr int kMostRows = kRows == kDepthwiseRows && kKernel == 3 && kStride == 1 ? kRows + 1 : kRows;

  // Strips of kCount rows, one after the other: along the rows of one plane, or in the same place of several planes.
  struct Strips {
    int32_t count;
    const float* x;  // the pixel under the kernel's first, for the first output pixel
    float* y;
    const float* weights;
    const int32_t* inside;
    int64_t x_step, y_step, weights_step;  // from strip to strip
    int64_t x_row, y_row;                  // from row to row
    int32_t above, below;                  // input rows before this are above the image, from this on below it
    int32_t pixels;                        // stored of each row
    int32_t dilation;
    float low, high;
  };

  // Rows in an order that keeps those apart which add to the same output row.
  static constexpr int Spread(int position, int count) {
    for (int first = 0; first < 4; first++) {
      const int rows = (count - first + 3) / 4;
      if (position < rows) return first + 4 * position;
      position -= rows;
    }
    return 0;
  }

  template <class Fn, int... kPosition>
  static BLOCK_SPARSE_INLINE void ForEachRow(std::integer_sequence<int, kPosition...>, const Fn& fn) {
    (fn(std::integral_constant<int, Spread(kPosition, sizeof...(kPosition))>()), ...);
  }

  template <int kCount, bool kRowEdge, bool kColumnEdge>
  static __attribute__((noinline)) void Run(const Strips& strips) {
    constexpr int kInputs = (kCount - 1) * kStride + kKernel;
    const int64_t dilation = kDilated ? strips.dilation : 1;
    int64_t x_row = strips.x_row, y_row = strips.y_row;
    const float* x = strips.x;
    float* y = strips.y;
    const float* weights = strips.weights;
    const int64_t x_step = strips.x_step, y_step = strips.y_step, weights_step = strips.weights_step;
    const int32_t count = strips.count, pixels = strips.pixels;
    const Vec low = Simd::Set1(strips.low), high = Simd::Set1(strips.high);

    // Rows that may lie outside the image have pointers of their own.
    constexpr auto kMayBeAbove = [](int i) constexpr { return kRowEdge && i < kKernel - 1; };
    constexpr auto kMayBeBelow = [](int i) constexpr { return kRowEdge && i > (kCount - 1) * kStride; };
    const float* rows[kInputs];
    int64_t steps[kInputs];
    Mask masks[kKernel];
    if constexpr (kRowEdge) {
      Unroll<kInputs>([&](auto i) BLOCK_SPARSE_LAMBDA {
        const bool outside = (kMayBeAbove(i) && i < strips.above) || (kMayBeBelow(i) && i >= strips.below);
        rows[i] = outside ? kDepthwiseZeros : x + i * x_row;
        steps[i] = outside ? 0 : x_step;
      });
    }
    if constexpr (kColumnEdge) {
      Unroll<kKernel>([&](auto kx) BLOCK_SPARSE_LAMBDA {
        const int32_t* inside = strips.inside + kx * dilation;
        masks[kx] = kStride == 1 ? Simd::LoadMask(inside) : Simd::LoadEvenMask(inside);
      });
    }
    const auto row = [&](auto i)
                         BLOCK_SPARSE_LAMBDA { return kMayBeAbove(i) || kMayBeBelow(i) ? rows[i] : x + i * x_row; };
    const auto fma = [&](auto kx, Vec& sum, Vec x, Vec weight) BLOCK_SPARSE_LAMBDA {
      sum = kColumnEdge ? Simd::FmaWhere(masks[kx], sum, x, weight) : Simd::Fma(sum, x, weight);
    };

    for (int32_t s = 0; s < count; s++) {
      // As if they changed: there are not enough registers to keep all their multiples in.
      asm("" : "+r"(x_row), "+r"(y_row));
      Vec acc[kCount];
      Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA { acc[r] = Simd::InRegister(Simd::Set1(weights[0])); });
      // Columns kx, kx + 1, ... of the kernel times one row of the image.
      const auto add_row = [&](auto i, auto first, const auto& columns) BLOCK_SPARSE_LAMBDA {
        Unroll<sizeof(columns) / sizeof(Vec)>([&](auto k) BLOCK_SPARSE_LAMBDA {
          constexpr std::integral_constant<int, first + k> kColumn;
          Unroll<kKernel>([&](auto ky) BLOCK_SPARSE_LAMBDA {
            constexpr int kDown = i - ky;
            if constexpr (kDown >= 0 && kDown % kStride == 0 && kDown / kStride < kCount) {
              fma(kColumn, acc[kDown / kStride], columns[k], Simd::Set1(weights[1 + ky * kKernel + kColumn]));
            }
          });
        });
      };
      // Three columns of the kernel at a time, so that their weights fit the registers.
      ForEachRow(std::make_integer_sequence<int, kInputs>(), [&](auto i) BLOCK_SPARSE_LAMBDA {
        const float* from = row(i);
        Vec columns[3];
        if constexpr (kStride == 1) {
          Unroll<3>([&](auto k)
                        BLOCK_SPARSE_LAMBDA { columns[k] = Simd::InRegister(Simd::Load(from + k * dilation)); });
        } else {
          Simd::LoadPairs(from, &columns[0], &columns[1]);
          columns[2] = Simd::NextEven(columns[0], from);
        }
        add_row(i, std::integral_constant<int, 0>(), columns);
      });
      if constexpr (kKernel == 5) {
        ForEachRow(std::make_integer_sequence<int, kInputs>(), [&](auto i) BLOCK_SPARSE_LAMBDA {
          const float* from = row(i) + 3 * dilation;
          Vec columns[2];
          if constexpr (kStride == 1) {
            Unroll<2>([&](auto k)
                          BLOCK_SPARSE_LAMBDA { columns[k] = Simd::InRegister(Simd::Load(from + k * dilation)); });
          } else {
            Simd::LoadPairs(from, &columns[0], &columns[1]);
          }
          add_row(i, std::integral_constant<int, 3>(), columns);
        });
      }
      if constexpr (kStride == 2) {
        Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA { acc[r] = Simd::InOrder(acc[r]); });
      }
      Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA { acc[r] = Simd::Clamp(acc[r], low, high); });
      if (!kColumnEdge || pixels == Simd::kLanes) {
        Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA { Simd::Store(y + r * y_row, acc[r]); });
      } else {
        Unroll<kCount>([&](auto r) BLOCK_SPARSE_LAMBDA { Simd::StoreN(y + r * y_row, acc[r], pixels); });
      }
      x += x_step;
      y += y_step;
      weights += weights_step;
      if constexpr (kRowEdge) Unroll<kInputs>([&](auto i) BLOCK_SPARSE_LAMBDA { rows[i] += steps[i]; });
    }
  }

  // Strips of so many rows are made for the inside of an image too; for large kernels that would be too much code.
  static constexpr bool HasInner(int count) {
    return !kDilated && (count >= kRows || (count == 4 && kRows > 4 && kKernel == 3));
  }

  // As many rows as there are left. `inner`: all columns that they need are inside the image, `whole`: all rows too.
  template <int kCount>
  static void Dispatch(int32_t rows, bool inner, bool whole, const Strips& strips) {
    if (rows < kCount) {
      if constexpr (kCount > 1) {
        Dispatch<(kCount > kRows ? kRows : kCount > 4 ? 4 : kCount / 2)>(rows, inner, whole, strips);
      }
    } else if (HasInner(kCount) && inner) {
      whole ? Run<kCount, !HasInner(kCount), !HasInner(kCount)>(strips) : Run<kCount, true, !HasInner(kCount)>(strips);
    } else {
      Run<kCount, true, true>(strips);
    }
  }
  static int32_t RowsOf(int32_t left) {
    if (left == kMostRows) return kMostRows;
    // Twice four rather than seven and one.
    return left >= kRows && left != 8 ? kRows : left >= 4 && kRows >= 4 ? 4 : left >= 2 && kRows >= 2 ? 2 : 1;
  }

  // `count` planes, the first of which is c. Each strip is done in all of them before the next.
  static void Planes(const DepthwiseArgs& args, int32_t c, int32_t count) {
    const int32_t dilation = kDilated ? args.dilation_height : 1;
    const int32_t lanes = Simd::kLanes, width = args.y_width;
    const float* x = args.x + static_cast<int64_t>(c / args.multiplier) * args.x_plane - args.pad_left;
    float* y = args.y + static_cast<int64_t>(c) * args.y_plane;
    Strips strips;
    strips.x_row = static_cast<int64_t>(dilation) * args.x_row;
    strips.y_row = static_cast<int64_t>(dilation) * args.y_row;
    strips.dilation = kDilated ? args.dilation_width : 1;
    strips.low = args.low;
    strips.high = args.high;
    // Strips in between that need no mask: those from `first` on, before `last`.
    const int32_t reach = (lanes - 1) * kStride + (kKernel - 1) * strips.dilation + 1;
    const int32_t first = (args.pad_left + lanes * kStride - 1) / (lanes * kStride);
    const int32_t room = args.x_width + args.pad_left - reach;
    const int32_t last = room < 0 ? 0 : std::min(width / lanes, room / (lanes * kStride) + 1);

    // A dilated kernel sees every dilation-th row: as many images, each with its rows that far apart.
    for (int32_t phase = 0; phase < std::min(dilation, args.y_height); phase++) {
      int32_t left = kDilated ? (args.y_height - phase + dilation - 1) / dilation : args.y_height;
      for (int32_t out = phase; left > 0;) {
        const int32_t rows = RowsOf(left), in = out * kStride - args.pad_top;
        strips.above = in >= 0 ? 0 : kDilated ? (-in + dilation - 1) / dilation : -in;
        strips.below = in >= args.x_height ? 0
                       : kDilated          ? (args.x_height - in + dilation - 1) / dilation
                                           : args.x_height - in;
        const bool whole = strips.above == 0 && strips.below >= (rows - 1) * kStride + kKernel;
        // A narrow row may be followed by anything: the next row, stored after it, or what no row needs.
        const bool roomy = !kDilated && (out + rows - 1) * args.y_row + lanes <= args.y_run;
        strips.pixels = roomy ? lanes : std::min(width, lanes);
        const float* x_at = x + static_cast<int64_t>(in) * args.x_row;
        float* y_at = y + static_cast<int64_t>(out) * args.y_row;
        for (int32_t column = 0; column < width;) {
          const int32_t at = std::max(0, std::min(column, width - lanes)), strip = column / lanes;
          const bool inner = strip >= first && strip < last, along = inner && last - strip > count;
          strips.x = x_at + static_cast<int64_t>(at) * kStride;
          strips.y = y_at + at;
          strips.weights = args.weights + static_cast<int64_t>(c) * (1 + kKernel * kKernel);
          strips.inside = args.inside + static_cast<int64_t>(at) * kStride;
          strips.count = along ? last - strip : count;
          strips.x_step = along ? lanes * kStride : args.x_plane;
          strips.y_step = along ? lanes : args.y_plane;
          strips.weights_step = along ? 0 : 1 + kKernel * kKernel;
          for (int32_t plane = 0; plane < (along ? count : 1); plane++) {
            Dispatch<kMostRows>(rows, inner, whole, strips);
            strips.x += args.x_plane;
            strips.y += args.y_plane;
            strips.weights += 1 + kKernel * kKernel;
          }
          column = along ? last * lanes : column + lanes;
        }
        out += rows * dilation;
        left -= rows;
      }
    }
  }

 public:
  static void Run(const DepthwiseArgs& args) {
    // What stays in the first-level cache from one strip to the next.
    constexpr int32_t kFloats = 6 << 10;
    const int32_t inputs = (kRows - 1) * kStride + kKernel;
    const int32_t floats = std::min(args.x_plane, inputs * args.x_row) + std::min(args.y_plane, kRows * args.y_row);
    const int32_t together = args.multiplier > 1 ? 1 : std::max(1, kFloats / floats);
    for (int32_t c = 0; c < args.count; c += together) Planes(args, args.first + c, std::min(together, args.count - c));
  }
};

template <class Simd, int kKernel>
void DepthwiseStride1(const DepthwiseArgs& args) {
  if (args.dilation_height == 1 && args.dilation_width == 1) {
    Depthwise<Simd, kKernel, 1, false>::Run(args);
  } else {
    Depthwise<Simd, kKernel, 1, true>::Run(args);
  }
}

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
  return {{DepthwiseStride1<Simd, 3>, DepthwiseStride1<Simd, 5>},
          {Depthwise<Simd, 3, 2, false>::Run, Depthwise<Simd, 5, 2, false>::Run},
          Depthwise<Simd, 3, 1, false>::kRows,
          DepthwiseAny<Simd>::Run};
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_DEPTHWISE_IMPL_H_
