"""Plans against what they become: predicted and measured latency of whole networks pruned by a plan.

Prints a table and writes JSON lines to build/bench/mapping.jsonl; ``--table`` puts the last run's into docs/mapping.md.
The usual latency table is measured first, or gone on with, in build/bench/latency-table.json. Then each network is
timed beside the table's yardsticks, which gives its latency at the speed of the machine that the table is for. Weights
are random, so plans are of no use but for their latency.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import models
from benchmarks.arguments import page_arguments
from benchmarks.page import markdown_table, replace_part
from benchmarks.results import write_rows

BENCH, PAGE = Path("build/bench"), Path("docs/mapping.md")
TABLE = BENCH / "latency-table.json"
NETWORKS = ("mobilenet_v1", "mobilenet_v2", "resnet50", "vgg16")
WITHIN = 0.10
"""Relative error that a prediction is to keep."""


def measured_table(path: Path, seconds: float, console: Console) -> Any:
    """The usual table, measured where it is not there yet; the benchmark's own, anew where it is of other kernels."""
    from keras_prune.mapping.measure import checked_table, usual_points

    if path == TABLE and path.exists():
        try:
            if not checked_table(path).yardsticks:
                raise ValueError("it does not tell the machine's speed")
        except ValueError as error:
            console.print(f"{path} is measured anew: {error}")
            path.unlink()
    return go_on(path, usual_points(), seconds, console)


def go_on(path: Path, points: list[Any], seconds: float, console: Console) -> Any:
    """Measure what a table does not have yet."""
    from keras_prune import mapping

    with console.status("latency table") as status:

        def say(done: int, wanted: int, point: Any) -> None:
            status.update(f"latency table: {done} of {wanted}, {point}")

        return mapping.measure_table(points, path, seconds=seconds, progress=say)


def own_differs(path: Path, table: Any) -> bool:
    """Whether a table is not one that was begun with this one."""
    from keras_prune.mapping import LatencyTable

    kept = LatencyTable.load(path)
    return (kept.yardsticks, kept.version) != (table.yardsticks, table.version)


def points_in(plan: Any, model: Any) -> list[Any]:
    """Each call of each layer of a model by a plan: its very size, structure, block and zeros."""
    from keras_prune.mapping import Layer, Point
    from keras_prune.mapping.workload import uses

    points = [Point(Layer.parse(size), layer.scheme, layer.zeros) for layer in plan.layers for size in layer.sizes]
    return points + [Point(use.layer) for use in uses(model) if not use.weight and use.path not in plan.uncounted]


def run(name: str, arguments: argparse.Namespace, table: Any, own_latencies: Path, console: Console) -> dict[str, Any]:
    """Plan, prune, convert and time one network."""
    import keras_prune
    from keras_prune import mapping
    from keras_prune.mapping.measure import Timed, yardstick
    from keras_prune.mapping.yardstick import at_reference, in_turns

    model = models.build(name)
    began = time.perf_counter()
    plan = mapping.plan(model, arguments.target, table)
    planned = time.perf_counter() - began
    points = points_in(plan, model)
    own_table = go_on(own_latencies, list(dict.fromkeys(points)), arguments.point_seconds, console)
    own_ms = sum(own_table.predict(point) for point in points) / 1e3
    plan.sparsify(model)
    network = Timed(keras_prune.convert(model))
    yardsticks = [yardstick(text) for text in table.yardsticks]
    quick = np.array(list(table.yardsticks.values())) * 1e-6
    with console.status(name):
        [(own, beside)] = in_turns([network], yardsticks, arguments.seconds)
    measured_ms = at_reference(own, beside, quick) * 1e3
    return {
        "model": name,
        "target": arguments.target,
        "predicted_ms": round(plan.predicted_ms, 4),
        "own_layers_ms": round(own_ms, 4),
        "measured_ms": round(measured_ms, 4),
        "error": round(plan.predicted_ms / measured_ms - 1.0, 4),
        "own_layers_error": round(own_ms / measured_ms - 1.0, 4),
        "raw_ms": round(float(np.median(own)) * 1e3, 4),
        "quickest_ms": round(float(own.min()) * 1e3, 4),
        "speed": [round(float(part), 3) for part in quick / np.median(beside, axis=0)],
        "runs": len(own),
        "dense_predicted_ms": round(plan.dense_ms, 4),
        "zeros": round(plan.zeros, 4),
        "plan_seconds": round(planned, 2),
    }


COLUMNS = ("model", "predicted ms", "own layers ms", "measured ms", "error", "own layers", "raw ms", "speed", "zeros")


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""

    def error(value: float) -> str:
        return f"{value:+.1%}" + ("" if abs(value) <= WITHIN else " MISSED")

    times = {key: f"{row[key]:.2f}" for key in ("predicted_ms", "own_layers_ms", "measured_ms", "raw_ms")}
    speed = " ".join(f"{part:.2f}" for part in row["speed"])
    return [row["model"], times["predicted_ms"], times["own_layers_ms"], times["measured_ms"], error(row["error"]),
            error(row["own_layers_error"]), times["raw_ms"], speed, f"{row['zeros']:.1%}"]  # fmt: skip


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of a page."""
    return markdown_table(COLUMNS, map(cells, rows))


def main() -> int:
    """Run the benchmark, or write its table; returns the exit status."""
    parser = page_arguments(__doc__, "networks", BENCH, "docs/mapping.md")
    parser.add_argument("--target", default="80%", help="what plans are to reach (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time of a network")
    parser.add_argument("--latencies", type=Path, default=TABLE, help="the usual latency table (default: %(default)s)")
    parser.add_argument("--point-seconds", type=float, default=0.4, help="measuring time of a layer in the table")
    arguments = parser.parse_args()
    results = arguments.output / "mapping.jsonl"
    if arguments.table:
        rows = [json.loads(line) for line in results.read_text().splitlines()]
        replace_part(PAGE, "mapping", "python -m benchmarks.mapping --table", markdown(rows))
        return 0
    names = [name for name in NETWORKS if arguments.only in name]
    if not names:
        parser.error(f"no network contains {arguments.only!r}; there are {', '.join(NETWORKS)}")
    console = Console()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = measured_table(arguments.latencies, arguments.point_seconds, console)
    for (layer, structure), error in table.errors().items():
        console.print(f"{layer} {structure}: left out, {error.median:.1%} half, {error.worst_tenth:.1%} nine tenths")
    # The plans' own layers are measured at the same speed, so their table begins with what the usual one has.
    own_latencies = arguments.latencies.with_stem(arguments.latencies.stem + "-own")
    if not own_latencies.exists() or own_differs(own_latencies, table):
        table.save(own_latencies)
    rows = []
    shown = Table(*COLUMNS)
    for name in names:
        rows.append(run(name, arguments, table, own_latencies, console))
        write_rows(results, rows)
        shown.add_row(*cells(rows[-1]))
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
