"""Instructions that an inference executes on AArch64: block-sparse through the delegate against dense on XNNPACK.

Counted under qemu, so exact and the same on every machine. Prints a table and writes JSON lines to
build/bench/instructions.jsonl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.latency import BENCH, CASES, Case, make_models
from benchmarks.results import write_rows

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "bazel-aarch64-bin" / "tflite_delegate" / "libblock_sparse_delegate.so"
DEFAULT = ("mobilenet_v1-unaligned_block-80", "mobilenet_v1-unaligned_block-90", "mobilenet_v2-unaligned_block-80")
AIMS = {"mobilenet_v1-unaligned_block-80": 0.30}
"""Most instructions, as a share of the dense model's."""


def build_plugin(folder: Path) -> Path:
    """Compile the counter for this machine's qemu."""
    plugin = folder / "libcount.so"
    source = ROOT / "benchmarks" / "qemu" / "count_instructions.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-fPIC", "-shared", str(source), "-o", str(plugin)], check=True)
    return plugin


def count(plugin: Path, model: Path, library: Path | None) -> dict[str, int]:
    """Instructions of one inference, by mnemonic."""
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "counts.txt"
        root = ROOT / "build" / "aarch64-root"
        command = ["qemu-aarch64", "-cpu", "cortex-a76", "-d", "plugin", "-D", str(log), "-plugin", str(plugin)]
        command += ["-L", str(root), str(root / "usr" / "bin" / "python3.11")]
        command += [str(ROOT / "benchmarks" / "qemu" / "count_inference.py"), str(model.resolve())]
        command += [str(library)] if library else []
        environment = {"PYTHONPATH": str(root / "site-packages"), "PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        pairs = (line.split() for line in log.read_text().splitlines())
        return {name: int(number) for name, number in pairs}


def measure(case: Case, plugin: Path, library: Path) -> dict[str, Any]:
    """Figures of one case."""
    dense_path, sparse_path = make_models(case, BENCH / "models")
    dense, sparse = count(plugin, dense_path, None), count(plugin, sparse_path, library)
    total = sum(dense.values()), sum(sparse.values())
    return {
        "model": case.model,
        "structure": case.structure,
        "sparsity": case.sparsity,
        "dense": total[0],
        "dense_fmla": dense.get("fmla", 0),
        "sparse": total[1],
        "sparse_fmla": sparse.get("fmla", 0),
        "share": round(total[1] / total[0], 4),
        "aim": AIMS.get(case.stem),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this (default: the MobileNets)")
    parser.add_argument("--output", type=Path, default=BENCH, help="folder of the results")
    parser.add_argument("--library", type=Path, default=LIBRARY, help="the delegate for AArch64")
    arguments = parser.parse_args()
    cases = [case for case in CASES if (arguments.only in case.stem if arguments.only else case.stem in DEFAULT)]
    if not cases:
        parser.error(f"no case contains {arguments.only!r}; there are {', '.join(case.stem for case in CASES)}")
    if not arguments.library.exists():
        parser.error(f"{arguments.library} is missing: `make bench-instructions` builds it")
    console = Console()
    rows = []
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        plugin = build_plugin(Path(temporary))
        for index, case in enumerate(cases):
            with console.status(f"{index + 1} of {len(cases)}: {case.stem}"):
                rows.append(measure(case, plugin, arguments.library))
            console.print(f"{case.stem}: {rows[-1]['share']:.3f} of dense")
    table = Table("model", "zeros", "dense", "of them fmla", "sparse", "of them fmla", "share", "aim")
    for row in rows:
        aim = f"{row['aim']:.2f} {'met' if row['share'] <= row['aim'] else 'MISSED'}" if row["aim"] else ""
        millions = [f"{row[key] / 1e6:.1f} M" for key in ("dense", "dense_fmla", "sparse", "sparse_fmla")]
        table.add_row(row["model"], f"{row['sparsity']:.0%}", *millions, f"{row['share']:.3f}", aim)
    console.print(table)
    write_rows(arguments.output / "instructions.jsonl", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
