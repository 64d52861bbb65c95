package blocksparse.tflite;

import org.tensorflow.lite.Delegate;

/**
 * Runs block-sparse models in TensorFlow Lite's or LiteRT's interpreter, several times faster than dense ones.
 *
 * <pre>{@code
 * BlockSparseDelegate delegate = new BlockSparseDelegate(new BlockSparseDelegate.Options().setNumThreads(2));
 * Interpreter interpreter = new Interpreter(model, new Interpreter.Options().addDelegate(delegate));
 * }</pre>
 *
 * <p>One delegate may serve several interpreters. It may be closed as soon as they are made: they keep what they need of
 * it, and run on. All methods may be called from any thread.
 */
public final class BlockSparseDelegate implements Delegate, AutoCloseable {
  /** How a delegate computes. What is not set is left to the delegate. */
  public static final class Options {
    private int numThreads = 1;
    private String cpuLevel = "auto";

    /**
     * Sets how many threads compute a model, 1 to 64; 1 by default. The delegate has threads of its own: the
     * interpreter's {@code setNumThreads} counts for the layers that are not the delegate's.
     */
    public Options setNumThreads(int numThreads) {
      this.numThreads = numThreads;
      return this;
    }

    /**
     * Sets the kernels to use: "auto" (the default; the best that this CPU has), "scalar", "neon", "avx2" or "avx512".
     *
     * @throws NullPointerException if it is null
     */
    public Options setCpuLevel(String cpuLevel) {
      if (cpuLevel == null) {
        throw new NullPointerException("cpuLevel is null; \"auto\" lets the delegate choose");
      }
      this.cpuLevel = cpuLevel;
      return this;
    }
  }

  static {
    System.loadLibrary("block_sparse_delegate_jni");
  }

  private long handle; // 0: closed

  /** Makes a delegate of one thread with the best kernels that this CPU has. */
  public BlockSparseDelegate() {
    this(new Options());
  }

  /**
   * Makes a delegate.
   *
   * @throws IllegalArgumentException if an option's value is not one that this CPU can take; the message names the
   *     option and what it can be
   */
  public BlockSparseDelegate(Options options) {
    handle =
        create(
            new String[] {"num_threads", "cpu"},
            new String[] {Integer.toString(options.numThreads), options.cpuLevel});
  }

  /**
   * The address of the {@code TfLiteDelegate}, for the interpreter.
   *
   * @throws IllegalStateException if the delegate is closed
   */
  @Override
  public synchronized long getNativeHandle() {
    if (handle == 0) {
      throw new IllegalStateException("this BlockSparseDelegate is closed; make a new one for a new interpreter");
    }
    return handle;
  }

  /**
   * The kernels that it uses, which is what "auto" came to on this CPU: "scalar", "neon", "avx2" or "avx512".
   *
   * @throws IllegalStateException if the delegate is closed
   */
  public synchronized String getCpuLevel() {
    return cpuLevel(getNativeHandle());
  }

  /** Frees the delegate. A second call does nothing. */
  @Override
  public synchronized void close() {
    final long closing = handle;
    handle = 0;
    if (closing != 0) {
      destroy(closing);
    }
  }

  private static native long create(String[] keys, String[] values);

  private static native String cpuLevel(long handle);

  private static native void destroy(long handle);
}
