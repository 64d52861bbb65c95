package blocksparse.demo;

import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;

/** The screen of the demo app where half of the block-sparse model is missing. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
public final class BrokenModelTest {
  @Test
  public void aBrokenModelIsReported() throws Exception {
    ActivityController<MainActivity> controller = Robolectric.buildActivity(MainActivity.class).setup();
    assertTrue(ScreenTest.text(controller), ScreenTest.text(controller).startsWith("This did not work: "));
    assertFalse(ScreenTest.button(controller, R.string.share).isEnabled());
    ScreenTest.button(controller, R.string.measure).performClick();
    ScreenTest.button(controller, R.string.stop);
    ScreenTest.await(controller, "Share\nThis did not work: ");
    ScreenTest.await(controller, controller.get().getString(R.string.measure));
  }
}
