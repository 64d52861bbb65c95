"""Bytes of metadata of each structure, as a share of the bytes of the fp32 values that are stored.

Converts ResNet-50 and MobileNetV1 (random weights) at 80 % zeros with each structure, and counts over the block-sparse
layers. Metadata are all of an operator's custom options, the layer's own parameters (strides, padding, activation)
included. Prints a table and writes ``build/bench/metadata.jsonl``, one line a network and structure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import models
from benchmarks.results import write_rows
from keras_prune import AlignedBlock, BlockPunched, BlockRowColumn, Pattern, Structure, UnalignedBlock

NETWORKS = ("mobilenet_v1", "resnet50")
ZEROS = 0.8
CASES: list[tuple[Structure, float | None]] = [
    (UnalignedBlock(4), 0.08),
    (AlignedBlock(4), 0.08),
    (Pattern(8), 0.13),
    (BlockPunched(8, 4), 0.02),
    (BlockRowColumn(8, 32), None),
]
"""Structures, and the largest share that each is to have (None: only reported)."""


def measure(model: Any, structure: Structure, zeros: float) -> dict[str, Any]:
    """Prune a model, convert it with this structure alone, and count; the model's weights change."""
    import keras_prune
    from keras_prune.tflite import inspect

    keras_prune.sparsify(model, structure, zeros)
    dense = keras_prune.convert(model, sparse=False)
    layers = [layer for layer in inspect(keras_prune.convert(dense, structures=[structure.name])) if layer.structure]
    values = sum(layer.value_bytes or 0 for layer in layers)
    metadata = sum(layer.metadata_bytes for layer in layers)
    return {
        "structure": structure.name,
        "parameters": repr(structure),
        "zeros": zeros,
        "layers": len(layers),
        "value_bytes": values,
        "metadata_bytes": metadata,
        "share": round(metadata / values, 6) if values else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/bench/metadata.jsonl"), help="default: %(default)s")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: %(default)s")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    rows: list[dict[str, Any]] = []
    for network in options.networks.split(","):
        if network not in models.NETWORKS:
            parser.error(f"unknown network {network!r}; there are {', '.join(models.NETWORKS)}")
        model = models.build(network)
        weights = model.get_weights()
        for structure, aim in CASES:
            with console.status(f"{network}, {structure!r}"):
                model.set_weights(weights)
                row = {"network": network, **measure(model, structure, ZEROS), "aim": aim}
            console.print(f"{network}, {structure!r}: {_per_cent(row['share'])}")
            rows.append(row)
    table = Table("network", "structure", "layers", "values", "metadata", "share", "aim")
    for row in rows:
        met = row["aim"] is not None and row["share"] is not None and row["share"] <= row["aim"]
        table.add_row(
            row["network"],
            row["structure"],
            str(row["layers"]),
            f"{row['value_bytes'] / 1e3:,.0f} kB",
            f"{row['metadata_bytes'] / 1e3:,.0f} kB",
            _per_cent(row["share"]),
            "" if row["aim"] is None else f"{row['aim']:.0%} {'met' if met else 'MISSED'}",
        )
    console.print(table)
    write_rows(options.output, rows)
    return 0


def _per_cent(share: float | None) -> str:
    return "nothing block-sparse" if share is None else f"{share:.2%}"


if __name__ == "__main__":
    sys.exit(main())
