"""Layers that stay dense: the delegate's own dense kernels against XNNPACK's, layer by layer.

A network that is pruned in part keeps dense layers within the stretch that the delegate takes. Each layer here stands
once and several times in a row in networks that are equal otherwise; what the longer one takes more is the layers'
time. All four run in turns in one process. Prints a table and writes JSON lines to build/bench/dense.jsonl.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import page_arguments
from benchmarks.latency import BENCH, aim, check_xnnpack, compare, cpu_name, interpreter
from benchmarks.page import markdown_table, replace_part
from benchmarks.results import write_rows
from benchmarks.turns import median

AIM = 0.9
"""How fast a layer has to be in the delegate, as a part of XNNPACK's speed."""
REPEATS = (1, 5)
"""How often a layer stands in the shorter network and in the longer one."""
LAYERS = (
    "conv 112x112x32 32 1x1 1",
    "conv 56x56x128 128 1x1 1",
    "conv 28x28x256 256 1x1 1",
    "conv 14x14x512 512 1x1 1",
    "conv 7x7x512 512 1x1 1",
    "conv 7x7x1024 1024 1x1 1",
    "conv 56x56x64 64 3x3 1",
    "conv 28x28x128 128 3x3 1",
    "conv 14x14x256 256 3x3 1",
    "conv 14x14x512 512 3x3 1",
    "conv 7x7x256 256 3x3 1",
    "conv 7x7x512 512 3x3 1",
    "dense 256 256",
    "dense 512 512",
    "dense 1024 1024",
    "dense 1280 1280",
)
HEADINGS = ("layer", "XNNPACK, us", "delegate, us", "ratio", "aim")


def build(layer: Any, repeats: int) -> Any:
    """Return a Keras model with a layer so many times in a row, and a small pruned one behind it.

    Args:
        layer: a convolution or fully connected layer with as many outputs as inputs.
        repeats: how often it stands there.
    """
    import keras

    import keras_prune

    dense = layer.kind == "dense"

    def make(filters: int, kernel: tuple[int, int], name: str) -> Any:
        options: dict[str, Any] = {"activation": "relu", "name": name}
        if dense:
            return keras.layers.Dense(filters, **options)
        return keras.layers.Conv2D(filters, kernel, padding="same", **options)

    shape = (layer.channels,) if dense else (layer.height, layer.width, layer.channels)
    # The first one makes of the input what the layer will find within a network.
    layers = [make(layer.channels, (1, 1), "first")]
    layers += [make(layer.filters, layer.kernel, f"timed_{index}") for index in range(repeats)]
    model = keras.Sequential([keras.Input(shape, batch_size=1), *layers, make(8, (1, 1), "pruned")])
    keras_prune.sparsify(model, keras_prune.UnalignedBlock(4), 0.75, layers=["pruned"])
    return model


def measure(layer: Any, seconds: float) -> dict[str, Any]:
    """Time a layer on both sides, with one thread.

    Raises:
        RuntimeError: XNNPACK or the delegate did not take the whole network, or the layer takes too little time.
    """
    import keras_prune
    from keras_prune.mapping.measure import captured_stderr

    sides = []
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        for repeats in REPEATS:
            # Files of their own, as interpreters go on reading them.
            dense, sparse = (Path(temporary) / f"{repeats}.{kind}.tflite" for kind in ("dense", "sparse"))
            dense.write_bytes(keras_prune.convert(build(layer, repeats), sparse=False))
            sparse.write_bytes(keras_prune.convert(dense.read_bytes()))
            with captured_stderr():  # the delegate's line for each network
                sides += [interpreter(dense, 1), interpreter(sparse, 1, report)]
            check_xnnpack(sides[-2], dense)
            claimed = json.loads(report.read_text())
            if claimed["nodes_claimed"] != claimed["nodes_total"]:
                raise RuntimeError(f"{layer}: the delegate took {claimed['nodes_claimed']} of {claimed['nodes_total']}")
    times = compare(sides, seconds)[1]
    each = [median(side) * 1e6 for side in times]
    xnnpack, delegate = ((each[2 + side] - each[side]) / (REPEATS[1] - REPEATS[0]) for side in range(2))
    if min(xnnpack, delegate) <= 0.0:
        raise RuntimeError(f"{layer}: its time is lost in what the machine does meanwhile; measure longer (--seconds)")
    return {
        "layer": str(layer),
        "threads": 1,
        "xnnpack_us": round(xnnpack, 3),
        "delegate_us": round(delegate, 3),
        "ratio": round(xnnpack / delegate, 4),
        "target": AIM,
        "runs": min(sum(len(turn) for turn in side) for side in times),
    }


def cells(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """What a table says of a layer."""
    return row["layer"], f"{row['xnnpack_us']:.1f}", f"{row['delegate_us']:.1f}", f"{row['ratio']:.3f}", aim(row)


def write_page(results: Path, page: Path) -> None:
    """Put the results of the last run into a page."""
    rows = [json.loads(line) for line in (results / "dense.jsonl").read_text().splitlines()]
    machine = f"On {cpu_name()}, {os.cpu_count()} cores, one thread.\n\n"
    table = markdown_table(HEADINGS, map(cells, rows))
    replace_part(page, "dense", "python -m benchmarks.dense --table", machine + table)


def main() -> int:
    from keras_prune.tflite.layer import Layer

    parser = page_arguments(__doc__, "layers", BENCH, "docs/performance.md")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time of a layer")
    arguments = parser.parse_args()
    if arguments.table:
        write_page(arguments.output, Path("docs/performance.md"))
        return 0
    layers = [Layer.parse(text) for text in LAYERS if arguments.only in text]
    if not layers:
        parser.error(f"no layer contains {arguments.only!r}; there are {', '.join(LAYERS)}")
    console = Console()
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(layers):
        with console.status(f"{index + 1} of {len(layers)}: {layer}"):
            rows.append(measure(layer, arguments.seconds))
        write_rows(arguments.output / "dense.jsonl", rows)
        console.print(f"{layer}: {rows[-1]['ratio']:.3f}")
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
