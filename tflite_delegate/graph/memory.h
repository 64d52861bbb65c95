// Memory for activations.
#ifndef TFLITE_DELEGATE_GRAPH_MEMORY_H_
#define TFLITE_DELEGATE_GRAPH_MEMORY_H_

#include <cstddef>

namespace block_sparse {
namespace graph {

// Zeroed floats at a cache line, in huge pages where the system has them: sparse weights jump from plane to plane, and
// with small pages nearly every jump misses the first-level TLB (a fifth of the time of a whole network).
class Memory {
 public:
  Memory() = default;
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Call once. False if there is not that much.
  bool Allocate(size_t floats);
  float* data() const { return data_; }
  size_t floats() const { return floats_; }

 private:
  float* data_ = nullptr;
  size_t floats_ = 0;
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_MEMORY_H_
