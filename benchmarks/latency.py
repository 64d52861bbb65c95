"""Whole networks: dense on TensorFlow's XNNPACK against block-sparse through the delegate, interleaved in one process.

Prints a table, writes JSON lines to build/bench/latency.jsonl and a plot to build/bench/latency.png. Models are made
once and kept in build/bench/models.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import models
from benchmarks.arguments import page_arguments
from benchmarks.page import replace_machine
from benchmarks.results import write_rows
from benchmarks.turns import median, time_turns, undisturbed
from keras_prune.files import write

BENCH = Path("build/bench")
TWO_THREADS = 1.85
"""How much faster than one two threads have to be."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with a structure at a sparsity, and the ratio it has to reach (None: only reported)."""

    model: str
    structure: str
    sparsity: float
    target: float | None = None

    @property
    def stem(self) -> str:
        return f"{self.model}-{self.structure}-{self.sparsity * 100:g}"


CASES = [
    Case("mobilenet_v1", "unaligned_block", 0.8, 3.0),
    Case("mobilenet_v1", "aligned_block", 0.8),
    Case("mobilenet_v1", "unaligned_block", 0.9, 4.2),
    Case("mobilenet_v1", "unaligned_block", 0.5, 1.45),
    Case("mobilenet_v1", "unaligned_block", 0.3, 1.1),
    Case("mobilenet_v2", "unaligned_block", 0.8, 2.2),
    Case("efficientnet_lite0", "unaligned_block", 0.8, 2.2),
    Case("mobilenet_v3_large", "unaligned_block", 0.8, 2.2),
    Case("resnet50", "unaligned_block", 0.8, 3.3),
    Case("resnet50", "block_punched", 0.8, 3.3),
    Case("vgg16", "block_punched", 0.8, 3.3),
    Case("vgg16_conv", "pattern", 0.875, 4.0),
    Case("densenet121", "unaligned_block", 0.8),
]


def structure(name: str) -> Any:
    """The structure that a case means."""
    import keras_prune

    made: dict[str, Any] = {
        "unaligned_block": lambda: keras_prune.UnalignedBlock(4),
        "aligned_block": lambda: keras_prune.AlignedBlock(4),
        "block_punched": lambda: keras_prune.BlockPunched(filters=8, channels=4),
        "pattern": lambda: keras_prune.Pattern(),
    }
    return made[name]()


def make_models(case: Case, folder: Path) -> tuple[Path, Path]:
    """Paths of the dense and the sparse file, made in a process of its own if they are not there."""
    dense, sparse = folder / f"{case.stem}.dense.tflite", folder / f"{case.stem}.tflite"
    if not (dense.exists() and sparse.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.latency", "--make", case.stem, str(folder)], check=True)
    return dense, sparse


def _make(case: Case, folder: Path) -> None:
    import keras_prune

    model = models.build(case.model)
    network = models.NETWORKS[case.model]
    keras_prune.sparsify(model, structure(case.structure), case.sparsity, network.layers, network.exclude)
    dense = keras_prune.convert(model, sparse=False)
    write(folder / f"{case.stem}.dense.tflite", dense)
    write(folder / f"{case.stem}.tflite", keras_prune.convert(dense))


def interpreter(path: Path, threads: int, report: Path | None = None) -> Any:
    """A prepared interpreter: with the delegate if `report` says where its report goes, else with XNNPACK alone."""
    import tensorflow as tf

    import keras_prune

    delegates = []
    if report is not None:
        delegates = [keras_prune.load_delegate(threads, report_path=report, runtime="tensorflow")]
    made = tf.lite.Interpreter(str(path), num_threads=threads, experimental_delegates=delegates)
    made.allocate_tensors()
    return made


def check_xnnpack(dense: Any, path: Path) -> None:
    """Raise unless XNNPACK took the dense graph: a comparison against the plain kernels would flatter us."""
    if not any(op["op_name"] == "DELEGATE" for op in dense._get_ops_details()):
        raise RuntimeError(f"XNNPACK did not take {path.name}: the dense side would not be a fair one")


def compare(
    sides: Sequence[Any],
    seconds: float,
    threads: int = 1,
    others: Sequence[Callable[[], Any]] = (),
    pause: float = 0.0,
) -> tuple[list[Any], list[list[list[float]]]]:
    """Run prepared interpreters on one random input, and others; returns outputs, and seconds of calls by turn."""
    shape = sides[0].get_input_details()[0]["shape"]
    source = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    outputs = []
    for side in sides:
        side.set_tensor(side.get_input_details()[0]["index"], source)
        side.invoke()
        outputs.append(side.get_tensor(side.get_output_details()[0]["index"]))
    return outputs, time_turns([*(side.invoke for side in sides), *others], seconds, threads, pause)


def measure(case: Case, threads: list[int], seconds: float, folder: Path, pause: float = 0.0) -> list[dict[str, Any]]:
    """Figures of one case, one row a thread count."""
    dense_path, sparse_path = make_models(case, folder)
    return [_measure(case, count, seconds / len(threads), dense_path, sparse_path, pause) for count in threads]


def _measure(
    case: Case, threads: int, seconds: float, dense_path: Path, sparse_path: Path, pause: float
) -> dict[str, Any]:
    # What threads win is only known against one thread in the same turns: a shared machine's speed changes meanwhile.
    counts = [threads] if threads == 1 else [threads, 1]
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        sides = []
        for count in counts:
            sides += [interpreter(dense_path, count), interpreter(sparse_path, count, report)]
        claimed = json.loads(report.read_text())
    for dense in sides[::2]:
        check_xnnpack(dense, dense_path)
    outputs, times = compare(sides, seconds, threads, pause=pause)
    dense_ms, sparse_ms = (median(side) * 1e3 for side in times[:2])
    scaling: dict[str, Any] = dict.fromkeys(
        ("dense_scaling", "sparse_scaling", "undisturbed_dense_scaling", "undisturbed_sparse_scaling")
    )
    scaling |= {"turns": len(times[0]), "turns_undisturbed": None, "scaling_target": None}
    if threads > 1:
        kept = undisturbed(times[0])
        scaling |= _scaling("", times) | _scaling("undisturbed_", [[side[i] for i in kept] for side in times])
        scaling["turns_undisturbed"] = len(kept)
        scaling["scaling_target"] = TWO_THREADS if threads == 2 and not pause else None
    return {
        "model": case.model,
        "structure": case.structure,
        "sparsity": case.sparsity,
        "threads": threads,
        "pause": pause,
        "dense_ms": round(dense_ms, 4),
        "sparse_ms": round(sparse_ms, 4),
        "ratio": round(dense_ms / sparse_ms, 4),
        **scaling,
        "max_abs_diff": float(np.abs(outputs[0] - outputs[1]).max()),
        "output_range": float(outputs[0].max() - outputs[0].min()),
        "nodes_claimed": claimed["nodes_claimed"],
        "nodes_total": claimed["nodes_total"],
        "partitions": claimed["partitions"],
        "cpu": claimed["cpu"],
        "target": case.target if threads == 1 and not pause else None,
        "runs": sum(len(turn) for turn in times[1]),
    }


def _scaling(prefix: str, times: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
    """How much faster both sides are than with one thread, which `times` has after those with several."""
    dense, sparse, dense_one, sparse_one = (median(turns) for turns in times)
    return {
        f"{prefix}dense_scaling": round(dense_one / dense, 4),
        f"{prefix}sparse_scaling": round(sparse_one / sparse, 4),
    }


def aim(row: dict[str, Any]) -> str:
    """What a row has to reach against dense, and whether it does."""
    return _judged(row["target"], row["ratio"])


def scaling(row: dict[str, Any]) -> str:
    """How much faster than with one thread the sparse and, in brackets, the dense side are, and what was aimed at."""
    if row["sparse_scaling"] is None:
        return ""
    return f"{_both(row, '')} {_judged(row['scaling_target'], row['sparse_scaling'])}".rstrip()


def undisturbed_scaling(row: dict[str, Any]) -> str:
    """The same in turns in which dense's threads were not disturbed, and how many these are."""
    if row["sparse_scaling"] is None:
        return ""
    return f"{_both(row, 'undisturbed_')} in {row['turns_undisturbed']} of {row['turns']}"


def _both(row: dict[str, Any], prefix: str) -> str:
    # Rounded down, so that what is missed by little does not look as if it were met.
    sparse, dense = (math.floor(row[f"{prefix}{side}_scaling"] * 100 + 1e-6) / 100 for side in ("sparse", "dense"))
    return f"{sparse:.2f} ({dense:.2f})"


def _judged(target: float | None, reached: float) -> str:
    return "" if not target else f"{target} {'met' if reached >= target else 'missed'}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of the ratio, one a case, with the target as a mark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row["threads"] == 1]
    labels = [f"{row['model']}\n{row['structure']} {row['sparsity']:.1%}" for row in shown]
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(shown) + 1.2))
    axes.barh(labels, [row["ratio"] for row in shown], color="#3b6ea5", label="measured")
    for index, row in enumerate(shown):
        if row["target"]:
            axes.plot([row["target"]] * 2, [index - 0.4, index + 0.4], color="#c0392b", linewidth=2)
        axes.text(row["ratio"], index, f" {row['ratio']:.2f}x", va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("times faster than dense XNNPACK, one thread (red: aim)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_page(results: Path, page: Path) -> None:
    """Put the results of the last run into a page, in place of this machine's last ones."""
    rows = [json.loads(line) for line in (results / "latency.jsonl").read_text().splitlines()]
    lines = [
        "| network | structure | zeros | threads | dense, ms | sparse, ms | ratio | aim | of one thread (dense) "
        "| in undisturbed turns | difference | nodes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['structure']} | {row['sparsity']:.1%} | {row['threads']} | {row['dense_ms']:.2f} "
            f"| {row['sparse_ms']:.2f} | {row['ratio']:.2f} | {aim(row)} | {scaling(row)} "
            f"| {undisturbed_scaling(row)} "
            f"| {row['max_abs_diff'] / (row['output_range'] or 1.0):.0e} "
            f"| {row['nodes_claimed']} of {row['nodes_total']} in {row['partitions']} |"
        )
    cpu = cpu_name()
    machine = f"On {cpu}, {os.cpu_count()} cores, kernels `{rows[0]['cpu']}`."
    content = "\n".join([machine, "", *lines])
    replace_machine(page, "latency", "python -m benchmarks.latency --table", cpu, content)


def cpu_name() -> str:
    """What the system calls this machine's processor; where that says little, with its family and model."""
    from keras_prune import mapping

    name = mapping.cpu_name()
    if re.search(r"\d", name):
        return name
    with contextlib.suppress(OSError):
        numbers = re.findall(r"^(?:cpu family|model)\s*: (\d+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if len(numbers) >= 2:
            return f"{name} (family {numbers[0]} model {numbers[1]})"
    return name


def main() -> int:
    parser = page_arguments(__doc__, "cases", BENCH, "docs/performance.md")
    parser.add_argument("--threads", default="1,2", help="thread counts, the first is the one that targets are for")
    parser.add_argument("--seconds", type=float, default=18.0, help="measuring time of a case")
    pause_help = "seconds before each inference, as with a camera; results go to latency_paused.jsonl"
    parser.add_argument("--pause", type=float, default=0.0, help=pause_help)
    parser.add_argument("--make", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        _make(next(case for case in CASES if case.stem == arguments.make[0]), Path(arguments.make[1]))
        return 0
    if arguments.table:
        write_page(arguments.output, Path("docs/performance.md"))
        return 0
    cases = [case for case in CASES if arguments.only in case.stem]
    if not cases:
        parser.error(f"no case contains {arguments.only!r}; there are {', '.join(case.stem for case in CASES)}")
    threads = [int(count) for count in arguments.threads.split(",")]
    console = Console()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for index, case in enumerate(cases):
        with console.status(f"{index + 1} of {len(cases)}: {case.stem}"):
            rows += measure(case, threads, arguments.seconds, arguments.output / "models", arguments.pause)
        row = rows[-len(threads)]
        console.print(
            f"{case.stem}: {row['dense_ms']:.2f} ms dense, {row['sparse_ms']:.2f} ms sparse, {row['ratio']:.2f}x"
        )
    # Two lines a row, so that 80 columns are enough.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("network", "thr.", "dense\nms", "sparse\nms", "ratio", "aim", "of one\n(dense)", "diff", "nodes"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['model']}\n{row['structure']} {row['sparsity'] * 100:g}%",
            str(row["threads"]),
            f"{row['dense_ms']:.2f}",
            f"{row['sparse_ms']:.2f}",
            f"{row['ratio']:.2f}x",
            aim(row).replace(" ", "\n"),
            scaling(row).replace(") ", ")\n"),
            f"{row['max_abs_diff'] / (row['output_range'] or 1.0):.0e}",
            f"{row['nodes_claimed']} of\n{row['nodes_total']} in {row['partitions']}",
        )
    console.print(table)
    # Of another name, so that --table never puts figures with pauses into the page.
    name = "latency_paused" if arguments.pause else "latency"
    write_rows(arguments.output / f"{name}.jsonl", rows)
    plot(rows, arguments.output / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
