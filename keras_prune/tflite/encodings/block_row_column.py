"""Blocks of the matrix that lose whole rows and columns, each block its own.

Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method", 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import bits
from keras_prune.tflite.encodings.base import (
    MAX_ROW_GROUP,
    Candidate,
    Encoding,
    Shape,
    Weights,
    any_by_size,
    pairwise,
)

MAX_BLOCK = 2**16
MAX_COLUMN_GROUP = 128
# Smaller blocks are what the other structures are for.
MIN_GROUP = 4


class BlockRowColumnEncoding(Encoding):
    """Block row/column: for each block, a bit a row and a bit a column."""

    name: ClassVar[str] = "block_row_column"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        # Whether a row has a non-zero within each column group, and a column within each row group.
        by_column = any_by_size(np.ascontiguousarray(weights.nonzero.T), MAX_COLUMN_GROUP, axis=0)
        kept_columns = {p: _sums_by_size(columns.T, MAX_COLUMN_GROUP) for p, columns in weights.row_groups.items()}
        for q, rows in by_column.items():
            for p, kept_rows in _sums_by_size(rows.T, MAX_ROW_GROUP).items():
                if min(p, q) < MIN_GROUP:
                    continue
                blocks = kept_rows * kept_columns[p][q].T
                values = int(blocks.sum())
                yield Candidate(
                    structure=self.name,
                    sizes=(p, q),
                    values=values,
                    metadata_bytes=-(-blocks.size * p // 8) - (-blocks.size * q // 8),
                    cost=max(weights.scattered_cost, float(values)),
                    details=(p, q),
                )

    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        p, q = candidate.details
        blocks = _blocks(weights.nonzero, p, q)
        return {
            "block_rows": p,
            "block_columns": q,
            "kept_rows": bits.pack_bits(blocks.any(axis=3)),
            "kept_columns": bits.pack_bits(blocks.any(axis=2)),
        }

    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        p, q = _read_block(options, shape)
        row_groups, column_groups = -(-shape.rows // p), -(-shape.columns // q)
        blocks = row_groups * column_groups
        rows = bits.unpack_bits(options, "kept_rows", blocks * p).reshape(row_groups, column_groups, p)
        columns = bits.unpack_bits(options, "kept_columns", blocks * q).reshape(row_groups, column_groups, q)
        for key, kept, size, extent in (
            ("kept_rows", rows, p, shape.rows),
            ("kept_columns", columns, q, shape.columns),
        ):
            edge = kept[-1] if key == "kept_rows" else kept[:, -1]
            if edge[:, extent - (-(-extent // size) - 1) * size :].any():
                raise options.fail(key, f"keeps {key.removeprefix('kept_')} outside the matrix")
        if not np.array_equal(rows.any(axis=2), columns.any(axis=2)):
            raise options.fail("kept_columns", "has a block that keeps columns but no row, or rows but no column")
        block, column = np.nonzero(columns.reshape(blocks, q))  # in the order of the values: block, column, then row
        kept = rows.reshape(blocks, p)[block]  # [columns that are kept, p]
        at, row = np.nonzero(kept)
        g, h = np.divmod(block, column_groups)
        return (g[at] * p + row) * shape.columns + (h * q + column)[at]

    def sizes(self, options: CustomOptions, shape: Shape) -> tuple[int, ...]:
        return _read_block(options, shape)


def _sums_by_size(kept: np.ndarray, largest: int) -> dict[int, np.ndarray]:
    """For groups of 2, 4, 8, ... entries along the first axis, how many are set, int64."""
    found: dict[int, np.ndarray] = {}
    sums, size = kept.astype(np.int64), 2
    while size <= min(largest, kept.shape[0]):
        sums = found[size] = pairwise(np.add, sums, axis=0)
        size *= 2
    return found


def _blocks(nonzero: np.ndarray, p: int, q: int) -> np.ndarray:
    """Divide `[rows, columns]` into `[row groups, column groups, p, q]`, padded by False."""
    rows, columns = nonzero.shape
    padded = np.pad(nonzero, ((0, -rows % p), (0, -columns % q)))
    return padded.reshape(padded.shape[0] // p, p, padded.shape[1] // q, q).transpose(0, 2, 1, 3)


def _read_block(options: CustomOptions, shape: Shape) -> tuple[int, int]:
    p = options.integer("block_rows", 1, min(MAX_BLOCK, shape.rows))
    return p, options.integer("block_columns", 1, min(MAX_BLOCK, shape.columns))
