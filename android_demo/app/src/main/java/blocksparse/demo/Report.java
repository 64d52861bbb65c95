package blocksparse.demo;

import java.util.List;
import java.util.Locale;

/** The results as text, to be shared. */
final class Report {
  private Report() {}

  static String text(String device, String cpuLevel, List<Latency.Row> rows) {
    StringBuilder text = new StringBuilder();
    text.append(device).append(", kernels: ").append(cpuLevel).append('\n');
    text.append("median and 90th percentile of an inference, ms\n");
    for (Latency.Row row : rows) {
      text.append(
          String.format(
              Locale.ROOT,
              "%d %s: dense %.3f (%.3f), block-sparse %.3f (%.3f), %.2f times faster\n",
              row.threads,
              row.threads == 1 ? "thread" : "threads",
              row.dense.medianMs,
              row.dense.p90Ms,
              row.sparse.medianMs,
              row.sparse.p90Ms,
              row.timesFaster()));
    }
    return text.toString();
  }
}
