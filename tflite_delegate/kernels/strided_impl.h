// The kernels behind strided.h, as templates over the vectors of a CPU level.
#ifndef TFLITE_DELEGATE_KERNELS_STRIDED_IMPL_H_
#define TFLITE_DELEGATE_KERNELS_STRIDED_IMPL_H_

#include <algorithm>

#include "tflite_delegate/kernels/strided.h"
#include "tflite_delegate/kernels/unroll.h"

namespace block_sparse {
namespace kernels {

template <class Simd, int kStep>
BLOCK_SPARSE_INLINE void LoadInterleaved(const float* p, typename Simd::Vec (&parts)[kStep]) {
  using Vec = typename Simd::Vec;
  static_assert(kStep <= 3 || kStep == 6, "twos, threes, or threes of twos");
  if constexpr (kStep == 1) {
    parts[0] = Simd::Load(p);
  } else if constexpr (kStep == 2) {
    Simd::LoadPairs(p, &parts[0], &parts[1]);
    Unroll<2>([&](auto k) BLOCK_SPARSE_LAMBDA { parts[k] = Simd::InOrder(parts[k]); });
  } else if constexpr (kStep == 3) {
    Simd::LoadThrees(p, parts);
  } else {
    Vec first[3], second[3];
    Simd::LoadThrees(p, first);
    Simd::LoadThrees(p + 3 * Simd::kLanes, second);
    Unroll<3>([&](auto k) BLOCK_SPARSE_LAMBDA { Simd::Unzip(first[k], second[k], &parts[k], &parts[3 + k]); });
  }
}

template <class Simd, int kStep>
void Split(const float* x, int32_t count, float* const* y) {
  const auto split = [&](int32_t i) BLOCK_SPARSE_LAMBDA {
    typename Simd::Vec parts[kStep];
    LoadInterleaved<Simd, kStep>(x + static_cast<int64_t>(i) * kStep, parts);
    Unroll<kStep>([&](auto k) BLOCK_SPARSE_LAMBDA {
      if (y[k] != nullptr) Simd::Store(y[k] + i, parts[k]);
    });
  };
  int32_t i = 0;
  for (; i + Simd::kLanes <= count; i += Simd::kLanes) split(i);
  if (i == count) return;
  if (i > 0) {
    // The last of them begin among those that are there already.
    split(count - Simd::kLanes);
    return;
  }
  for (; i < count; i++) {
    for (int k = 0; k < kStep; k++) {
      if (y[k] != nullptr) y[k][i] = x[i * kStep + k];
    }
  }
}

template <class Simd>
void Pick(const float* x, int64_t x_row, int32_t rows, int32_t count, float* y, int64_t y_row) {
  for (int32_t r = 0; r < rows; r++, x += x_row, y += y_row) {
    for (int32_t i = 0; i < count; i += Simd::kLanes) {
      const typename Simd::Vec even = Simd::InOrder(Simd::LoadEven(x + static_cast<int64_t>(2) * i));
      if ((rows - 1 - r) * y_row + count - i >= Simd::kLanes) {
        Simd::Store(y + i, even);
      } else {
        Simd::StoreN(y + i, even, std::min(count - i, Simd::kLanes));
      }
    }
  }
}

template <class Simd, int kStep>
void Gather(const GatherArgs& args) {
  static_assert(kStep == 1 || kStep == 2, "every pixel or every other");
  for (int32_t r = 0; r < args.rows; r++) {
    for (int32_t i = 0; i < args.columns; i += Simd::kLanes) {
      const typename Simd::Mask mask = Simd::LoadMask(args.mask + r * args.y_row + i);
      const float* x = args.x + r * args.x_row + static_cast<int64_t>(kStep) * i;
      float* y = args.y + r * args.y_row + i;
      for (int32_t c = 0; c < args.channels; c++, x += args.x_plane, y += args.y_plane) {
        const typename Simd::Vec pixels = kStep == 1 ? Simd::Load(x) : Simd::InOrder(Simd::LoadEven(x));
        Simd::Store(y, Simd::Select(mask, pixels, Simd::Zero()));
      }
    }
  }
}

template <class Simd>
constexpr StridedKernels MakeStridedKernels() {
  return {{nullptr, Split<Simd, 1>, Split<Simd, 2>, Split<Simd, 3>, nullptr, nullptr, Split<Simd, 6>},
          Pick<Simd>,
          {nullptr, Gather<Simd, 1>, Gather<Simd, 2>}};
}

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_STRIDED_IMPL_H_
