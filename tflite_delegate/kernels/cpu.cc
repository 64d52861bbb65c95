// The list of CPU levels, best first, and what each needs of the CPU.
#include <cstring>

#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace kernels {

extern const KernelTable kTable_scalar;
#if defined(__x86_64__)
extern const KernelTable kTable_avx2, kTable_avx512;
#elif defined(__aarch64__)
extern const KernelTable kTable_neon;
#endif

namespace {

struct Level {
  const KernelTable* table;
  bool (*supported)();
};

bool Always() { return true; }
#if defined(__x86_64__)
bool HasAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif

constexpr Level kLevels[] = {
#if defined(__x86_64__)
    {&kTable_avx512, HasAvx512},
    {&kTable_avx2, HasAvx2},
#elif defined(__aarch64__)
    {&kTable_neon, Always},
#endif
    {&kTable_scalar, Always},
};
constexpr int kLevelCount = sizeof(kLevels) / sizeof(kLevels[0]);

}  // namespace

const KernelTable* SelectKernels(const char* name) {
  for (const Level& level : kLevels) {
    if (level.supported() && (strcmp(name, "auto") == 0 || strcmp(name, level.table->name) == 0)) return level.table;
  }
  return nullptr;
}

const KernelTable* const* AvailableKernels() {
  static const KernelTable* available[kLevelCount + 1];
  int count = 0;
  for (const Level& level : kLevels) {
    if (level.supported()) available[count++] = level.table;
  }
  available[count] = nullptr;
  return available;
}

}  // namespace kernels
}  // namespace block_sparse
