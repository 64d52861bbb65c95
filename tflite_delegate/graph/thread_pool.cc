#include "tflite_delegate/graph/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <new>

namespace block_sparse {
namespace graph {

namespace {

// Layers follow each other within microseconds: a worker looks for the next one this often before it goes to sleep.
constexpr int kSpinsBeforeSleep = 20000;
// With more threads than cores the thread that is waited for may need the waiter's core.
constexpr int kSpinsBeforeYield = 2000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield" ::: "memory");
#endif
}

}  // namespace

struct ThreadPool::Shared {
  alignas(64) std::atomic<int> next{0};        // first index nobody has taken
  alignas(64) std::atomic<int> busy{0};        // workers that have not finished this round
  alignas(64) std::atomic<unsigned> round{0};  // a new value: there is work, or it is time to stop
  std::atomic<bool> stop{false};
  Task task = nullptr;
  const void* context = nullptr;
  int count = 0;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
  int sleeping = 0;  // guarded by mutex
  int started = 0;
  pthread_t workers[64];

  void Work() {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(context, i);
  }

  void NewRound() {
    pthread_mutex_lock(&mutex);
    round.fetch_add(1, std::memory_order_release);
    const bool asleep = sleeping > 0;
    pthread_mutex_unlock(&mutex);
    if (asleep) pthread_cond_broadcast(&wake);
  }

  void AwaitRound(unsigned seen) {
    for (int spin = 0; spin < kSpinsBeforeSleep; spin++) {
      if (round.load(std::memory_order_acquire) != seen) return;
      if (spin % kSpinsBeforeYield == kSpinsBeforeYield - 1) sched_yield();
      Pause();
    }
    pthread_mutex_lock(&mutex);
    sleeping++;
    while (round.load(std::memory_order_acquire) == seen) pthread_cond_wait(&wake, &mutex);
    sleeping--;
    pthread_mutex_unlock(&mutex);
  }

  static void* Main(void* self) {
    Shared* shared = static_cast<Shared*>(self);
    for (unsigned seen = 0;;) {
      shared->AwaitRound(seen);
      seen++;
      if (shared->stop.load(std::memory_order_acquire)) return nullptr;
      shared->Work();
      shared->busy.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads) : threads_(threads < 1 ? 1 : threads > 64 ? 64 : threads) {
  if (threads_ == 1) return;
  shared_ = new (std::nothrow) Shared;
  if (shared_ != nullptr) {
    while (shared_->started < threads_ - 1 &&
           pthread_create(&shared_->workers[shared_->started], nullptr, Shared::Main, shared_) == 0) {
      shared_->started++;
    }
    if (shared_->started == 0) {
      delete shared_;
      shared_ = nullptr;
    }
  }
  threads_ = shared_ == nullptr ? 1 : shared_->started + 1;
}

ThreadPool::~ThreadPool() {
  if (shared_ == nullptr) return;
  shared_->stop.store(true, std::memory_order_release);
  shared_->NewRound();
  for (int i = 0; i < shared_->started; i++) pthread_join(shared_->workers[i], nullptr);
  delete shared_;
}

void ThreadPool::Run(int count, Task task, const void* context) {
  Shared& shared = *shared_;
  shared.task = task;
  shared.context = context;
  shared.count = count;
  shared.next.store(0, std::memory_order_relaxed);
  shared.busy.store(shared.started, std::memory_order_relaxed);
  shared.NewRound();
  shared.Work();
  for (int spin = 0; shared.busy.load(std::memory_order_acquire) != 0; spin++) {
    if (spin % kSpinsBeforeYield == kSpinsBeforeYield - 1) sched_yield();
    Pause();
  }
}

}  // namespace graph
}  // namespace block_sparse
