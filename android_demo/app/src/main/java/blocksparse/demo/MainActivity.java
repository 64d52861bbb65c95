package blocksparse.demo;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.graphics.Color;
import android.os.Build;
import android.os.Bundle;
import android.view.View;
import android.widget.Button;
import android.widget.ImageView;
import android.widget.LinearLayout;
import android.widget.ScrollView;
import android.widget.TextView;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/** Shows what both models see in an image, and how long each takes. */
public final class MainActivity extends Activity {
  private static final String IMAGES = "samples"; // files NUMBER_CLASS.png; Android itself has some in "images"

  /** What a rotation does not end. */
  private static final class State {
    final Measurement measurement = new Measurement();
    int image;
    boolean stoppedUnseen;
  }

  private State state;
  private List<String> names = new ArrayList<String>();
  private List<String> classes = new ArrayList<String>();
  private ByteBuffer dense;
  private ByteBuffer sparse;
  private float[] pixels;

  private ImageView picture;
  private TextView said;
  private TextView results;
  private BarsView bars;
  private Button measure;
  private Button share;

  @Override
  protected void onCreate(Bundle saved) {
    super.onCreate(saved);
    state = (State) getLastNonConfigurationInstance();
    if (state == null) {
      state = new State();
      state.image = saved == null ? 0 : saved.getInt(IMAGES);
    }
    build();
    try {
      for (String name : getAssets().list(IMAGES)) {
        names.add(name);
      }
      for (String name : new String(read("classes.txt"), "UTF-8").trim().split("\n")) {
        classes.add(name);
      }
      dense = direct(read("dense.tflite"));
      sparse = direct(read("sparse.tflite"));
      showImage();
    } catch (IOException | RuntimeException | LinkageError error) {
      fail(error);
    }
  }

  private void build() {
    LinearLayout column = new LinearLayout(this);
    column.setOrientation(LinearLayout.VERTICAL);
    int space = Math.round(16 * getResources().getDisplayMetrics().density);
    column.setPadding(space, space, space, space);
    picture = new ImageView(this);
    column.addView(picture, new LinearLayout.LayoutParams(7 * space, 7 * space));
    said = new TextView(this);
    column.addView(said);
    LinearLayout buttons = new LinearLayout(this);
    button(buttons, R.string.next_image).setOnClickListener(
        new View.OnClickListener() {
          @Override
          public void onClick(View view) {
            nextImage();
          }
        });
    measure = button(buttons, R.string.measure);
    measure.setOnClickListener(
        new View.OnClickListener() {
          @Override
          public void onClick(View view) {
            startOrStop();
          }
        });
    share = button(buttons, R.string.share);
    share.setOnClickListener(
        new View.OnClickListener() {
          @Override
          public void onClick(View view) {
            shareResults();
          }
        });
    column.addView(buttons);
    bars = new BarsView(this);
    column.addView(bars);
    results = new TextView(this);
    results.setTextIsSelectable(true);
    column.addView(results);
    ScrollView scroll = new ScrollView(this);
    scroll.addView(column);
    setContentView(scroll);
  }

  private Button button(LinearLayout row, int text) {
    Button button = new Button(this);
    button.setText(text);
    row.addView(button);
    return button;
  }

  @Override
  protected void onStart() {
    super.onStart();
    state.measurement.setListener(
        new Measurement.Listener() {
          @Override
          public void changed() {
            runOnUiThread(
                new Runnable() {
                  @Override
                  public void run() {
                    showResults();
                  }
                });
          }
        });
    showResults();
  }

  @Override
  protected void onStop() {
    state.measurement.setListener(null);
    // Out of sight Android moves the app to slow cores: such times would mislead.
    if (!isChangingConfigurations() && state.measurement.running()) {
      state.measurement.cancel();
      state.stoppedUnseen = true;
    }
    super.onStop();
  }

  @Override
  public Object onRetainNonConfigurationInstance() {
    return state;
  }

  @Override
  protected void onSaveInstanceState(Bundle out) {
    super.onSaveInstanceState(out);
    out.putInt(IMAGES, state.image);
  }

  private void nextImage() {
    state.image++;
    try {
      showImage();
    } catch (IOException | RuntimeException | LinkageError error) {
      fail(error);
    }
  }

  private void showImage() throws IOException {
    String name = names.get(state.image % names.size());
    byte[] file = read(IMAGES + "/" + name);
    BitmapFactory.Options options = new BitmapFactory.Options();
    options.inScaled = false;
    Bitmap bitmap = BitmapFactory.decodeByteArray(file, 0, file.length, options);
    picture.setImageBitmap(Bitmap.createScaledBitmap(bitmap, 8 * bitmap.getWidth(), 8 * bitmap.getHeight(), false));
    pixels = new float[bitmap.getWidth() * bitmap.getHeight()];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = Color.red(bitmap.getPixel(i % bitmap.getWidth(), i / bitmap.getWidth())) / 255f;
    }
    String real = name.substring(name.indexOf('_') + 1, name.lastIndexOf('.'));
    said.setText(
        getString(R.string.image_of, real)
            + "\n"
            + getString(R.string.predictions, classify(dense, false), classify(sparse, true)));
  }

  private String classify(ByteBuffer model, boolean withDelegate) {
    try (Classifier classifier = new Classifier(model, withDelegate, 1)) {
      return classes.get(classifier.classify(pixels));
    }
  }

  private void startOrStop() {
    if (state.measurement.running()) {
      state.measurement.cancel();
    } else if (pixels != null) {
      state.stoppedUnseen = false;
      state.measurement.start(dense, sparse, pixels);
    }
    showResults();
  }

  private void showResults() {
    Measurement measurement = state.measurement;
    List<Latency.Row> rows = measurement.rows();
    bars.show(rows);
    measure.setText(measurement.running() ? R.string.stop : R.string.measure);
    share.setEnabled(!rows.isEmpty());
    String text = rows.isEmpty() ? "" : Report.text(device(), measurement.cpuLevel(), rows);
    if (measurement.error() != null) {
      text += getString(R.string.failed, measurement.error());
    } else if (state.stoppedUnseen) {
      text += getString(R.string.stopped);
    }
    results.setText(text);
  }

  private void shareResults() {
    Intent send = new Intent(Intent.ACTION_SEND);
    send.setType("text/plain");
    Measurement measurement = state.measurement;
    send.putExtra(Intent.EXTRA_TEXT, Report.text(device(), measurement.cpuLevel(), measurement.rows()));
    startActivity(Intent.createChooser(send, getString(R.string.share)));
  }

  private static String device() {
    return Build.MANUFACTURER + " " + Build.MODEL + ", Android " + Build.VERSION.RELEASE;
  }

  private void fail(Throwable error) {
    said.setText(getString(R.string.failed, String.valueOf(error.getMessage())));
    measure.setEnabled(pixels != null);
  }

  private byte[] read(String name) throws IOException {
    try (InputStream stream = getAssets().open(name)) {
      byte[] bytes = new byte[stream.available()];
      int at = 0;
      while (at < bytes.length) {
        int count = stream.read(bytes, at, bytes.length - at);
        if (count < 0) {
          throw new IOException(name + " is cut short");
        }
        at += count;
      }
      return bytes;
    }
  }

  private static ByteBuffer direct(byte[] bytes) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.length).order(ByteOrder.nativeOrder());
    buffer.put(bytes);
    buffer.rewind();
    return buffer;
  }
}
