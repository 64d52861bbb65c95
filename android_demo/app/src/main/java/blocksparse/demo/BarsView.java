package blocksparse.demo;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Color;
import android.graphics.Paint;
import android.view.View;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Dense above block-sparse for each number of threads: a bar to the median, a line to the 90th percentile. */
final class BarsView extends View {
  private static final int DENSE = Color.rgb(120, 130, 140);
  private static final int SPARSE = Color.rgb(0, 120, 90);
  private static final int LEGEND = 24; // heights, in units
  private static final int ROW = 64;

  private final Paint paint = new Paint(Paint.ANTI_ALIAS_FLAG);
  private final float unit = getResources().getDisplayMetrics().scaledDensity;
  private List<Latency.Row> rows = new ArrayList<Latency.Row>();

  BarsView(Context context) {
    super(context);
  }

  void show(List<Latency.Row> shown) {
    rows = new ArrayList<Latency.Row>(shown);
    requestLayout();
    invalidate();
  }

  @Override
  protected void onMeasure(int width, int height) {
    setMeasuredDimension(MeasureSpec.getSize(width), Math.round(rows.isEmpty() ? 0 : (LEGEND + rows.size() * ROW) * unit));
  }

  @Override
  protected void onDraw(Canvas canvas) {
    double longest = 0;
    for (Latency.Row row : rows) {
      longest = Math.max(longest, Math.max(row.dense.p90Ms, row.sparse.p90Ms));
    }
    if (rows.isEmpty()) {
      return;
    }
    paint.setTextSize(13 * unit);
    float x = drawLegend(canvas, 0, DENSE, R.string.dense);
    x = drawLegend(canvas, x, SPARSE, R.string.sparse);
    canvas.drawText(getResources().getString(R.string.bars), x, 14 * unit, paint);
    float top = LEGEND * unit;
    for (Latency.Row row : rows) {
      String title = String.format(Locale.ROOT, "%d thr., %.2f x", row.threads, row.timesFaster());
      paint.setColor(Color.DKGRAY);
      canvas.drawText(title, 0, top + 14 * unit, paint);
      drawBar(canvas, top + 18 * unit, DENSE, row.dense, longest);
      drawBar(canvas, top + 38 * unit, SPARSE, row.sparse, longest);
      top += ROW * unit;
    }
  }

  /** Where the next one begins. */
  private float drawLegend(Canvas canvas, float x, int color, int name) {
    String text = getResources().getString(name);
    paint.setColor(color);
    canvas.drawRect(x, 4 * unit, x + 12 * unit, 16 * unit, paint);
    paint.setColor(Color.DKGRAY);
    canvas.drawText(text, x + 16 * unit, 14 * unit, paint);
    return x + 28 * unit + paint.measureText(text);
  }

  private void drawBar(Canvas canvas, float top, int color, Latency.Summary times, double longest) {
    float scale = (float) ((getWidth() - 76 * unit) / longest);
    float end = (float) times.medianMs * scale;
    paint.setColor(color);
    canvas.drawRect(0, top, end, top + 16 * unit, paint);
    canvas.drawRect(end, top + 7 * unit, (float) times.p90Ms * scale, top + 9 * unit, paint);
    paint.setColor(Color.DKGRAY);
    String text = String.format(Locale.ROOT, "%.3f ms", times.medianMs);
    canvas.drawText(text, (float) times.p90Ms * scale + 4 * unit, top + 13 * unit, paint);
  }
}
