package blocksparse.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.view.View;
import android.view.ViewGroup;
import android.widget.Button;
import android.widget.TextView;
import java.io.FileOutputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;
import org.robolectric.shadow.api.Shadow;
import org.robolectric.shadows.ShadowContextWrapper;
import org.robolectric.shadows.ShadowLooper;

/** The screen of the demo app in Robolectric: Android's own classes, and models that really run. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34, qualifiers = "w411dp-h731dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
public final class ScreenTest {
  private static <T extends View> List<T> find(View view, Class<T> type) {
    List<T> found = new ArrayList<>();
    if (type.isInstance(view)) {
      found.add(type.cast(view));
    }
    if (view instanceof ViewGroup) {
      for (int i = 0; i < ((ViewGroup) view).getChildCount(); i++) {
        found.addAll(find(((ViewGroup) view).getChildAt(i), type));
      }
    }
    return found;
  }

  private static View content(ActivityController<MainActivity> controller) {
    return controller.get().findViewById(android.R.id.content);
  }

  static String text(ActivityController<MainActivity> controller) {
    StringBuilder text = new StringBuilder();
    for (TextView view : find(content(controller), TextView.class)) {
      text.append(view.getText()).append('\n');
    }
    return text.toString();
  }

  static Button button(ActivityController<MainActivity> controller, int name) {
    for (Button button : find(content(controller), Button.class)) {
      if (button.getText().toString().equals(controller.get().getString(name))) {
        return button;
      }
    }
    throw new AssertionError("no such button in\n" + text(controller));
  }

  static void await(ActivityController<MainActivity> controller, String words) throws Exception {
    for (int i = 0; i < 600; i++) {
      ShadowLooper.idleMainLooper();
      if (text(controller).contains(words)) {
        return;
      }
      Thread.sleep(50);
    }
    throw new AssertionError("\"" + words + "\" did not come:\n" + text(controller));
  }

  private static Latency.Summary times(double medianMs, double p90Ms) {
    long[] nanoseconds = new long[10];
    Arrays.fill(nanoseconds, 0, 8, Math.round(medianMs * 1e6));
    Arrays.fill(nanoseconds, 8, 10, Math.round(p90Ms * 1e6));
    return new Latency.Summary(nanoseconds);
  }

  /** Draws the screen with figures that are an example: what was measured here would be taken for a phone's. */
  private static void draw(ActivityController<MainActivity> controller) throws Exception {
    List<Latency.Row> rows =
        Arrays.asList(
            new Latency.Row(1, times(4.0, 4.5), times(1.6, 1.75)),
            new Latency.Row(2, times(2.2, 2.9), times(1.0, 1.2)),
            new Latency.Row(3, times(1.8, 2.6), times(0.8, 1.1)),
            new Latency.Row(4, times(1.5, 2.1), times(0.75, 1.25)));
    find(content(controller), BarsView.class).get(0).show(rows);
    List<TextView> texts = find(content(controller), TextView.class);
    texts.get(texts.size() - 1).setText(Report.text("Maker Phone 7, Android 14", "neon", rows));
    ShadowLooper.idleMainLooper();
    String file = System.getProperty("picture");
    View view = controller.get().getWindow().getDecorView();
    Bitmap bitmap = Bitmap.createBitmap(view.getWidth(), view.getHeight(), Bitmap.Config.ARGB_8888);
    view.draw(new Canvas(bitmap));
    try (FileOutputStream out = new FileOutputStream(file)) {
      bitmap.compress(Bitmap.CompressFormat.PNG, 100, out);
    }
  }

  @Test
  public void imagesAreClassified() {
    ActivityController<MainActivity> controller = Robolectric.buildActivity(MainActivity.class).setup();
    String first = text(controller);
    assertTrue(first, first.contains("image of: t-shirt\ndense: "));
    assertTrue(first, first.contains("block-sparse: "));
    button(controller, R.string.next_image).performClick();
    assertTrue(text(controller), text(controller).contains("image of: trouser"));
    for (int i = 0; i < 9; i++) {
      button(controller, R.string.next_image).performClick();
    }
    assertEquals(first, text(controller));
  }

  @Test
  public void resultsOutliveRotationAndAreShared() throws Exception {
    ActivityController<MainActivity> controller = Robolectric.buildActivity(MainActivity.class).setup();
    assertFalse(button(controller, R.string.share).isEnabled());
    button(controller, R.string.next_image).performClick();
    button(controller, R.string.measure).performClick();
    button(controller, R.string.stop);
    await(controller, "2 threads: dense ");
    controller.recreate();
    assertTrue(text(controller), text(controller).contains("image of: trouser"));
    await(controller, "4 threads: dense ");
    await(controller, controller.get().getString(R.string.measure));
    draw(controller);
    button(controller, R.string.share).performClick();
    ShadowContextWrapper shadow = Shadow.extract(controller.get());
    Intent chosen = shadow.getNextStartedActivity();
    Intent sent = chosen.getParcelableExtra(Intent.EXTRA_INTENT);
    String shared = sent.getStringExtra(Intent.EXTRA_TEXT);
    assertTrue(shared, shared.contains("4 threads: dense "));
    assertTrue(shared, shared.matches("(?s).*, Android \\S+, kernels: (avx2|avx512|scalar)\n.*"));
  }

  @Test
  public void measuringStopsOutOfSight() throws Exception {
    ActivityController<MainActivity> controller = Robolectric.buildActivity(MainActivity.class).setup();
    button(controller, R.string.measure).performClick();
    controller.pause().stop();
    controller.restart().start().resume();
    await(controller, controller.get().getString(R.string.stopped));
    await(controller, controller.get().getString(R.string.measure));
  }
}
