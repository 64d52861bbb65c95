"""Time to make an interpreter ready and memory at the peak of an inference: dense on XNNPACK against the delegate.

Each figure is of a process of its own, both sides in turns. Time is that of creating the interpreter and allocating its
tensors; memory is the growth of the resident set from before that until after one inference. Prints a table and writes
JSON lines to build/bench/startup.jsonl; ``--table`` puts them into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import page_arguments
from benchmarks.latency import BENCH, CASES, Case, cpu_name, make_models
from benchmarks.page import markdown_table, replace_machine
from benchmarks.results import write_rows

ROUNDS = 7


def child(path: str, sparse: bool) -> None:
    """Print the figures of one side; runs alone in its process."""
    from ai_edge_litert.interpreter import Interpreter, load_delegate

    from keras_prune.tflite import find_delegate_library

    library = str(find_delegate_library())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    delegates = [load_delegate(library, {"num_threads": "1"})] if sparse else None
    interpreter = Interpreter(path, num_threads=1, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    seconds = time.perf_counter() - began
    interpreter.invoke()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"ms": seconds * 1e3, "mb": grown / 1024}))


def measure(case: Case) -> dict[str, Any]:
    """Figures of one case."""
    paths = make_models(case, BENCH / "models")
    told: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for _ in range(ROUNDS):
        for sparse, path in enumerate(paths):
            command = [sys.executable, "-m", "benchmarks.startup", "--child", str(path), str(sparse)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told[sparse].append(json.loads(done.stdout.splitlines()[-1]))
    row: dict[str, Any] = {"model": case.model, "structure": case.structure, "sparsity": case.sparsity}
    for name, side in zip(("dense", "sparse"), told, strict=True):
        row |= {f"{name}_{key}": round(statistics.median(one[key] for one in side), 2) for key in ("ms", "mb")}
    return row


def shown(row: dict[str, Any]) -> list[str]:
    """The cells of a row. Neither is to be more than with XNNPACK."""

    def pair(key: str, unit: str) -> tuple[str, str]:
        dense, sparse = row[f"dense_{key}"], row[f"sparse_{key}"]
        return f"{dense:.1f} {unit}", f"{sparse:.1f} {unit}, {'met' if sparse <= dense else 'missed'}"

    return [f"{row['model']} {row['structure']}", f"{row['sparsity']:.1%}", *pair("ms", "ms"), *pair("mb", "MB")]


COLUMNS = ("network", "zeros", "ready, dense", "sparse", "peak memory, dense", "sparse")


def write_page(results: Path, page: Path) -> None:
    """Put the results of the last run into a page, in place of this machine's last ones."""
    rows = [json.loads(line) for line in (results / "startup.jsonl").read_text().splitlines()]
    cpu = cpu_name()
    machine = f"On {cpu}, {os.cpu_count()} cores, one thread.\n\n"
    table = markdown_table(COLUMNS, map(shown, rows))
    replace_machine(page, "startup", "python -m benchmarks.startup --table", cpu, machine + table)


def main() -> int:
    parser = page_arguments(__doc__, "cases", BENCH, "docs/performance.md")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], arguments.child[1] == "1")
        return 0
    if arguments.table:
        write_page(arguments.output, Path("docs/performance.md"))
        return 0
    cases = [case for case in CASES if arguments.only in case.stem]
    if not cases:
        parser.error(f"no case contains {arguments.only!r}; there are {', '.join(case.stem for case in CASES)}")
    console = Console()
    rows = []
    for index, case in enumerate(cases):
        with console.status(f"{index + 1} of {len(cases)}: {case.stem}"):
            rows.append(measure(case))
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name == COLUMNS[0])
    for row in rows:
        network, *cells = shown(row)
        table.add_row(network.replace(" ", "\n"), *cells)
    console.print(table)
    write_rows(arguments.output / "startup.jsonl", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
