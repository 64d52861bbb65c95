"""Plans against what they become: predicted and measured latency of whole networks pruned by a plan.

Prints a table and writes JSON lines to build/bench/mapping.jsonl. The latency table is measured first, or gone on with,
in build/bench/latency-table.json; weights are random, so plans are of no use but for their latency.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import models
from benchmarks.results import write_rows
from benchmarks.turns import time_in_turns

BENCH = Path("build/bench")
TABLE = BENCH / "latency-table.json"
NETWORKS = ("mobilenet_v1", "mobilenet_v2", "resnet50", "vgg16")
WITHIN = 0.10
"""Relative error that a prediction is to keep."""


def measured_table(path: Path, seconds: float, console: Console) -> Any:
    """The usual table, measured where it is not there yet; the benchmark's own, anew where it is of other kernels."""
    from keras_prune import mapping
    from keras_prune.mapping.measure import checked_table, usual_points

    if path == TABLE and path.exists():
        try:
            checked_table(path)
        except ValueError as error:
            console.print(f"{path} is measured anew: {error}")
            path.unlink()
    with console.status("latency table") as status:

        def say(done: int, wanted: int, point: Any) -> None:
            status.update(f"latency table: {done} of {wanted}, {point}")

        return mapping.measure_table(usual_points(), path, seconds=seconds, progress=say)


def run(name: str, target: str, table: Any, seconds: float) -> dict[str, Any]:
    """Plan, prune, convert and time one network."""
    import tensorflow as tf

    import keras_prune
    from keras_prune import mapping

    model = models.build(name)
    began = time.perf_counter()
    plan = mapping.plan(model, target, table)
    planned = time.perf_counter() - began
    plan.sparsify(model)
    data = keras_prune.convert(model)
    delegate = keras_prune.load_delegate(1, runtime="tensorflow")
    interpreter = tf.lite.Interpreter(model_content=data, experimental_delegates=[delegate])
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    image = np.random.default_rng(0).standard_normal(detail["shape"], dtype=np.float32)
    interpreter.set_tensor(detail["index"], image)
    times = time_in_turns([interpreter.invoke], seconds)[0]
    measured_ms = statistics.median(times) * 1e3
    return {
        "model": name,
        "target": target,
        "predicted_ms": round(plan.predicted_ms, 4),
        "measured_ms": round(measured_ms, 4),
        "error": round(plan.predicted_ms / measured_ms - 1.0, 4),
        "quickest_ms": round(min(times) * 1e3, 4),
        "runs": len(times),
        "dense_predicted_ms": round(plan.dense_ms, 4),
        "zeros": round(plan.zeros, 4),
        "plan_seconds": round(planned, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--target", default="80%", help="what plans are to reach (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time of a network")
    parser.add_argument("--table", type=Path, default=TABLE, help="the latency table")
    parser.add_argument("--point-seconds", type=float, default=0.03, help="measuring time of a layer in the table")
    parser.add_argument("--output", type=Path, default=BENCH, help="folder of the results")
    arguments = parser.parse_args()
    names = [name for name in NETWORKS if arguments.only in name]
    if not names:
        parser.error(f"no network contains {arguments.only!r}; there are {', '.join(NETWORKS)}")
    console = Console()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = measured_table(arguments.table, arguments.point_seconds, console)
    for (layer, structure), error in table.errors().items():
        console.print(f"{layer} {structure}: left out, {error.median:.1%} half, {error.worst_tenth:.1%} nine tenths")
    rows = []
    shown = Table("model", "predicted ms", "measured ms", "error", "zeros", "plan s")
    for name in names:
        with console.status(name):
            row = run(name, arguments.target, table, arguments.seconds)
        rows.append(row)
        write_rows(arguments.output / "mapping.jsonl", rows)
        verdict = "" if abs(row["error"]) <= WITHIN else " MISSED"
        shown.add_row(
            name,
            f"{row['predicted_ms']:.2f}",
            f"{row['measured_ms']:.2f}",
            f"{row['error']:+.1%}{verdict}",
            f"{row['zeros']:.1%}",
            f"{row['plan_seconds']:.2f}",
        )
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
