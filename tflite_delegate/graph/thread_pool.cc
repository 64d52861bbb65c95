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

// Fields of the state.
constexpr uint32_t kWorkers = 0x7f, kClosed = 0x80, kRound = 0x100;

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
  // Each thread begins with a share of the indices that is the same whenever the count is, so that what it wrote in
  // one layer is in its own cache in the next; then it helps the others.
  struct alignas(64) Share {
    std::atomic<int> next{0};  // first index nobody has taken
    int end = 0;
  };
  Share shares[64];
  // The round's number, whether it is closed, and how many workers are in it. A worker that wakes late finds the round
  // closed: the caller never waits for a thread that has not begun.
  alignas(64) std::atomic<uint32_t> state{kClosed};
  std::atomic<bool> stop{false};
  Task task = nullptr;
  const void* context = nullptr;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
  std::atomic<int> sleeping{0};  // changed under the mutex
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

  void Divide(int count) {
    const int threads = started + 1;
    for (int t = 0; t < threads; t++) {
      shares[t].next.store(static_cast<int>(static_cast<int64_t>(count) * t / threads), std::memory_order_relaxed);
      shares[t].end = static_cast<int>(static_cast<int64_t>(count) * (t + 1) / threads);
    }
  }

  void Work(int thread) {
    for (int t = thread, left = started + 1; left > 0; left--) {
      Share& share = shares[t];
      if (share.next.load(std::memory_order_relaxed) < share.end) {
        for (int i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) task(context, i);
      }
      if (++t > started) t = 0;
    }
  }

  // A round that begins closed is seen, but nobody joins it.
  void NewRound(uint32_t closed) {
    const uint32_t next = (state.load(std::memory_order_relaxed) & ~(kRound - 1)) + kRound + closed;
    // A worker counts itself as sleeping and then looks at the state once more, so one of both sees the other.
    state.store(next, std::memory_order_seq_cst);
    if (sleeping.load(std::memory_order_seq_cst) > 0) Wake();
  }

  void Wake() {
    // A caller that slept here would be woken by the worker, and on the worker's processor.
    for (int spin = 1; pthread_mutex_trylock(&mutex) != 0; spin++) Spin(spin);
    for (int i = 0; WakePlacement::kMayHelp && placed && i < started; i++) {
      if (workers[i].asleep) workers[i].placement.AwayFromHere();
    }
    pthread_mutex_unlock(&mutex);
    pthread_cond_broadcast(&wake);
  }

  void CloseRound() {
    uint32_t now = state.fetch_or(kClosed, std::memory_order_acq_rel);
    for (int spin = 1; (now & kWorkers) != 0; spin++) {
      Spin(spin);
      now = state.load(std::memory_order_acquire);
    }
  }

  // Waits for another round than `seen`, and returns the state with it.
  uint32_t AwaitRound(uint32_t seen, Worker* worker) {
    uint32_t now;
    for (int spin = 1; spin < kSpinsBeforeSleep; spin++) {
      now = state.load(std::memory_order_acquire);
      if ((now ^ seen) >= kRound) return now;
      Spin(spin);
    }
    pthread_mutex_lock(&mutex);
    sleeping.fetch_add(1, std::memory_order_seq_cst);
    worker->asleep = true;
    while (((now = state.load(std::memory_order_seq_cst)) ^ seen) < kRound) pthread_cond_wait(&wake, &mutex);
    worker->asleep = false;
    sleeping.fetch_sub(1, std::memory_order_relaxed);
    pthread_mutex_unlock(&mutex);
    if (WakePlacement::kMayHelp) worker->placement.End();
    return now;
  }

  static void* Main(void* argument) {
    Worker* worker = static_cast<Worker*>(argument);
    Shared* shared = worker->shared;
    if (WakePlacement::kMayHelp) worker->placement.Begin();
    for (uint32_t seen = kClosed;;) {
      uint32_t now = shared->AwaitRound(seen, worker);
      seen = now;
      if (shared->stop.load(std::memory_order_acquire)) return nullptr;
      // Acquired again: the round that is joined may be a later one than that seen.
      while ((now & kClosed) == 0) {
        if (!shared->state.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
        seen = now;
        shared->Work(worker->thread);
        shared->state.fetch_sub(1, std::memory_order_release);
        break;
      }
    }
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
  shared_->stop.store(true, std::memory_order_release);
  // Open, a worker on its way into an earlier round could join it, and wait for the next one for ever.
  shared_->NewRound(kClosed);
  for (int i = 0; i < shared_->started; i++) pthread_join(shared_->workers[i].id, nullptr);
  delete shared_;
}

void ThreadPool::Run(int count, Task task, const void* context) {
  Shared& shared = *shared_;
  shared.task = task;
  shared.context = context;
  shared.Divide(count);
  shared.NewRound(0);
  shared.Work(0);
  shared.CloseRound();
}

}  // namespace graph
}  // namespace block_sparse
