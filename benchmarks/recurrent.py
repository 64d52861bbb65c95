"""Recurrent and dense networks: dense on TensorFlow's XNNPACK against block-sparse through the delegate, in turns.

The dense side of a recurrent network is the faster of the two forms that Keras gives it, a loop and a chain of all
steps (`unroll=True`). Prints a table and writes JSON lines to build/bench/recurrent.jsonl. Models are made once and
kept in build/bench/models.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The measured bandwidth is one thread's. Before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import page_arguments
from benchmarks.latency import BENCH, check_xnnpack, compare, cpu_name, interpreter
from benchmarks.page import replace_part
from benchmarks.results import write_rows
from benchmarks.turns import median
from keras_prune.files import write

STEPS, FEATURES = 50, 39
"""As of a second of speech in windows of 20 ms: 13 cepstral coefficients and their first and second differences."""
WORTH_UNROLLING = 2**28
"""Bytes of weights, all steps' copies together, above which the chain is not tried: XNNPACK packs every step's matrix
anew, gigabytes for the large network, and then reads them from main memory once a step, as the loop does."""

READ_BYTES = 2**25
"""Bytes read by what the bandwidth is measured with, about a millisecond's."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with a structure at a compression, the ratio it has to reach, and where its matrices are read."""

    model: str
    structure: str
    compression: float
    target: float | None = None

    @property
    def stem(self) -> str:
        return f"{self.model}-{self.structure}-{self.compression:g}x"

    @property
    def sparsity(self) -> float:
        return 1.0 - 1.0 / self.compression


CASES = [
    Case("gru_2x1024", "unaligned_block_8", 10, 6.0),
    Case("gru_2x1024", "unaligned_block_8", 29, 14.0),
    Case("gru_2x1024", "unaligned_block_4", 10),
    Case("gru_2x1024", "block_row_column", 10),
    Case("lstm_512", "unaligned_block_8", 5, 3.5),
    Case("lstm_512", "unaligned_block_4", 5),
    Case("dense_2048", "unaligned_block_4", 10, 5.0),
]


def structure(name: str) -> Any:
    """The structure that a case means."""
    import keras_prune

    made: dict[str, Callable[[], Any]] = {
        "unaligned_block_4": lambda: keras_prune.UnalignedBlock(4),
        "unaligned_block_8": lambda: keras_prune.UnalignedBlock(8),
        "block_row_column": lambda: keras_prune.BlockRowColumn(rows=16, columns=32),
    }
    return made[name]()


def build(name: str, unroll: bool = False, seed: int = 0) -> Any:
    """Build a network with random weights.

    Args:
        name: `gru_2x1024`, `lstm_512` or `dense_2048`.
        unroll: whether a recurrent network is a chain of all its steps.
        seed: of the weights.
    """
    import keras
    from keras import layers

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if name == "dense_2048":
        hidden = [layers.Dense(2048, activation="relu"), layers.Dense(2048, activation="relu")]
        return keras.Sequential([keras.Input((784,), batch_size=1), *hidden, layers.Dense(10)])
    sequence = keras.Input((STEPS, FEATURES), batch_size=1)
    if name == "lstm_512":
        return keras.Sequential([sequence, layers.LSTM(512, unroll=unroll)])
    assert name == "gru_2x1024", name
    first = layers.GRU(1024, return_sequences=True, unroll=unroll)
    return keras.Sequential([sequence, first, layers.GRU(1024, unroll=unroll)])


def _make(case: Case, folder: Path) -> None:
    import keras_prune

    model = build(case.model)
    keras_prune.sparsify(model, structure(case.structure), case.sparsity, layers="*")
    # The same gain as before: what goes through the network must not fade away with the weights.
    for weight in model.trainable_weights:
        if weight.path.endswith("kernel"):
            weight.assign(weight * np.float32(case.compression**0.5))
    dense = keras_prune.convert(model, sparse=False)
    write(folder / f"{case.stem}.dense.tflite", dense)
    write(folder / f"{case.stem}.tflite", keras_prune.convert(dense))
    if case.model != "dense_2048" and len(dense) * STEPS < WORTH_UNROLLING:
        unrolled = build(case.model, unroll=True)
        unrolled.set_weights(model.get_weights())
        write(folder / f"{case.stem}.unrolled.tflite", keras_prune.convert(unrolled, sparse=False))


def make_models(case: Case, folder: Path) -> None:
    """Make a case's files in a process of their own if they are not there."""
    if not (folder / f"{case.stem}.tflite").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.recurrent", "--make", case.stem, str(folder)], check=True)


def weight_bytes(path: Path) -> tuple[int, int]:
    """Bytes of weights that an inference reads, and those of the largest matrix that it reads again and again.

    A recurrent kernel is read once a step, every other matrix once. With the values come 2 bytes a block, its
    column, where the structure has blocks that the kernels read as they are.
    """
    from keras_prune.tflite import inspect

    read = largest = 0
    for layer in inspect(path.read_bytes()):
        if layer.structure is None or layer.value_bytes is None:
            continue
        size = layer.value_bytes
        if layer.block is not None and layer.block.isdigit():
            size += 2 * (layer.value_bytes // 4 // int(layer.block))
        recurrent = layer.name.endswith("/recurrent_kernel")
        read += size * (STEPS if recurrent else 1)
        largest = max(largest, size)
    return read, largest


def reader(size: int) -> tuple[Callable[[], Any], int]:
    """Return a function that reads an array of a size over and over, and how many bytes in all, in one thread.

    It is timed in turns with the network, so that both see the same machine.
    """
    numbers = np.ones(max(size // 4, 1024), np.float32)
    times = max(1, READ_BYTES // numbers.nbytes)

    def read() -> None:
        for _ in range(times):
            np.dot(numbers, numbers)

    return read, times * numbers.nbytes


def measure(case: Case, seconds: float, folder: Path) -> dict[str, Any]:
    """Figures of one case, one thread."""
    make_models(case, folder)
    paths = [path for form in ("dense", "unrolled") if (path := folder / f"{case.stem}.{form}.tflite").exists()]
    sparse_path = folder / f"{case.stem}.tflite"
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        sides = [*(interpreter(path, 1) for path in paths), interpreter(sparse_path, 1, report)]
        claimed = json.loads(report.read_text())
    for side, path in zip(sides, paths, strict=False):
        # A loop's body is a graph of its own, at which nobody can look from here.
        if "WHILE" not in {op["op_name"] for op in side._get_ops_details()}:
            check_xnnpack(side, path)
    read, largest = weight_bytes(sparse_path)
    read_array, array_bytes = reader(largest)
    outputs, times = compare(sides, seconds, others=[read_array])
    *dense, sparse, reading = (median(side) for side in times)
    bandwidth = array_bytes / reading
    return {
        "model": case.model,
        "structure": case.structure,
        "sparsity": round(case.sparsity, 4),
        "compression": case.compression,
        "threads": 1,
        "dense_ms": round(min(dense) * 1e3, 4),
        "dense_loop_ms": round(dense[0] * 1e3, 4),
        "dense_unrolled_ms": round(dense[1] * 1e3, 4) if len(dense) > 1 else None,
        "sparse_ms": round(sparse * 1e3, 4),
        "ratio": round(min(dense) / sparse, 4),
        "max_abs_diff": float(np.abs(outputs[0] - outputs[-1]).max()),
        "output_range": float(outputs[0].max() - outputs[0].min()),
        "nodes_claimed": claimed["nodes_claimed"],
        "nodes_total": claimed["nodes_total"],
        "partitions": claimed["partitions"],
        "cpu": claimed["cpu"],
        "target": case.target,
        "runs": len(times[-2]),
        "matrix_bytes": largest,
        "read_gb_s": round(read / sparse / 1e9, 2),
        "bandwidth_gb_s": round(bandwidth / 1e9, 2),
        "bandwidth_share": round(read / sparse / bandwidth, 3),
    }


def write_page(results: Path, page: Path) -> None:
    """Put the results of the last run into a page."""
    rows = [json.loads(line) for line in (results / "recurrent.jsonl").read_text().splitlines()]
    lines = ["| network | structure | compression | dense, ms | sparse, ms | ratio | aim | difference | bandwidth |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        aim = "" if not row["target"] else f"{row['target']:g} {'met' if row['ratio'] >= row['target'] else 'missed'}"
        lines.append(
            f"| {row['model']} | {row['structure']} | {row['compression']:g} x | {row['dense_ms']:.2f} "
            f"| {row['sparse_ms']:.2f} | {row['ratio']:.1f} | {aim} "
            f"| {row['max_abs_diff'] / (row['output_range'] or 1.0):.0e} "
            f"| {row['read_gb_s']:.1f} of {row['bandwidth_gb_s']:.1f} GB/s, {row['bandwidth_share']:.0%} |"
        )
    machine = f"On {cpu_name()}, kernels `{rows[0]['cpu']}`, one thread, batch 1."
    replace_part(page, "recurrent", "python -m benchmarks.recurrent --table", "\n".join([machine, "", *lines]) + "\n")


def main() -> int:
    parser = page_arguments(__doc__, "cases", BENCH, "docs/recurrent.md")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time of a case")
    parser.add_argument("--make", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        _make(next(case for case in CASES if case.stem == arguments.make[0]), Path(arguments.make[1]))
        return 0
    if arguments.table:
        write_page(arguments.output, Path("docs/recurrent.md"))
        return 0
    cases = [case for case in CASES if arguments.only in case.stem]
    if not cases:
        parser.error(f"no case contains {arguments.only!r}; there are {', '.join(case.stem for case in CASES)}")
    console = Console()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    table = Table(
        "model", "structure", "compression", "dense ms", "sparse ms", "ratio", "aim", "diff/range", "bandwidth"
    )
    for index, case in enumerate(cases):
        with console.status(f"{index + 1} of {len(cases)}: {case.stem}"):
            row = measure(case, arguments.seconds, arguments.output / "models")
        rows.append(row)
        aim = f"{row['target']:.2f}x {'met' if row['ratio'] >= row['target'] else 'MISSED'}" if row["target"] else ""
        table.add_row(
            row["model"],
            row["structure"],
            f"{row['compression']:g}x",
            f"{row['dense_ms']:.2f}",
            f"{row['sparse_ms']:.3f}",
            f"{row['ratio']:.2f}x",
            aim,
            f"{row['max_abs_diff'] / (row['output_range'] or 1.0):.1e}",
            f"{row['bandwidth_share']:.0%}",
        )
        console.print(f"{case.stem}: {row['dense_ms']:.2f} ms dense, {row['sparse_ms']:.2f} ms sparse")
    console.print(table)
    write_rows(arguments.output / "recurrent.jsonl", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
