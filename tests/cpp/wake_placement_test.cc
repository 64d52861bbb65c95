#include "tflite_delegate/graph/wake_placement.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "gtest/gtest.h"
#include "tflite_delegate/graph/thread_pool.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::WakePlacement;

cpu_set_t Allowed(pid_t thread = 0) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  EXPECT_EQ(sched_getaffinity(thread, sizeof mask, &mask), 0);
  return mask;
}

// This thread stays on one processor, the first it may use, as long as this lives.
class OnOneProcessor {
 public:
  OnOneProcessor() : before_(Allowed()) {
    while (!CPU_ISSET(processor, &before_)) processor++;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  }
  ~OnOneProcessor() { sched_setaffinity(0, sizeof before_, &before_); }
  int processor = 0;

 private:
  cpu_set_t before_;
};

// A thread that waits for Go between Begin and End.
class Sleeper {
 public:
  Sleeper()
      : thread_([this] {
          placement.Begin();
          before_ = Allowed();
          id_ = gettid();
          while (!go_) usleep(100);
          placement.End();
          after_ = Allowed();
        }) {
    while (id_ == 0) usleep(100);
  }
  cpu_set_t now() const { return Allowed(id_); }
  const cpu_set_t& before() const { return before_; }
  const cpu_set_t& Go() {
    go_ = true;
    thread_.join();
    return after_;
  }
  WakePlacement placement;

 private:
  cpu_set_t before_, after_;
  std::atomic<pid_t> id_{0};
  std::atomic<bool> go_{false};
  std::thread thread_;
};

TEST(WakePlacement, AwayFromTheWakerUntilItIsAwake) {
  Sleeper sleeper;
  if (CPU_COUNT(&sleeper.before()) == 1) {
    sleeper.Go();
    GTEST_SKIP() << "there is one processor";
  }
  const OnOneProcessor here;
  for (int i = 0; i < 2; i++) {  // woken twice before it runs
    sleeper.placement.AwayFromHere();
    cpu_set_t expected = sleeper.before();
    CPU_CLR(here.processor, &expected);
    const cpu_set_t now = sleeper.now();
    EXPECT_TRUE(CPU_EQUAL(&now, &expected));
  }
  EXPECT_TRUE(CPU_EQUAL(&sleeper.Go(), &sleeper.before()));
}

TEST(WakePlacement, NotAwayFromTheOnlyProcessor) {
  const OnOneProcessor here;
  Sleeper sleeper;  // inherits it
  ASSERT_EQ(CPU_COUNT(&sleeper.before()), 1);
  sleeper.placement.AwayFromHere();
  const cpu_set_t now = sleeper.now();
  EXPECT_TRUE(CPU_EQUAL(&now, &sleeper.before()));
  EXPECT_TRUE(CPU_EQUAL(&sleeper.Go(), &sleeper.before()));
}

TEST(WakePlacement, NothingBeforeTheThreadHasBegun) {
  WakePlacement placement;
  const cpu_set_t before = Allowed();
  placement.AwayFromHere();
  placement.End();
  const cpu_set_t after = Allowed();
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

// Whatever this machine is: who was woken may run where the pool's maker may.
TEST(WakePlacement, ThreadPoolsThreadsKeepTheirProcessors) {
  const cpu_set_t expected = Allowed();
  graph::ThreadPool pool(3);
  for (int round = 0; round < 4; round++) {
    usleep(20000);  // longer than workers look for work before they sleep
    std::atomic<int> here{0};
    std::mutex mutex;
    pool.For(3, [&](int) {
      here++;
      while (here < 3) usleep(100);  // all threads are in this round
      const cpu_set_t mask = Allowed();
      const std::lock_guard<std::mutex> lock(mutex);
      EXPECT_TRUE(CPU_EQUAL(&mask, &expected)) << "round " << round;
    });
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
