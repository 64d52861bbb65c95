"""From which share of zeros on a layer is the faster for them, by layer, structure and block.

Each layer runs between two small ones in the delegate, dense and with rising shares of zeros in turns, all in one
process. A line through the times over the zeros tells where they meet the dense layer's. Prints the layers' middle for
each block beside what the converter assumes, and writes JSON lines to build/bench/payoff.jsonl.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import page_arguments
from benchmarks.latency import BENCH, cpu_name
from benchmarks.page import markdown_table, replace_part
from benchmarks.results import write_rows
from benchmarks.turns import time_in_turns

ZEROS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
PATTERN_ZEROS, PATTERN_LEAST = (0.6, 0.7, 0.8), 5 / 9
"""Patterns leave out five of nine weights in any case."""
LAYERS = (
    "conv 28x28x32 64 1x1 1",
    "conv 56x56x64 128 1x1 1",
    "conv 14x14x256 256 1x1 1",
    "conv 7x7x512 1024 1x1 1",
    "conv 14x14x32 32 3x3 1",
    "conv 56x56x64 64 3x3 1",
    "conv 14x14x256 256 3x3 1",
    "dense 256 256",
    "dense 1024 1000",
    "dense 2048 2048",
)
KINDS = {"conv1x1": "1x1 convolution", "conv3x3": "3x3 convolution", "dense": "fully connected"}


def schemes(layer: Any) -> list[str]:
    """Structures and blocks that a layer is timed with."""
    from keras_prune.mapping.measure import SCHEMES

    return ["aligned_block:4", *SCHEMES[layer.family]]


def break_even(zeros: Sequence[float], sparse: Sequence[float], dense: float) -> float | None:
    """Return the share of zeros from which on the sparse layer is faster, or None if that is never.

    Args:
        zeros: shares.
        sparse: time of the layer with each of them.
        dense: its time without.

    Example:
        >>> round(break_even([0.2, 0.4], [9.0, 7.0], 8.5), 6)
        0.25
    """
    slope, start = np.polyfit(zeros, sparse, 1)
    if start <= dense:
        return 0.0
    if slope >= 0.0 or start + slope >= dense:
        return None
    return float((dense - start) / slope)


def assumed(layer: Any, scheme: str) -> float:
    """Return from which share of zeros on the converter holds blocks to be faster, without a latency table."""
    from keras_prune.mapping.table import Point
    from keras_prune.tflite import MIN_ZEROS
    from keras_prune.tflite.encodings.base import BLOCK_OVERHEAD, DENSE_COST, FULLY_CONNECTED_DENSE_COST

    dense = FULLY_CONNECTED_DENSE_COST if layer.family == "dense" else DENSE_COST
    return max(MIN_ZEROS, 1.0 - dense / (1.0 + BLOCK_OVERHEAD / Point(layer, scheme).rows))


def prepared(point: Any) -> Any:
    """Interpreter of a layer, ready to run in the delegate."""
    import tensorflow as tf

    import keras_prune
    from keras_prune.mapping.measure import one_layer

    delegate = keras_prune.load_delegate(1, runtime="tensorflow")
    made = tf.lite.Interpreter(model_content=one_layer(point), experimental_delegates=[delegate])
    made.allocate_tensors()
    detail = made.get_input_details()[0]
    made.set_tensor(detail["index"], np.random.default_rng(0).standard_normal(detail["shape"], dtype=np.float32))
    return made


def measure(layer: Any, scheme: str, seconds: float) -> dict[str, Any]:
    """Time one layer, dense and with the zeros of one structure and block."""
    from keras_prune.mapping.measure import captured_stderr
    from keras_prune.mapping.table import Point

    zeros = PATTERN_ZEROS if scheme.startswith("pattern") else ZEROS
    points = [Point(layer), *(Point(layer, scheme, share) for share in zeros)]
    with captured_stderr():  # the delegate's line for each model
        sides = [prepared(point) for point in points]
    times = time_in_turns([side.invoke for side in sides], seconds)
    dense, *sparse = (statistics.median(side) * 1e6 for side in times)
    meeting = break_even(zeros, sparse, dense)
    if meeting is not None and zeros is PATTERN_ZEROS:
        meeting = max(meeting, PATTERN_LEAST)
    return {
        "layer": str(layer),
        "kind": layer.family,
        "scheme": scheme,
        "rows": points[-1].rows,
        "threads": 1,
        "dense_us": round(dense, 3),
        "zeros": list(zeros),
        "sparse_us": [round(us, 3) for us in sparse],
        "break_even": None if meeting is None else round(meeting, 4),
        "assumed": round(assumed(layer, scheme), 4),
        "runs": min(len(side) for side in times),
    }


def summary(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """For each kind of layer and block: the middle of the layers' break-evens, the least and the most."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["scheme"]), []).append(row)
    lines = []
    for (kind, scheme), own in found.items():
        each = [_share(row) for row in own]
        middle, least, most = (_percent(share) for share in (statistics.median(each), min(each), max(each)))
        lines.append((KINDS[kind], scheme, middle, f"{least} to {most}", _percent(own[0]["assumed"])))
    return lines


def threshold(rows: list[dict[str, Any]]) -> str:
    """Say from which share of zeros on nine tenths of the convolutions with blocks of 4 rows and more are the faster.

    It is what the converter's MIN_ZEROS rests on.
    """
    from keras_prune.tflite import MIN_ZEROS

    shares = [_share(row) for row in rows if row["rows"] >= 4 and row["kind"] != "dense"]
    if not shares:
        return "No convolution with blocks of 4 rows and more."
    return (
        f"With blocks of 4 rows and more, nine tenths of the convolutions are the faster from "
        f"{np.quantile(shares, 0.9):.0%} zeros on, half of them from {np.quantile(shares, 0.5):.0%} on; by default the "
        f"converter leaves layers below {MIN_ZEROS:.0%} dense."
    )


def _share(row: dict[str, Any]) -> float:
    return 1.0 if row["break_even"] is None else float(row["break_even"])


def _percent(share: float) -> str:
    return "never" if share >= 1.0 else f"{share:.0%}"


HEADINGS = ("layer", "structure and block", "pays from", "over the layers", "converter assumes")


def write_page(results: Path, page: Path) -> None:
    """Put the results of the last run into a page."""
    rows = [json.loads(line) for line in (results / "payoff.jsonl").read_text().splitlines()]
    machine = f"On {cpu_name()}, {os.cpu_count()} cores, one thread. {threshold(rows)}\n\n"
    names = ", ".join(f"`{layer}`" for layer in dict.fromkeys(row["layer"] for row in rows))
    layers = f"\nLayers (image, filters, kernel, stride; inputs, outputs): {names}.\n"
    table = markdown_table(HEADINGS, summary(rows))
    replace_part(page, "payoff", "python -m benchmarks.payoff --table", machine + table + layers)


def main() -> int:
    from keras_prune.tflite.layer import Layer

    parser = page_arguments(__doc__, "layers and schemes", BENCH, "docs/performance.md")
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time of a layer with a structure")
    arguments = parser.parse_args()
    if arguments.table:
        write_page(arguments.output, Path("docs/performance.md"))
        return 0
    layers = [Layer.parse(text) for text in LAYERS]
    cases = [(layer, s) for layer in layers for s in schemes(layer) if arguments.only in f"{layer} {s}"]
    if not cases:
        parser.error(f"no layer and scheme contain {arguments.only!r}; there are {', '.join(LAYERS)}")
    console = Console()
    rows: list[dict[str, Any]] = []
    for index, (layer, scheme) in enumerate(cases):
        with console.status(f"{index + 1} of {len(cases)}: {layer} {scheme}"):
            rows.append(measure(layer, scheme, arguments.seconds))
        write_rows(arguments.output / "payoff.jsonl", rows)
        meeting = rows[-1]["break_even"]
        console.print(f"{layer} {scheme}: {_percent(1.0 if meeting is None else meeting)}")
    table = Table(*HEADINGS)
    for cells in summary(rows):
        table.add_row(*cells)
    console.print(table)
    console.print(threshold(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
