package blocksparse.demo;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Measures both models with 1 to 4 threads on a thread of its own. It outlives the screen that started it, which a
 * rotation replaces: whoever shows it sets itself as listener.
 */
final class Measurement {
  /** Called on the measuring thread. */
  interface Listener {
    void changed();
  }

  static final int MOST_THREADS = 4;
  private static final int TURNS = 60;

  private final List<Latency.Row> rows = new ArrayList<Latency.Row>();
  private Listener listener;
  private String error;
  private String cpuLevel;
  private boolean running;
  private volatile boolean cancelled;

  synchronized List<Latency.Row> rows() {
    return new ArrayList<Latency.Row>(rows);
  }

  /** Why it failed, or null. */
  synchronized String error() {
    return error;
  }

  /** The kernels that the delegate used last; null before the first measurement. */
  synchronized String cpuLevel() {
    return cpuLevel;
  }

  synchronized boolean running() {
    return running;
  }

  boolean cancelled() {
    return cancelled;
  }

  synchronized void setListener(Listener listener) {
    this.listener = listener;
  }

  /** Ends it after the turn that it is at. */
  void cancel() {
    cancelled = true;
  }

  /** Begins anew, unless it is running. */
  synchronized Thread start(final ByteBuffer dense, final ByteBuffer sparse, final float[] pixels) {
    if (running) {
      return null;
    }
    running = true;
    cancelled = false;
    error = null;
    rows.clear();
    Thread thread =
        new Thread("measurement") {
          @Override
          public void run() {
            measure(dense, sparse, pixels);
          }
        };
    thread.start();
    return thread;
  }

  private void measure(ByteBuffer dense, ByteBuffer sparse, float[] pixels) {
    String failure = null;
    try {
      for (int threads = 1; threads <= MOST_THREADS && !cancelled; threads++) {
        Latency.Row row = measure(threads, dense, sparse, pixels);
        if (row != null) {
          synchronized (this) {
            rows.add(row);
          }
          tell();
        }
      }
    } catch (RuntimeException | LinkageError problem) {
      failure = String.valueOf(problem.getMessage());
    }
    synchronized (this) {
      error = failure;
      running = false;
    }
    tell();
  }

  private Latency.Row measure(int threads, ByteBuffer dense, ByteBuffer sparse, float[] pixels) {
    try (final Classifier one = new Classifier(dense, false, threads);
        final Classifier other = new Classifier(sparse, true, threads)) {
      one.classify(pixels);
      other.classify(pixels);
      synchronized (this) {
        cpuLevel = other.cpuLevel();
      }
      return Latency.inTurns(
          threads,
          new Runnable() {
            @Override
            public void run() {
              one.run();
            }
          },
          new Runnable() {
            @Override
            public void run() {
              other.run();
            }
          },
          TURNS,
          new Latency.Clock() {
            @Override
            public long now() {
              return System.nanoTime();
            }
          },
          new Latency.Cancelled() {
            @Override
            public boolean now() {
              return cancelled;
            }
          });
    }
  }

  private void tell() {
    Listener told;
    synchronized (this) {
      told = listener;
    }
    if (told != null) {
      told.changed();
    }
  }
}
