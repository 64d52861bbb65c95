"""Time and quality of block selection.

Writes ``build/bench/selection.jsonl``, one line a measurement: algorithm, rows, columns, block, sparsity, seconds,
retained_l1, retained_over_optimal. Seconds are processor seconds of the one thread that selects, the median of several
runs, so that what else the machine does counts little. With ``--resnet50``, one full mask update of all layers of
ResNet-50 that are pruned by default too, in lines whose rows and columns are 0 and which have the key "network".
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.results import write_rows
from keras_prune import AlignedBlock, Structure, UnalignedBlock

Matrix = npt.NDArray[np.float32]

SHAPES = ((64, 576), (256, 64), (1024, 1024), (512, 4608), (2048, 512))
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
BLOCKS = (2, 4, 8)


def algorithms(block: int) -> dict[str, Structure]:
    """Name and structure of what is compared; the optimum first, as the others are measured by it."""
    unaligned = {name: UnalignedBlock(block, name) for name in ("optimal", "bed", "greedy")}
    return {**unaligned, "aligned": AlignedBlock(block)}


def measure(matrices: Sequence[Matrix], block: int, sparsity: float, repeats: int) -> list[dict[str, Any]]:
    """Select blocks in each matrix with each algorithm, in turns so that all meet the same noise."""
    structures = algorithms(block)
    seconds: dict[str, list[float]] = {name: [] for name in structures}
    retained: dict[str, float] = {}
    for _ in range(repeats):
        for name, structure in structures.items():
            start = time.process_time()
            masks = [structure.mask(m, sparsity) for m in matrices]
            seconds[name].append(time.process_time() - start)
            retained[name] = sum(
                float(np.abs(m)[k].sum(dtype=np.float64)) for m, k in zip(matrices, masks, strict=True)
            )
    rows, columns = matrices[0].shape if len(matrices) == 1 else (0, 0)
    return [
        {
            "algorithm": name,
            "rows": rows,
            "columns": columns,
            "block": block,
            "sparsity": sparsity,
            "seconds": round(statistics.median(seconds[name]), 5),
            "retained_l1": retained[name],
            "retained_over_optimal": round(retained[name] / retained["optimal"], 6),
        }
        for name in structures
    ]


def resnet50() -> list[Matrix]:
    """The matrices of ResNet-50 that are pruned by default, with random weights."""
    import keras

    from keras_prune.pruning import Pruner

    model = keras.applications.ResNet50(weights=None)
    return [target.matrix() for target in Pruner(model, UnalignedBlock()).targets]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/bench/selection.jsonl"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resnet50", action="store_true", help="also one full mask update of ResNet-50")
    options = parser.parse_args(arguments)

    generator = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    print(f"{'matrix':>14} {'block':>5} {'zeros':>5}  " + "".join(f"{name:>20}" for name in algorithms(4)))
    cases = [
        (f"{rows}x{columns}", [generator.standard_normal((rows, columns), dtype=np.float32)], blocks)
        for rows, columns in SHAPES
        for blocks in [BLOCKS if (rows, columns) == (1024, 1024) else (4,)]
    ]
    if options.resnet50:
        cases.append(("ResNet-50", resnet50(), (4,)))
    for title, matrices, blocks in cases:
        for block in blocks:
            for sparsity in SPARSITIES if len(matrices) == 1 else (0.8,):
                found = measure(matrices, block, sparsity, options.repeats if len(matrices) == 1 else 1)
                if len(matrices) > 1:
                    found = [{**line, "network": title} for line in found]
                lines += found
                cells = "".join(f"{x['seconds']:>10.3f}s{x['retained_over_optimal']:>9.4f}" for x in found)
                print(f"{title:>14} {block:>5} {sparsity:>5}  {cells}", flush=True)

    write_rows(options.output, lines)
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
