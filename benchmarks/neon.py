"""Inner loops of the NEON kernels as compiled: instructions a block, and cycles by llvm-mca's model of several cores.

A loop's bound is half a cycle a multiply-add of four floats on Neoverse N1 (stands for Cortex-A76 and A78). Prints a
table and writes JSON lines to build/bench/neon.jsonl.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.latency import BENCH
from benchmarks.results import write_rows

ROOT = Path(__file__).parents[1]
OBJECT = ROOT / "bazel-aarch64-bin" / "tflite_delegate" / "_objs" / "kernels_neon" / "kernels_neon.pic.o"
CORES = ("neoverse-n1", "neoverse-n2", "neoverse-v1", "cortex-a55")
AIM = 0.53
"""Cycles a multiply-add on the first of the cores, in the widest tile of blocks of 4."""
ITERATIONS = 200


@dataclass(frozen=True, order=True)
class Loop:
    """One kernel's loop over blocks: what it is, its two sizes, and how many multiply-adds one turn of it has."""

    kind: str
    block: int
    """Rows of a block, or rows of the image in a tile."""
    tile: int
    """Vectors of a tile, or of each of its rows."""
    fmla: int


def loops_of(symbol: str) -> list[Loop]:
    """The loops that a function has, by its mangled name."""
    if name := re.search(
        r"SpmmI.*?Li(\d)ELi(\d)EL[^E]*SpmmSourceE0EL[^E]*SpmmPixelsE0EE(?:\d+)(Aligned|Unaligned)E", symbol
    ):
        block, tile = int(name[1]), int(name[2])
        return [Loop(name[3].lower(), block, tile, block * tile)]
    if name := re.search(r"SpmmRowsI.*?Li(\d+)ELi(\d+)ELb0EE", symbol):
        rows, columns = int(name[1]), int(name[2])
        kinds = (("image rows, pairs", 2), ("image rows, singles", 1))
        return [Loop(kind, rows, columns, rows * columns * each) for kind, each in kinds]
    return []


def loops(disassembly: str) -> dict[Loop, list[str]]:
    """Instructions of each loop over blocks."""
    found: dict[Loop, list[str]] = {}
    for function in re.split(r"\n(?=[0-9a-f]+ <)", disassembly):
        wanted = loops_of(function.split("\n", 1)[0])
        if not wanted:
            continue
        matches = re.finditer(r"^\s*([0-9a-f]+):\t([^\n/]*?)\s*(?://[^\n]*)?$", function, re.MULTILINE)
        lines = [(int(line[1], 16), line[2]) for line in matches]
        place = {address: i for i, (address, _) in enumerate(lines)}
        for i, (address, text) in enumerate(lines):
            branch = re.match(r"b\.ne\s+([0-9a-f]+) <", text)
            if not branch or int(branch[1], 16) > address:
                continue
            body = [line for _, line in lines[place[int(branch[1], 16)] : i]]
            straight = not any(re.match(r"(b|b\..*|cbn?z|tbn?z|bl|ret)\s", line) for line in body)
            fmla = sum(line.startswith("fmla") for line in body)
            for loop in wanted:
                if straight and fmla == loop.fmla:
                    found.setdefault(loop, body)
    return found


def cycles(body: list[str], core: str) -> float:
    """Cycles of one turn of a loop on a core, by llvm-mca."""
    text = ".Lloop:\n" + "\n".join(body) + "\nb.ne .Lloop\n"
    command = ["llvm-mca-19", "-mtriple=aarch64", f"-mcpu={core}", f"-iterations={ITERATIONS}"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total is not None
    return int(total[1]) / ITERATIONS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--object", type=Path, default=OBJECT, help="compiled kernels_neon.cc")
    parser.add_argument("--output", type=Path, default=BENCH, help="folder of the results")
    arguments = parser.parse_args()
    if not arguments.object.exists():
        parser.error(f"{arguments.object} is missing: `make bench-neon` builds it")
    command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(arguments.object)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows: list[dict[str, Any]] = []
    for loop, body in sorted(loops(text).items()):
        spills = sum("[sp" in line for line in body)
        times = {core: round(cycles(body, core) / loop.fmla, 4) for core in CORES}
        widest = loop.block == 4 and loop.tile == 7
        rows.append(
            {
                "kernel": loop.kind,
                "block": loop.block,
                "tile": loop.tile,
                "instructions": len(body) + 1,
                "fmla": loop.fmla,
                "stack_accesses": spills,
                "cycles_per_fmla": times,
                "aim": AIM if widest else None,
            }
        )
    table = Table("kernel", "block", "tile", "instructions", "fmla", "stack", *CORES, "aim")
    for row in rows:
        first = row["cycles_per_fmla"][CORES[0]]
        aim = f"{row['aim']} {'met' if first <= row['aim'] else 'MISSED'}" if row["aim"] else ""
        numbers = [str(row[key]) for key in ("block", "tile", "instructions", "fmla", "stack_accesses")]
        table.add_row(row["kernel"], *numbers, *(f"{t:.3f}" for t in row["cycles_per_fmla"].values()), aim)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    write_rows(arguments.output / "neon.jsonl", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
