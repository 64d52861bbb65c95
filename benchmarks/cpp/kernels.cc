// The share of the multiply-add peak that each kernel reaches: each CPU level, block, tile and layer shape.
//
// The peak is measured beside every call, because a shared machine changes its pace from one moment to the next:
// `share` is the median of the kernel's rate over the peak's rate just before it.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "tflite_delegate/format/lowered.h"
#include "tflite_delegate/kernels/kernels.h"
#include "tflite_delegate/kernels/pack.h"

namespace block_sparse {
namespace {

using kernels::KernelTable;
using Clock = std::chrono::steady_clock;

// Multiply-adds of one float in one turn of a loop of independent instructions on registers: at least eight in flight.
struct Peak {
  const char* level;
  int multiply_adds;
  void (*turn)(int turns);
};

#if defined(__x86_64__)
#define TWELVE(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define CLOBBERS \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"
// Written out, so that this file needs no compiler flags of any level.
#define ZMM(r) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #r "\n"
#define YMM(r) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #r "\n"
#define XMM(r) "mulss %%xmm12, %%xmm13\n addss %%xmm12, %%xmm" #r "\n"
void Avx512(int turns) {
  asm volatile("vpxorq %%zmm12, %%zmm12, %%zmm12\n vpxorq %%zmm13, %%zmm13, %%zmm13\n 1:\n" TWELVE(
                   ZMM) "dec %0\n jnz 1b\n vzeroupper"
               : "+r"(turns)
               :
               : CLOBBERS);
}
void Avx2(int turns) {
  asm volatile("vxorps %%ymm12, %%ymm12, %%ymm12\n vxorps %%ymm13, %%ymm13, %%ymm13\n 1:\n" TWELVE(
                   YMM) "dec %0\n jnz 1b\n vzeroupper"
               : "+r"(turns)
               :
               : CLOBBERS);
}
constexpr Peak kPeaks[] = {{"avx512", 12 * 16, Avx512}, {"avx2", 12 * 8, Avx2}};
#elif defined(__aarch64__)
#define FMLA(r) "fmla v" #r ".4s, v16.4s, v17.4s\n"
void Neon(int turns) {
  asm volatile("movi v16.4s, #0\n movi v17.4s, #0\n 1:\n" FMLA(0) FMLA(1) FMLA(2) FMLA(3) FMLA(4) FMLA(5) FMLA(6)
                   FMLA(7) "subs %w0, %w0, #1\n b.ne 1b"
               : "+r"(turns)
               :
               : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17");
}
constexpr Peak kPeaks[] = {{"neon", 8 * 4, Neon}};
#endif

double Seconds(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

double PeakRate(const Peak& peak) {
  constexpr int kTurns = 2000;  // some ten microseconds
  const Clock::time_point began = Clock::now();
  peak.turn(kTurns);
  return static_cast<double>(kTurns) * peak.multiply_adds / Seconds(began);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Runs a kernel that does so many multiply-adds a call.
template <class Fn>
void Measure(benchmark::State& state, const Peak& peak, double multiply_adds, const Fn& fn) {
  fn();
  std::vector<double> shares, rates;
  for (auto _ : state) {
    const double limit = PeakRate(peak);
    const Clock::time_point began = Clock::now();
    fn();
    const double seconds = Seconds(began);
    state.SetIterationTime(seconds);
    rates.push_back(multiply_adds / seconds * 1e-9);
    shares.push_back(multiply_adds / seconds / limit);
  }
  state.counters["share"] = Median(std::move(shares));
  state.counters["gmacs"] = Median(std::move(rates));
}

// The same in every run.
std::vector<float> Floats(size_t count) {
  std::vector<float> values(count);
  std::mt19937 random(1);
  for (float& v : values) v = static_cast<float>(random() % 1000) * 1e-3f;
  return values;
}

LoweredMatrix RandomMatrix(int32_t rows, int32_t columns, int32_t block, bool aligned, double zeros) {
  LoweredMatrix matrix;
  matrix.rows = rows;
  matrix.columns = columns;
  matrix.block = block;
  matrix.aligned = aligned;
  std::mt19937 random(1);
  std::vector<std::pair<int32_t, int32_t>> blocks;
  for (int32_t c = 0; c < columns; c++) {
    // Down a column: a block with the chance that leaves so many zeros, else a step of one row (unaligned) or block.
    const double density = 1 - zeros, step = aligned ? block : 1;
    const double chance = density / block / (density / block + (1 - density) / step);
    for (int32_t r = 0; r + block <= rows;) {
      const bool here = random() < chance * 4294967296.0;
      if (here) blocks.emplace_back(r, c);
      r += here || aligned ? block : 1;
    }
  }
  std::sort(blocks.begin(), blocks.end());
  for (const auto& at : blocks) {
    matrix.block_row.push_back(at.first);
    matrix.block_column.push_back(at.second);
  }
  matrix.values = Floats(blocks.size() * block);
  return matrix;
}

int32_t Plane(int32_t pixels) {
  const int32_t vectors = (pixels + kernels::kMaxLanes - 1) / kernels::kMaxLanes;
  return (vectors + (vectors + 1) % 2) * kernels::kMaxLanes;  // odd, as Planner::SetPlanes has it
}

// Floats up to a cache line.
size_t UpToLine(const float* p) { return (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64 / sizeof(float); }

// 1 x 1 layers: channels in and out, and pixels. The first is small enough for the first-level cache.
struct Shape {
  int32_t columns, rows, pixels;
};
constexpr Shape kShapes[] = {{64, 64, 96},    {32, 64, 12544}, {128, 128, 3136},
                             {256, 256, 784}, {512, 512, 196}, {1024, 1024, 49}};

void Spmm(benchmark::State& state, const KernelTable& table, const Peak& peak, bool aligned, int pixels, int source,
          int log2_block, int tile, Shape shape, double zeros) {
  const int32_t block = 1 << log2_block, plane = Plane(shape.pixels);
  const LoweredMatrix matrix = RandomMatrix(shape.rows, shape.columns, block, aligned, zeros);
  std::vector<int32_t> offsets;
  for (int32_t c = 0; c < shape.columns; c++) offsets.push_back(c * plane * static_cast<int32_t>(sizeof(float)));
  const std::vector<float> bias = Floats(shape.rows);
  const kernels::PackedMatrix packed = kernels::PackLowered(matrix, bias.data(), offsets.data(), plane, 1, 0);
  const size_t slack = 16 * kernels::kMaxLanes;
  const std::vector<float> x = Floats(static_cast<size_t>(shape.columns) * plane + slack);
  std::vector<float> y(static_cast<size_t>(shape.rows) * plane + slack);
  const bool and_one = pixels == kernels::kSpmmVectorsAndOne;
  const int32_t vectors = (shape.pixels - (and_one ? 1 : 0) + table.lanes - 1) / table.lanes;
  const int32_t tiles = (vectors + tile - 1) / tile;
  const auto& kernel = aligned ? table.spmm.aligned : table.spmm.unaligned;
  kernels::SpmmArgs args = packed.Args(0);
  args.low = 0;
  args.high = 6;
  const float* x0 = x.data() + UpToLine(x.data());
  float* y0 = y.data() + UpToLine(y.data());
  Measure(state, peak, static_cast<double>(matrix.block_column.size()) * block * shape.pixels, [&] {
    for (int32_t t = 0; t < tiles; t++) {
      const int32_t from = vectors * t / tiles, to = vectors * (t + 1) / tiles;
      args.x = x0 + from * table.lanes;
      args.y = y0 + from * table.lanes;
      kernel[t + 1 == tiles ? pixels : kernels::kSpmmVectors][source]->kernels[log2_block][to - from](args);
    }
    benchmark::ClobberMemory();
  });
}

// 3 x 3 layers of single weights: channels in and out, height (and width). As in a convolution, slices have 32 weights
// a row and rows of the image are whole cache lines.
struct Square {
  int32_t channels, height;
};
constexpr Square kSquares[] = {{4, 56}, {64, 112}, {256, 56}, {512, 28}, {512, 14}};

void ImageRows(benchmark::State& state, const KernelTable& table, const Peak& peak, int32_t tall, int32_t wide,
               Square shape, double zeros) {
  constexpr int32_t kPositions = 9;
  const int32_t row = (shape.height / kernels::kMaxLanes + 1) * kernels::kMaxLanes, origin = row + kernels::kMaxLanes;
  const int32_t plane = Plane(origin + (shape.height + 1) * row + kernels::kMaxLanes);
  const LoweredMatrix matrix = RandomMatrix(shape.channels, kPositions * shape.channels, 1, true, zeros);
  std::vector<int32_t> offsets;
  for (int32_t k = 0; k < kPositions; k++) {
    for (int32_t c = 0; c < shape.channels; c++) {
      offsets.push_back((c * plane + (k / 3 - 1) * row + k % 3 - 1) * static_cast<int32_t>(sizeof(float)));
    }
  }
  const std::vector<float> bias = Floats(shape.channels);
  const int32_t slice_channels = std::max(1, static_cast<int32_t>(32 / (kPositions * (1 - zeros))));
  const kernels::PackedMatrix packed = kernels::PackImageRows(
      matrix, bias.data(), offsets.data(), plane, 1, slice_channels * plane * static_cast<int32_t>(sizeof(float)),
      {row * static_cast<int32_t>(sizeof(float)), table.spmm_rows.shifts});
  const std::vector<float> x = Floats(static_cast<size_t>(shape.channels) * plane + kernels::kMaxLanes);
  std::vector<float> y(static_cast<size_t>(shape.channels) * plane + kernels::kMaxLanes);
  const float* x0 = x.data() + UpToLine(x.data()) + origin;
  float* y0 = y.data() + UpToLine(y.data()) + origin;
  const int32_t vectors = (shape.height + table.lanes - 1) / table.lanes;
  const auto& tiles = wide >= vectors && vectors * table.lanes == row ? table.spmm_rows.whole : table.spmm_rows.part;
  Measure(state, peak, static_cast<double>(matrix.values.size()) * shape.height * shape.height, [&] {
    for (int32_t top = 0; top < shape.height; top += tall) {
      for (int32_t left = 0; left < vectors; left += wide) {
        const int32_t columns = std::min(wide, vectors - left);
        for (int slice = 0; slice < packed.slices; slice++) {
          kernels::SpmmRowsArgs args = packed.Args<kernels::SpmmRowsArgs>(static_cast<size_t>(slice));
          args.image_row = row;
          args.last_lanes = std::min(table.lanes, shape.height - (left + columns - 1) * table.lanes);
          args.x = x0 + top * row + left * table.lanes;
          args.y = y0 + top * row + left * table.lanes;
          args.residual = slice > 0 ? args.y : nullptr;
          args.low = 0;
          args.high = 6;
          tiles[tall][columns](args);
        }
      }
    }
    benchmark::ClobberMemory();
  });
}

// Depthwise layers: channels, height (and width) of the input.
struct Image {
  int32_t channels, height;
};
constexpr Image kImages[] = {{2, 28}, {32, 112}, {128, 56}, {256, 28}, {512, 14}};

void Depthwise(benchmark::State& state, const KernelTable& table, const Peak& peak, int32_t kernel, int32_t stride,
               Image image) {
  kernels::DepthwiseArgs args = {};
  const int32_t size = image.height, out = (size + stride - 1) / stride, taps = kernel * kernel;
  args.x_plane = Plane(size * size);
  args.y_plane = Plane(out * out);
  args.x_row = args.x_height = args.x_width = size;
  args.y_row = args.y_height = args.y_width = out;
  args.y_run = args.y_plane;
  args.count = image.channels;
  args.multiplier = 1;
  args.pad_top = args.pad_left = ((out - 1) * stride + kernel - size) / 2;
  args.kernel_height = args.kernel_width = kernel;
  args.stride_height = args.stride_width = stride;
  args.dilation_height = args.dilation_width = 1;
  args.low = 0;
  args.high = 6;
  constexpr size_t kBefore = 64, kAfter = 4 * kernels::kMaxLanes;
  const std::vector<float> x = Floats(kBefore + static_cast<size_t>(image.channels) * args.x_plane + kAfter);
  std::vector<float> y(static_cast<size_t>(image.channels) * args.y_plane + kAfter);
  const std::vector<float> weights = Floats(static_cast<size_t>(image.channels) * (taps + 1));
  std::vector<int32_t> inside(static_cast<size_t>(kernels::DepthwiseInside(out, stride)));
  for (int32_t i = 0; i < size; i++) inside[args.pad_left + i] = -1;
  args.x = x.data() + kBefore;
  args.y = y.data();
  args.weights = weights.data();
  args.inside = inside.data();
  const kernels::DepthwiseKernel fn =
      stride == 1 ? table.depthwise.stride1[kernel / 2 - 1] : table.depthwise.stride2[kernel / 2 - 1];
  Measure(state, peak, static_cast<double>(image.channels) * out * out * taps, [&] {
    fn(args);
    benchmark::ClobberMemory();
  });
}

std::string Name(std::initializer_list<std::string> parts) {
  std::string name;
  for (const std::string& part : parts) name += (name.empty() ? "" : "/") + part;
  return name;
}

template <class Fn>
void Register(const std::string& name, const Fn& fn) {
  benchmark::RegisterBenchmark(name.c_str(), fn)->UseManualTime()->Unit(benchmark::kMicrosecond)->MinTime(0.01);
}

// Names are what benchmarks/kernels.py takes apart.
void RegisterAll() {
  for (const KernelTable* const* t = kernels::AvailableKernels(); *t != nullptr; t++) {
    const KernelTable& table = **t;
    for (const Peak& peak : kPeaks) {
      if (std::strcmp(peak.level, table.name) != 0) continue;
      for (int log2 = 0; log2 < kernels::kSpmmBlocks; log2++) {
        for (int pixels = 0; pixels < kernels::kSpmmPixels; pixels++) {
          for (int tile = 1; tile <= table.spmm.max_tile[pixels][log2]; tile++) {
            for (const Shape& s : kShapes) {
              if (pixels == kernels::kSpmmVectorsAndOne && s.pixels % table.lanes != 1) continue;
              const std::string shape =
                  std::to_string(s.columns) + "x" + std::to_string(s.rows) + "x" + std::to_string(s.pixels);
              for (bool aligned : {false, true}) {
                const auto& tiles = (aligned ? table.spmm.aligned : table.spmm.unaligned)[pixels];
                for (int source = 0; source < kernels::kSpmmSources; source++) {
                  const auto kernel = [&](int of) { return tiles[of]->kernels[log2][tile]; };
                  if (source > 0 && kernel(source) == kernel(0)) continue;
                  const std::string kind = std::string(aligned ? "aligned" : "unaligned") +
                                           (pixels == kernels::kSpmmVectorsAndOne ? "_one" : "") +
                                           (source == kernels::kSpmmFar ? "_far" : "");
                  Register(Name({table.name, kind, std::to_string(1 << log2), std::to_string(tile), shape}),
                           [=, &table, &peak](benchmark::State& state) {
                             Spmm(state, table, peak, aligned, pixels, source, log2, tile, s, 0.8);
                           });
                }
              }
            }
          }
        }
      }
      for (int wide = 1; wide <= table.spmm_rows.max_columns; wide++) {
        for (int tall = 1; tall <= table.spmm_rows.max_rows[wide]; tall++) {
          if (table.spmm_rows.part[tall][wide] == nullptr) continue;
          for (const Square& s : kSquares) {
            // Tiles of which a whole number makes up the image, none wider than it.
            if (s.height % tall != 0 || (wide - 1) * table.lanes >= s.height) continue;
            Register(
                Name({table.name, "image_rows", std::to_string(tall), std::to_string(wide),
                      std::to_string(s.channels) + "x" + std::to_string(s.height)}),
                [=, &table, &peak](benchmark::State& state) { ImageRows(state, table, peak, tall, wide, s, 0.875); });
          }
        }
      }
      for (int kernel : {3, 5}) {
        for (int stride : {1, 2}) {
          for (const Image& i : kImages) {
            Register(Name({table.name, "depthwise", std::to_string(kernel), std::to_string(stride),
                           std::to_string(i.channels) + "x" + std::to_string(i.height)}),
                     [=, &table, &peak](benchmark::State& state) { Depthwise(state, table, peak, kernel, stride, i); });
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace block_sparse

int main(int argc, char** argv) {
  block_sparse::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
