#include "tflite_delegate/graph/thread_pool.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/kernel_testing.h"

namespace block_sparse {
namespace testing {
namespace {

using graph::ThreadPool;

// Plain counters: an index handed out twice, or a round that is over too early, is a race that a sanitizer sees.
void ExpectEachOnce(ThreadPool* pool, int count) {
  std::vector<int> times(static_cast<size_t>(count), 0);
  pool->For(count, [&](int i) { times[static_cast<size_t>(i)]++; });
  EXPECT_EQ(times, std::vector<int>(static_cast<size_t>(count), 1)) << pool->threads() << " threads";
}

TEST(ThreadPool, HasTheThreadsAskedFor) {
  for (int threads : {1, 2, 3, 8, 16}) EXPECT_EQ(ThreadPool(threads).threads(), threads);
  EXPECT_EQ(ThreadPool(0).threads(), 1);
  EXPECT_EQ(ThreadPool(-5).threads(), 1);
  EXPECT_EQ(ThreadPool(1000).threads(), 64);
}

TEST(ThreadPool, EachIndexOnce) {
  for (int threads = 1; threads <= 16; threads++) {
    ThreadPool pool(threads);
    for (int count : {0, 1, 2, 3, 7, 15, 16, 17, 100, 1000}) ExpectEachOnce(&pool, count);
  }
}

TEST(ThreadPool, RoundsFollowEachOther) {
  for (int threads : {2, 3, 8}) {
    ThreadPool pool(threads);
    std::vector<int64_t> sums(37, 0);
    const int rounds = kSlow ? 300 : 3000;
    for (int round = 0; round < rounds; round++) {
      // Reads what other threads wrote in the round before.
      const int64_t before = std::accumulate(sums.begin(), sums.end(), int64_t{0});
      ASSERT_EQ(before, int64_t{37} * round);
      pool.For(37, [&](int i) { sums[static_cast<size_t>(i)]++; });
    }
  }
}

TEST(ThreadPool, WakesThreadsThatSleep) {
  ThreadPool pool(4);
  for (int round = 0; round < 5; round++) {
    ExpectEachOnce(&pool, 50);
    usleep(20000);  // longer than workers look for work before they sleep
  }
}

TEST(ThreadPool, SpreadsWork) {
  // Four tasks that each wait for all the others: one thread alone would never end.
  ThreadPool pool(4);
  std::atomic<int> here{0};
  pool.For(4, [&](int) {
    here.fetch_add(1);
    while (here.load() < 4) usleep(100);
  });
  EXPECT_EQ(here.load(), 4);
}

TEST(ThreadPool, OneThreadRunsInOrderAndInPlace) {
  ThreadPool pool(1);
  std::vector<int> order;
  pool.For(5, [&](int i) { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(ThreadPool, PoolsComeAndGo) {
  // Some before they did any work.
  for (int i = 0; i < 30; i++) {
    ThreadPool pool(1 + i % 7);
    if (i % 3 != 0) ExpectEachOnce(&pool, 10);
  }
}

TEST(ThreadPool, ClosesWhileWorkersLookForWork) {
  // Workers that start, or that try to join a round, just as the pool goes: it must not wait for them for ever.
  const int pools = kSlow ? 200 : 2000;
  for (int i = 0; i < pools; i++) {
    ThreadPool pool(2 + i % 7);
    for (int round = 0; round < i % 4; round++) pool.For(3, [](int) {});
  }
}

TEST(ThreadPool, TwoPoolsAtATime) {
  ThreadPool a(3), b(2);
  for (int i = 0; i < 50; i++) {
    ExpectEachOnce(&a, 20);
    ExpectEachOnce(&b, 20);
  }
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
