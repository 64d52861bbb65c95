"""Blocks of the matrix that lose whole rows and columns, each block its own.

Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method", 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import bits
from keras_prune.tflite.encodings.base import Candidate, Encoding, Shape, Weights

MAX_BLOCK = 2**16
ROW_SIZES = (4, 8, 16, 32, 64)
COLUMN_SIZES = (4, 8, 16, 32, 64, 128)


class BlockRowColumnEncoding(Encoding):
    """Block row/column: for each block, a bit a row and a bit a column."""

    name: ClassVar[str] = "block_row_column"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        shape = weights.shape
        # Whether a row has a non-zero in each column group, and a column in each row group.
        rows_by_size = _any_by_size(weights.nonzero, COLUMN_SIZES, axis=1)
        columns_by_size = _any_by_size(weights.nonzero, ROW_SIZES, axis=0)
        for p, columns in columns_by_size.items():
            for q, rows in rows_by_size.items():
                starts = np.arange(0, shape.columns, q)
                kept_rows = np.add.reduceat(rows, np.arange(0, shape.rows, p), axis=0, dtype=np.int64)
                kept_columns = np.add.reduceat(columns, starts, axis=1, dtype=np.int64)
                values = int((kept_rows * kept_columns).sum())
                yield Candidate(
                    structure=self.name,
                    values=values,
                    metadata_bytes=-(-kept_rows.size * p // 8) - (-kept_rows.size * q // 8),
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

    def block(self, options: CustomOptions, shape: Shape) -> str:
        return "{} x {}".format(*_read_block(options, shape))


def _any_by_size(nonzero: np.ndarray, sizes: tuple[int, ...], axis: int) -> dict[int, np.ndarray]:
    """For each group size that fits, `any` over the groups; each from the largest smaller size that divides it."""
    found = {1: nonzero}
    for size in sorted(sizes):
        if size <= nonzero.shape[axis]:
            part = max(smaller for smaller in found if size % smaller == 0)
            starts = np.arange(0, found[part].shape[axis], size // part)
            found[size] = np.logical_or.reduceat(found[part], starts, axis=axis)
    del found[1]
    return found


def _blocks(nonzero: np.ndarray, p: int, q: int) -> np.ndarray:
    """Divide `[rows, columns]` into `[row groups, column groups, p, q]`, padded by False."""
    rows, columns = nonzero.shape
    padded = np.pad(nonzero, ((0, -rows % p), (0, -columns % q)))
    return padded.reshape(padded.shape[0] // p, p, padded.shape[1] // q, q).transpose(0, 2, 1, 3)


def _read_block(options: CustomOptions, shape: Shape) -> tuple[int, int]:
    p = options.integer("block_rows", 1, min(MAX_BLOCK, shape.rows))
    return p, options.integer("block_columns", 1, min(MAX_BLOCK, shape.columns))
