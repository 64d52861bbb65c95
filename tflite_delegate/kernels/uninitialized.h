// Vectors whose new elements have no value yet, for large streams that are written in full: to fill them with zeros
// first would take about as long as that.
#ifndef TFLITE_DELEGATE_KERNELS_UNINITIALIZED_H_
#define TFLITE_DELEGATE_KERNELS_UNINITIALIZED_H_

#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace block_sparse {
namespace kernels {

template <class T>
struct UninitializedAllocator : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  UninitializedAllocator() = default;
  template <class U>
  UninitializedAllocator(const UninitializedAllocator<U>&) {}
  template <class U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
  template <class U, class... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
};

template <class T>
using UninitializedVector = std::vector<T, UninitializedAllocator<T>>;

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_UNINITIALIZED_H_
