import blocksparse.tflite.BlockSparseDelegate;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;

/** BlockSparseDelegate alone and in an interpreter; prints "pass" or "fail" and the name of each test. */
public final class DelegateTest {
  interface Body {
    void run() throws Exception;
  }

  private static Path folder;

  public static void main(String[] arguments) {
    folder = Paths.get(arguments[0]);
    Map<String, Body> tests = new LinkedHashMap<>();
    tests.put("handle", DelegateTest::handle);
    tests.put("closed_twice", DelegateTest::closedTwice);
    tests.put("closed_by_many_threads", DelegateTest::closedByManyThreads);
    tests.put("use_after_close", DelegateTest::useAfterClose);
    tests.put("closed_before_the_interpreter", DelegateTest::closedBeforeTheInterpreter);
    tests.put("bad_options", DelegateTest::badOptions);
    tests.put("every_level", DelegateTest::everyLevel);
    tests.put("model_without_delegate", DelegateTest::modelWithoutDelegate);
    tests.put("model", DelegateTest::model);
    tests.put("shared_by_two_interpreters", DelegateTest::sharedByTwoInterpreters);
    tests.put("invalid_model", DelegateTest::invalidModel);
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

  private static <T extends Throwable> String message(Class<T> type, Body body) throws Exception {
    try {
      body.run();
    } catch (Throwable error) {
      if (!type.isInstance(error)) {
        throw new AssertionError("expected " + type.getName(), error);
      }
      return String.valueOf(error.getMessage());
    }
    throw new AssertionError("no " + type.getName());
  }

  private static BlockSparseDelegate.Options options() {
    return new BlockSparseDelegate.Options();
  }

  private static void handle() {
    try (BlockSparseDelegate one = new BlockSparseDelegate();
        BlockSparseDelegate other = new BlockSparseDelegate(options().setNumThreads(64).setCpuLevel("auto"))) {
      check(one.getNativeHandle() != 0, "handle is 0");
      check(one.getNativeHandle() == one.getNativeHandle(), "handle changes");
      check(one.getNativeHandle() != other.getNativeHandle(), "two delegates have one handle");
    }
  }

  private static void closedTwice() {
    BlockSparseDelegate delegate = new BlockSparseDelegate();
    delegate.close();
    delegate.close();
  }

  private static void closedByManyThreads() throws Exception {
    for (int round = 0; round < 50; round++) {
      BlockSparseDelegate delegate = new BlockSparseDelegate();
      AtomicInteger failures = new AtomicInteger();
      Thread[] threads = new Thread[8];
      for (int i = 0; i < threads.length; i++) {
        threads[i] = new Thread(delegate::close);
        threads[i].setUncaughtExceptionHandler((thread, error) -> failures.incrementAndGet());
        threads[i].start();
      }
      for (Thread thread : threads) {
        thread.join();
      }
      check(failures.get() == 0, "close failed");
    }
  }

  private static void useAfterClose() throws Exception {
    BlockSparseDelegate delegate = new BlockSparseDelegate();
    delegate.close();
    String message = message(IllegalStateException.class, delegate::getNativeHandle);
    check(message.contains("closed"), message);
    Interpreter.Options withClosed = new Interpreter.Options().addDelegate(delegate);
    message(IllegalStateException.class, () -> new Interpreter(file("sparse.tflite"), withClosed));
    message(IllegalStateException.class, delegate::getCpuLevel);
  }

  private static void closedBeforeTheInterpreter() throws Exception {
    float[] expected = floats("expected.f32");
    for (int threads = 1; threads <= 3; threads++) {
      BlockSparseDelegate delegate = new BlockSparseDelegate(options().setNumThreads(threads));
      Interpreter.Options options = new Interpreter.Options().addDelegate(delegate);
      try (Interpreter interpreter = new Interpreter(file("sparse.tflite"), options)) {
        delegate.close();
        checkClose(run(interpreter), expected);
        interpreter.resizeInput(0, interpreter.getInputTensor(0).shape());
        interpreter.allocateTensors();
        checkClose(run(interpreter), expected);
      }
    }
  }

  private static void badOptions() throws Exception {
    for (int threads : new int[] {0, -1, 65, Integer.MIN_VALUE}) {
      String message =
          message(IllegalArgumentException.class, () -> new BlockSparseDelegate(options().setNumThreads(threads)));
      check(
          message.equals("option `num_threads` is \"" + threads + "\"; expected a whole number from 1 to 64"), message);
    }
    String message =
        message(IllegalArgumentException.class, () -> new BlockSparseDelegate(options().setCpuLevel("\u00e9clair")));
    check(message.startsWith("option `cpu` is \"\u00e9clair\"; on this CPU it can be auto, "), message);
    message(NullPointerException.class, () -> options().setCpuLevel(null));
  }

  private static void everyLevel() throws Exception {
    float[] expected = floats("expected.f32");
    String message =
        message(IllegalArgumentException.class, () -> new BlockSparseDelegate(options().setCpuLevel("?")));
    String[] levels = message.substring(message.indexOf("can be ") + 7).split(", ");
    check(levels.length >= 2, message);
    for (String level : levels) {
      try (BlockSparseDelegate delegate = new BlockSparseDelegate(options().setCpuLevel(level))) {
        String used = delegate.getCpuLevel();
        check(level.equals("auto") ? Arrays.asList(levels).indexOf(used) > 0 : used.equals(level), level + ": " + used);
        checkClose(run(delegate), expected);
      }
    }
  }

  private static void modelWithoutDelegate() throws Exception {
    String message =
        message(RuntimeException.class, () -> new Interpreter(file("sparse.tflite")).allocateTensors());
    check(message.contains("custom op"), message);
  }

  private static void model() throws Exception {
    float[] first;
    try (BlockSparseDelegate delegate = new BlockSparseDelegate()) {
      first = run(delegate);
    }
    checkClose(first, floats("expected.f32"));
    try (BlockSparseDelegate delegate = new BlockSparseDelegate(options().setNumThreads(2))) {
      check(Arrays.equals(run(delegate), first), "another thread changes the result");
    }
  }

  private static void sharedByTwoInterpreters() throws Exception {
    float[] expected = floats("expected.f32");
    try (BlockSparseDelegate delegate = new BlockSparseDelegate();
        Interpreter one = new Interpreter(file("sparse.tflite"), new Interpreter.Options().addDelegate(delegate));
        Interpreter other = new Interpreter(file("sparse.tflite"), new Interpreter.Options().addDelegate(delegate))) {
      for (Interpreter interpreter : Arrays.asList(one, other, one)) {
        checkClose(run(interpreter), expected);
      }
    }
  }

  private static void invalidModel() throws Exception {
    try (BlockSparseDelegate delegate = new BlockSparseDelegate()) {
      Interpreter.Options options = new Interpreter.Options().addDelegate(delegate);
      message(RuntimeException.class, () -> new Interpreter(file("broken.tflite"), options));
      checkClose(run(delegate), floats("expected.f32"));
    }
  }

  private static float[] run(Delegate delegate) throws Exception {
    Interpreter.Options options = new Interpreter.Options().addDelegate(delegate);
    try (Interpreter interpreter = new Interpreter(file("sparse.tflite"), options)) {
      return run(interpreter);
    }
  }

  private static float[] run(Interpreter interpreter) throws Exception {
    byte[] bytes = Files.readAllBytes(folder.resolve("input.f32"));
    ByteBuffer input = ByteBuffer.allocateDirect(bytes.length).order(ByteOrder.nativeOrder());
    input.put(bytes);
    float[][] output = new float[1][interpreter.getOutputTensor(0).numElements()];
    for (int repeat = 0; repeat < 2; repeat++) {
      input.rewind();
      interpreter.run(input, output);
    }
    return output[0];
  }

  private static void checkClose(float[] got, float[] expected) {
    check(got.length == expected.length, got.length + " outputs");
    for (int i = 0; i < got.length; i++) {
      check(
          Math.abs(got[i] - expected[i]) <= 1e-5f + 1e-4f * Math.abs(expected[i]),
          "output " + i + " is " + got[i] + ", expected " + expected[i]);
    }
  }

  private static File file(String name) {
    return folder.resolve(name).toFile();
  }

  private static float[] floats(String name) throws Exception {
    ByteBuffer buffer = ByteBuffer.wrap(Files.readAllBytes(folder.resolve(name))).order(ByteOrder.nativeOrder());
    float[] values = new float[buffer.remaining() / Float.BYTES];
    buffer.asFloatBuffer().get(values);
    return values;
  }
}
