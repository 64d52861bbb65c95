package blocksparse.demo;

import java.util.Arrays;

/** Times two things in turns, so that both meet the same heat and the same neighbours. */
final class Latency {
  /** A clock in nanoseconds. */
  interface Clock {
    long now();
  }

  /** Asked before each turn. */
  interface Cancelled {
    boolean now();
  }

  static final class Summary {
    final double medianMs;
    final double p90Ms;

    Summary(long[] nanoseconds) {
      long[] sorted = nanoseconds.clone();
      Arrays.sort(sorted);
      medianMs = (sorted[(sorted.length - 1) / 2] + sorted[sorted.length / 2]) / 2e6;
      // The smallest time that at least 90 % of the runs do not exceed.
      p90Ms = sorted[(9 * sorted.length + 9) / 10 - 1] / 1e6;
    }
  }

  /** What a number of threads gave. */
  static final class Row {
    final int threads;
    final Summary dense;
    final Summary sparse;

    Row(int threads, Summary dense, Summary sparse) {
      this.threads = threads;
      this.dense = dense;
      this.sparse = sparse;
    }

    double timesFaster() {
      return dense.medianMs / sparse.medianMs;
    }
  }

  private Latency() {}

  /** Null if cancelled. Runs each a few times first. */
  static Row inTurns(int threads, Runnable dense, Runnable sparse, int turns, Clock clock, Cancelled cancelled) {
    for (int i = 0; i < 5; i++) {
      dense.run();
      sparse.run();
    }
    long[] denseTimes = new long[turns];
    long[] sparseTimes = new long[turns];
    for (int i = 0; i < turns; i++) {
      if (cancelled.now()) {
        return null;
      }
      long start = clock.now();
      dense.run();
      long between = clock.now();
      sparse.run();
      denseTimes[i] = between - start;
      sparseTimes[i] = clock.now() - between;
    }
    return new Row(threads, new Summary(denseTimes), new Summary(sparseTimes));
  }
}
