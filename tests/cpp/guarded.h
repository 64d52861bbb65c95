// Memory whose end is the end of the readable world: one float past it faults. And canaries in front.
#ifndef TESTS_CPP_GUARDED_H_
#define TESTS_CPP_GUARDED_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace block_sparse {

// `count` values that end where a page without access begins. The values before them are canaries.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t count) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    usable_ = (count * sizeof(T) + kCanaries * sizeof(T) + page - 1) / page * page;
    bytes_ = usable_ + page;
    base_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + usable_, page, PROT_NONE) != 0) abort();
    data_ = reinterpret_cast<T*>(base_ + usable_) - count;
    for (size_t i = 1; i <= kCanaries; i++) data_[-static_cast<ptrdiff_t>(i)] = Canary();
  }
  explicit Guarded(const std::vector<T>& values) : Guarded(values.size()) {
    for (size_t i = 0; i < count_; i++) data_[i] = values[i];
  }
  ~Guarded() { munmap(base_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

  void ExpectCanaries() const {
    for (size_t i = 1; i <= kCanaries; i++) EXPECT_EQ(data_[-static_cast<ptrdiff_t>(i)], Canary()) << i << " before";
  }

 private:
  static constexpr size_t kCanaries = 64;
  static T Canary() { return static_cast<T>(12345); }

  size_t count_, usable_ = 0, bytes_ = 0;
  char* base_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace block_sparse

#endif  // TESTS_CPP_GUARDED_H_
