#include "tflite_delegate/graph/wake_placement.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sys/syscall.h>
#include <unistd.h>

namespace block_sparse {
namespace graph {

bool WakePlacement::Helps() {
#if defined(__x86_64__)
  constexpr unsigned kHypervisor = 1u << 31;
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & kHypervisor) != 0;
#else
  return false;
#endif
}

void WakePlacement::Begin() { thread_ = static_cast<pid_t>(syscall(SYS_gettid)); }

void WakePlacement::AwayFromHere() {
  const int here = sched_getcpu();
  if (away_ || thread_ == 0 || here < 0) return;
  if (sched_getaffinity(thread_, sizeof allowed_, &allowed_) != 0) return;  // more processors than a mask has bits
  cpu_set_t elsewhere = allowed_;
  CPU_CLR(here, &elsewhere);
  away_ = CPU_COUNT(&elsewhere) > 0 && sched_setaffinity(thread_, sizeof elsewhere, &elsewhere) == 0;
}

void WakePlacement::End() {
  if (away_) sched_setaffinity(0, sizeof allowed_, &allowed_);
  away_ = false;
}

}  // namespace graph
}  // namespace block_sparse
