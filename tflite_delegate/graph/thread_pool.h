// A small pool of threads that the delegate owns. The calling thread works too, so one thread means no pool at all.
#ifndef TFLITE_DELEGATE_GRAPH_THREAD_POOL_H_
#define TFLITE_DELEGATE_GRAPH_THREAD_POOL_H_

#include <cstddef>
#include <cstdint>

namespace block_sparse {
namespace graph {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls fn(i) for every i in [0, count), each once, spread over the threads; returns when all are done. Which thread
  // takes which i is not fixed, so a result must not depend on it.
  template <class Fn>
  void For(int count, const Fn& fn) {
    if (threads_ == 1 || count <= 1) {
      for (int i = 0; i < count; i++) fn(i);
    } else {
      Run(count, [](const void* context, int i) { (*static_cast<const Fn*>(context))(i); }, &fn);
    }
  }

 private:
  using Task = void (*)(const void* context, int i);
  struct Shared;
  void Run(int count, Task task, const void* context);

  int threads_;
  Shared* shared_ = nullptr;
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_THREAD_POOL_H_
