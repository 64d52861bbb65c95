#include "tflite_delegate/graph/memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <limits>

namespace block_sparse {
namespace graph {

namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Memory::~Memory() { free(data_); }

bool Memory::Allocate(size_t floats) {
  if (floats > std::numeric_limits<size_t>::max() / (2 * sizeof(float))) return false;
  size_t bytes = floats * sizeof(float);
  // Below half a huge page most of one would be wasted.
  const bool huge = bytes >= kHugePage / 2;
  if (huge) bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, huge ? kHugePage : kCacheLine, bytes) != 0) return false;
#if defined(MADV_HUGEPAGE)
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: without it the memory is as good, only slower
#endif
  data_ = static_cast<float*>(memory);
  floats_ = floats;
  std::fill(data_, data_ + floats, 0.0f);
  return true;
}

}  // namespace graph
}  // namespace block_sparse
