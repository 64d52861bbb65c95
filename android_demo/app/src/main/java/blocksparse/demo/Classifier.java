package blocksparse.demo;

import blocksparse.tflite.BlockSparseDelegate;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import org.tensorflow.lite.Interpreter;

/** One model in an interpreter of its own: dense as it comes, with XNNPACK, or block-sparse through the delegate. */
final class Classifier implements AutoCloseable {
  private final BlockSparseDelegate delegate; // null: dense
  private final Interpreter interpreter;
  private final ByteBuffer input;
  private final float[][] scores;

  /**
   * Opens a model.
   *
   * @param model the file, in a direct buffer
   * @throws RuntimeException if the model cannot be opened; nothing is left open then
   */
  Classifier(ByteBuffer model, boolean sparse, int threads) {
    Interpreter.Options options = new Interpreter.Options().setNumThreads(threads);
    delegate = sparse ? new BlockSparseDelegate(new BlockSparseDelegate.Options().setNumThreads(threads)) : null;
    Interpreter opened = null;
    try {
      if (delegate != null) {
        options.addDelegate(delegate);
      }
      opened = new Interpreter(model, options);
      input = ByteBuffer.allocateDirect(opened.getInputTensor(0).numBytes()).order(ByteOrder.nativeOrder());
      scores = new float[1][opened.getOutputTensor(0).numElements()];
      interpreter = opened;
    } catch (RuntimeException error) {
      if (opened != null) {
        opened.close();
      }
      if (delegate != null) {
        delegate.close();
      }
      throw error;
    }
  }

  /** What the image shows: the number of the class with the highest score. */
  int classify(float[] pixels) {
    FloatBuffer floats = input.asFloatBuffer();
    if (pixels.length != floats.remaining()) {
      throw new IllegalArgumentException("an image of " + pixels.length + " pixels; expected " + floats.remaining());
    }
    floats.put(pixels);
    run();
    int best = 0;
    for (int i = 1; i < scores[0].length; i++) {
      if (scores[0][i] > scores[0][best]) {
        best = i;
      }
    }
    return best;
  }

  /** Computes the scores of the last image again. */
  void run() {
    input.rewind();
    interpreter.run(input, scores);
  }

  /** The kernels that the delegate uses; null for a dense model. */
  String cpuLevel() {
    return delegate == null ? null : delegate.getCpuLevel();
  }

  @Override
  public void close() {
    interpreter.close();
    if (delegate != null) {
      delegate.close();
    }
  }
}
