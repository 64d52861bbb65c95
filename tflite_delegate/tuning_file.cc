#include "tflite_delegate/tuning_file.h"

#include <cstddef>
#include <cstdio>

#include "tflite_delegate/delegate.h"

namespace block_sparse {

namespace {

// Tunings of a thousand networks; what lies beyond is left out.
constexpr size_t kMaxBytes = size_t{16} << 20;

std::string ReadText(const char* path) {
  std::string text;
  FILE* file = fopen(path, "rb");
  if (file == nullptr) return text;
  char part[4096];
  for (size_t n; text.size() < kMaxBytes && (n = fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
  fclose(file);
  return text;
}

// As the system calls the CPU, or as far as it does: Intel's and AMD's by name, Arm's by the number of the part.
std::string CpuName() {
  const std::string text = ReadText("/proc/cpuinfo");
  for (const char* key : {"model name", "Hardware", "CPU part"}) {
    const size_t line = text.find(key);
    const size_t colon = line == std::string::npos ? line : text.find(": ", line);
    if (colon != std::string::npos) return text.substr(colon + 2, text.find('\n', colon) - colon - 2);
  }
  return "unknown CPU";
}

}  // namespace

graph::Tuning ReadTuning(const std::string& path, const kernels::KernelTable& kernels) {
  const std::string version = std::string(kVersion) + "+" + kKernels;
  return graph::Tuning(CpuName() + ", " + kernels.name + ", version " + version, ReadText(path.c_str()));
}

}  // namespace block_sparse
