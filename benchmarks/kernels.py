"""The share of the machine's multiply-add peak that each kernel reaches, by CPU level, block, tile and layer shape.

Runs benchmarks/cpp/kernels.cc (Google Benchmark), prints the widest tile of each and writes JSON lines to
build/bench/kernels.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.latency import BENCH
from benchmarks.results import write_rows

ROOT = Path(__file__).parents[1]
BINARY = ROOT / "bazel-bin" / "benchmarks" / "cpp" / "kernels"


NAMES = {"depthwise": ("kernel", "stride"), "image_rows": ("rows", "columns")}
"""What the two numbers in a benchmark's name are, by kind; of all other kinds: block and tile."""


def row(entry: dict[str, Any]) -> dict[str, Any]:
    """Take one of Google Benchmark's results apart."""
    level, kind, first, second, shape = entry["name"].split("/")[:5]
    names = NAMES.get(kind, ("block", "tile"))
    return {
        "cpu": level,
        "kind": kind,
        **dict(zip(names, (int(first), int(second)), strict=True)),
        "shape": shape,
        "microseconds": round(entry["real_time"], 3),
        "gmacs": round(entry["gmacs"], 2),
        "share_of_peak": round(entry["share"], 4),
    }


def shown(rows: list[dict[str, Any]]) -> Table:
    """Shares by shape: block-sparse kernels with their best tile, depthwise kernels as they are."""
    table = Table("cpu", "kernel", "shape", "tile", "GMAC/s", "share of peak", title="Multiply-adds against the peak")
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for found in rows:
        if found["kind"] == "depthwise":
            name = f"depthwise {found['kernel']} x {found['kernel']}, stride {found['stride']}"
        elif found["kind"] == "image_rows":
            name = "single weights, 3 x 3"
        else:
            name = f"{found['kind']}, block {found['block']}"
        key = (found["cpu"], name, found["shape"])
        if key not in best or found["share_of_peak"] > best[key]["share_of_peak"]:
            best[key] = found
    for (cpu, name, shape), found in best.items():
        tile = f"{found['rows']} x {found['columns']}" if "rows" in found else str(found.get("tile", ""))
        table.add_row(cpu, name, shape, tile, f"{found['gmacs']:.1f}", f"{found['share_of_peak']:.0%}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=BINARY, help="the benchmark as built")
    parser.add_argument("--filter", default=".", help="regular expression: which kernels (avx512/unaligned/4/.*)")
    parser.add_argument("--output", type=Path, default=BENCH, help="folder of the results")
    arguments = parser.parse_args()
    if not arguments.binary.exists():
        parser.error(f"{arguments.binary} is missing: `make bench-kernels` builds it")
    arguments.output.mkdir(parents=True, exist_ok=True)
    raw = arguments.output / "kernels.json.partial"
    # What it prints as it goes is the progress.
    command = [str(arguments.binary), f"--benchmark_filter={arguments.filter}", f"--benchmark_out={raw}"]
    done = subprocess.run([*command, "--benchmark_out_format=json"], check=False)
    if done.returncode != 0:
        raw.unlink(missing_ok=True)
        return done.returncode
    rows = [row(entry) for entry in json.loads(raw.read_text())["benchmarks"]]
    raw.unlink()
    Console(width=None if sys.stdout.isatty() else 120).print(shown(rows))
    write_rows(arguments.output / "kernels.jsonl", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
