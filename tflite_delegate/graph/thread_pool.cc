#include "tflite_delegate/graph/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <new>

#include "tflite_delegate/graph/wake_placement.h"

namespace block_sparse {
namespace graph {

namespace {

// Layers follow each other within microseconds: a worker looks for the next one this often before it goes to sleep.
constexpr int kSpinsBeforeSleep = 20000;
// With more threads than cores the thread that is waited for may need the waiter's core.
constexpr int kSpinsBeforeYield = 100;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield" ::: "memory");
#endif
}

inline void Spin(int spins) {
  if (spins % kSpinsBeforeYield == 0) sched_yield();
  Pause();
}

}  // namespace

struct ThreadPool::Shared {
  // What a thread begins with, all in one cache line (two, as some processors fetch them in pairs): to hand a line from
  // core to core is what a round costs. A share is the same whenever the count is, so that what a thread wrote in one
  // layer is in its own cache in the next; then it helps the others.
  struct alignas(128) Share {
    std::atomic<uint64_t> left{0};  // the first index nobody has taken and, in the upper half, the end
    Task task = nullptr;
    const void* context = nullptr;
    std::atomic<uint32_t> finished{0};  // how many tasks of any share its thread has finished, ever
    std::atomic<bool> over{false};      // its thread is to end
  };
  Share shares[64];
  uint32_t finished = 0;  // how many tasks all workers have finished, before this round
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
  std::atomic<int> sleeping{0};
  int started = 0;
  const bool placed = WakePlacement::kMayHelp && WakePlacement::Helps();
  struct Worker {
    Shared* shared;
    int thread;  // 1 and up; the caller is 0
    pthread_t id;
    bool asleep = false;      // changed under the mutex
    WakePlacement placement;  // the waker's, under the mutex, while asleep; else the worker's
  };
  Worker workers[64];

  static bool Any(uint64_t left) { return static_cast<uint32_t>(left) < left >> 32; }

  // A round begins for a worker when its share has something left, and nobody waits for a worker that has taken
  // nothing: a late one finds its share empty.
  void Divide(int count, Task task, const void* context) {
    const uint64_t threads = static_cast<uint64_t>(started) + 1, tasks = static_cast<uint64_t>(count);
    for (uint64_t t = 0; t < threads; t++) {
      const uint64_t begin = tasks * t / threads, end = tasks * (t + 1) / threads;
      shares[t].task = task;
      shares[t].context = context;
      shares[t].left.store(end << 32 | begin, std::memory_order_release);
    }
  }

  // Takes tasks until there are none; returns how many. A worker's are counted as soon as it has to look elsewhere.
  uint32_t Work(int thread) {
    const uint32_t before = shares[thread].finished.load(std::memory_order_relaxed);
    uint32_t done = 0;
    for (int t = thread, more = started + 1; more > 0; more--) {
      Share& share = shares[t];
      const uint32_t done_before = done;
      // Looked at before it is changed, which takes the line away from whoever works on it.
      while (Any(share.left.load(std::memory_order_relaxed))) {
        const uint64_t taken = share.left.fetch_add(1, std::memory_order_acquire);
        if (!Any(taken)) break;
        share.task(share.context, static_cast<int>(taken & UINT32_MAX));
        done++;
      }
      if (thread != 0 && done != done_before) shares[thread].finished.store(before + done, std::memory_order_release);
      if (++t > started) t = 0;
    }
    return done;
  }

  void Run(int count, Task task, const void* context) {
    Divide(count, task, context);
    WakeAll();
    finished += static_cast<uint32_t>(count) - Work(0);
    for (int spin = 1;; spin++) {
      uint32_t now = 0;
      for (int t = 1; t <= started; t++) now += shares[t].finished.load(std::memory_order_acquire);
      if (now == finished) return;
      Spin(spin);
    }
  }

  // A worker counts itself as sleeping and then looks once more for what it waits for; here it is the other way round,
  // so one of both sees the other.
  void WakeAll() {
    if (sleeping.fetch_add(0, std::memory_order_acq_rel) == 0) return;
    // A caller that slept here would be woken by the worker, and on the worker's processor.
    for (int spin = 1; pthread_mutex_trylock(&mutex) != 0; spin++) Spin(spin);
    for (int i = 0; WakePlacement::kMayHelp && placed && i < started; i++) {
      if (workers[i].asleep) workers[i].placement.AwayFromHere();
    }
    pthread_mutex_unlock(&mutex);
    pthread_cond_broadcast(&wake);
  }

  // Waits until the share has something left; false if the pool ends.
  bool AwaitRound(const Share& share, Worker* worker) {
    const auto over = [&] { return share.over.load(std::memory_order_acquire); };
    const auto begun = [&] { return Any(share.left.load(std::memory_order_acquire)) || over(); };
    for (int spin = 1; spin < kSpinsBeforeSleep; spin++) {
      if (begun()) return !over();
      Spin(spin);
    }
    pthread_mutex_lock(&mutex);
    sleeping.fetch_add(1, std::memory_order_acq_rel);
    worker->asleep = true;
    while (!begun()) pthread_cond_wait(&wake, &mutex);
    worker->asleep = false;
    sleeping.fetch_sub(1, std::memory_order_relaxed);
    pthread_mutex_unlock(&mutex);
    if (WakePlacement::kMayHelp) worker->placement.End();
    return !over();
  }

  static void* Main(void* argument) {
    Worker* worker = static_cast<Worker*>(argument);
    Shared* shared = worker->shared;
    if (WakePlacement::kMayHelp) worker->placement.Begin();
    while (shared->AwaitRound(shared->shares[worker->thread], worker)) shared->Work(worker->thread);
    return nullptr;
  }
};

ThreadPool::ThreadPool(int threads) : threads_(threads < 1 ? 1 : threads > 64 ? 64 : threads) {
  if (threads_ == 1) return;
  shared_ = new (std::nothrow) Shared;
  if (shared_ != nullptr) {
    while (shared_->started < threads_ - 1) {
      Shared::Worker& worker = shared_->workers[shared_->started];
      worker.shared = shared_;
      worker.thread = shared_->started + 1;
      if (pthread_create(&worker.id, nullptr, Shared::Main, &worker) != 0) break;
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
  for (int t = 1; t <= shared_->started; t++) shared_->shares[t].over.store(true, std::memory_order_release);
  shared_->WakeAll();
  for (int i = 0; i < shared_->started; i++) pthread_join(shared_->workers[i].id, nullptr);
  delete shared_;
}

void ThreadPool::Run(int count, Task task, const void* context) { shared_->Run(count, task, context); }

}  // namespace graph
}  // namespace block_sparse
