package blocksparse.demo;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;

/** What the demo app does without its screen; prints "pass" or "fail" and the name of each test. */
public final class DemoTest {
  interface Body {
    void run() throws Exception;
  }

  private static Path folder;

  public static void main(String[] arguments) {
    folder = Paths.get(arguments[0]);
    Map<String, Body> tests = new LinkedHashMap<>();
    tests.put("summary", DemoTest::summary);
    tests.put("turns", DemoTest::turns);
    tests.put("cancelled_turns", DemoTest::cancelledTurns);
    tests.put("report", DemoTest::report);
    tests.put("classify", DemoTest::classify);
    tests.put("bad_models_and_images", DemoTest::badModelsAndImages);
    tests.put("measurement", DemoTest::measurement);
    tests.put("cancelled_measurement", DemoTest::cancelledMeasurement);
    tests.put("failed_measurement", DemoTest::failedMeasurement);
    for (Map.Entry<String, Body> test : tests.entrySet()) {
      try {
        test.getValue().run();
        System.out.println("pass " + test.getKey());
      } catch (Throwable error) {
        System.out.println("fail " + test.getKey() + ": " + error);
        error.printStackTrace();
      }
    }
  }

  private static void check(boolean condition, String what) {
    if (!condition) {
      throw new AssertionError(what);
    }
  }

  private static void summary() {
    long[] times = new long[10];
    for (int i = 0; i < 10; i++) {
      times[i] = (10 - i) * 1000000L; // 10, 9, ..., 1 ms
    }
    Latency.Summary ten = new Latency.Summary(times);
    check(ten.medianMs == 5.5, "median of 1 to 10 is " + ten.medianMs);
    check(ten.p90Ms == 9.0, "90th percentile of 1 to 10 is " + ten.p90Ms);
    check(times[0] == 10000000L, "the times were sorted in place");
    Latency.Summary one = new Latency.Summary(new long[] {3000000});
    check(one.medianMs == 3.0 && one.p90Ms == 3.0, "of one time");
    Latency.Summary three = new Latency.Summary(new long[] {7000000, 1000000, 2000000});
    check(three.medianMs == 2.0 && three.p90Ms == 7.0, "of three times");
  }

  /** A clock that stands still but for what the runs take. */
  private static final class FakeClock implements Latency.Clock {
    long time = 42;

    @Override
    public long now() {
      return time;
    }

    Runnable takes(long nanoseconds, List<String> log, String name) {
      return () -> {
        log.add(name);
        time += nanoseconds;
      };
    }
  }

  private static void turns() {
    FakeClock clock = new FakeClock();
    List<String> log = new ArrayList<>();
    Latency.Row row =
        Latency.inTurns(
            3, clock.takes(6000000, log, "d"), clock.takes(2000000, log, "s"), 7, clock, () -> false);
    check(row.threads == 3 && row.dense.medianMs == 6.0 && row.sparse.medianMs == 2.0, "times");
    check(row.timesFaster() == 3.0, "ratio is " + row.timesFaster());
    check(log.size() == 2 * (7 + 5), log.size() + " runs");
    for (int i = 0; i < log.size(); i++) {
      check(log.get(i).equals(i % 2 == 0 ? "d" : "s"), "not in turns");
    }
  }

  private static void cancelledTurns() {
    FakeClock clock = new FakeClock();
    AtomicInteger asked = new AtomicInteger();
    List<String> log = new ArrayList<>();
    Latency.Row row =
        Latency.inTurns(
            1, clock.takes(1, log, "d"), clock.takes(1, log, "s"), 50, clock, () -> asked.incrementAndGet() > 3);
    check(row == null, "a row in spite of it");
    check(log.size() == 2 * (3 + 5), log.size() + " runs");
  }

  private static void report() {
    Latency.Summary dense = new Latency.Summary(new long[] {4000000});
    Latency.Summary sparse = new Latency.Summary(new long[] {1600000});
    String text =
        Report.text(
            "Maker Phone", "neon", Arrays.asList(new Latency.Row(1, dense, sparse), new Latency.Row(2, sparse, dense)));
    check(
        text.equals(
            "Maker Phone, kernels: neon\n"
                + "median and 90th percentile of an inference, ms\n"
                + "1 thread: dense 4.000 (4.000), block-sparse 1.600 (1.600), 2.50 times faster\n"
                + "2 threads: dense 1.600 (1.600), block-sparse 4.000 (4.000), 0.40 times faster\n"),
        text);
  }

  private static void classify() throws Exception {
    float[] image = floats("input.f32");
    int expected = Integer.parseInt(new String(Files.readAllBytes(folder.resolve("class.txt"))).trim());
    for (int repeat = 0; repeat < 2; repeat++) {
      try (Classifier dense = new Classifier(model("dense.tflite"), false, 1);
          Classifier sparse = new Classifier(model("sparse.tflite"), true, 2)) {
        check(dense.classify(image) == expected, "dense");
        check(sparse.classify(image) == expected, "block-sparse");
      }
    }
  }

  private static void badModelsAndImages() throws Exception {
    fails(() -> new Classifier(model("broken.tflite"), true, 1), "");
    fails(() -> new Classifier(model("broken.tflite"), false, 1), "");
    fails(() -> new Classifier(model("sparse.tflite"), false, 1), "custom op");
    fails(() -> new Classifier(model("sparse.tflite"), true, 65), "num_threads");
    try (Classifier dense = new Classifier(model("dense.tflite"), false, 1)) {
      check(dense.cpuLevel() == null, "a dense model's kernels: " + dense.cpuLevel());
    }
    try (Classifier sparse = new Classifier(model("sparse.tflite"), true, 1)) {
      fails(() -> sparse.classify(new float[5]), "an image of 5 pixels; expected");
    }
  }

  private static void fails(Body body, String words) throws Exception {
    try {
      body.run();
    } catch (RuntimeException error) {
      check(String.valueOf(error.getMessage()).contains(words), String.valueOf(error.getMessage()));
      return;
    }
    throw new AssertionError("nothing was thrown");
  }

  private static void measurement() throws Exception {
    Measurement measurement = new Measurement();
    AtomicInteger told = new AtomicInteger();
    measurement.setListener(told::incrementAndGet);
    Thread thread = measurement.start(model("dense.tflite"), model("sparse.tflite"), floats("input.f32"));
    check(measurement.start(model("dense.tflite"), model("sparse.tflite"), floats("input.f32")) == null, "twice");
    thread.join();
    check(!measurement.running() && measurement.error() == null, "error " + measurement.error());
    List<Latency.Row> rows = measurement.rows();
    check(rows.size() == Measurement.MOST_THREADS, rows.size() + " rows");
    for (int i = 0; i < rows.size(); i++) {
      check(rows.get(i).threads == i + 1, "order of rows");
      check(rows.get(i).dense.medianMs > 0 && rows.get(i).sparse.p90Ms > 0, "times");
    }
    check(told.get() == rows.size() + 1, "told " + told.get() + " times");
    check(Arrays.asList("avx2", "avx512", "scalar").contains(measurement.cpuLevel()), measurement.cpuLevel());
  }

  private static void cancelledMeasurement() throws Exception {
    Measurement measurement = new Measurement();
    measurement.setListener(measurement::cancel); // at the first row
    measurement.start(model("dense.tflite"), model("sparse.tflite"), floats("input.f32")).join();
    check(measurement.rows().size() == 1 && !measurement.running(), measurement.rows().size() + " rows");
    check(measurement.cancelled() && measurement.error() == null, "state");
    measurement.setListener(null);
    measurement.start(model("dense.tflite"), model("sparse.tflite"), floats("input.f32")).join();
    check(measurement.rows().size() == Measurement.MOST_THREADS, "it does not start again");
  }

  private static void failedMeasurement() throws Exception {
    Measurement measurement = new Measurement();
    measurement.start(model("dense.tflite"), model("broken.tflite"), floats("input.f32")).join();
    check(measurement.error() != null && measurement.rows().isEmpty() && !measurement.running(), "no error");
  }

  private static ByteBuffer model(String name) throws Exception {
    byte[] bytes = Files.readAllBytes(folder.resolve(name));
    ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.length).order(ByteOrder.nativeOrder());
    buffer.put(bytes);
    buffer.rewind();
    return buffer;
  }

  private static float[] floats(String name) throws Exception {
    ByteBuffer buffer = ByteBuffer.wrap(Files.readAllBytes(folder.resolve(name))).order(ByteOrder.nativeOrder());
    float[] values = new float[buffer.remaining() / Float.BYTES];
    buffer.asFloatBuffer().get(values);
    return values;
  }
}
