"""Blocks of B consecutive rows in one column, at any row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import gaps
from keras_prune.tflite.encodings.base import BLOCK_OVERHEAD, BLOCK_SIZES, Candidate, Encoding, Shape, Weights

MIN_BLOCK, MAX_BLOCK = 2, 64


def cover(nonzero: np.ndarray, block: int) -> np.ndarray | None:
    """Covers each column's non-zeros by the fewest non-overlapping blocks.

    Going down a column and starting a block at each non-zero that is not covered yet gives the fewest blocks. Where
    the last one would stick out below, it moves up, and pushes up those that it meets.

    Args:
        nonzero: `[rows, columns]` bool.
        block: rows of a block.

    Returns:
        The blocks' positions `column * rows + start_row` `[n]` int64, ascending, or None where a column needs more
        blocks than fit into it.

    Example:
        >>> cover(np.array([[0], [1], [0], [1], [0], [1]], bool), 2)
        array([1, 3, 4])
    """
    rows, columns = nonzero.shape
    free = np.zeros(columns, np.int32)  # the first row below the blocks so far
    starts = np.empty((rows, columns), bool)
    for row in range(rows):
        np.logical_and(nonzero[row], free <= row, out=starts[row])
        np.putmask(free, starts[row], row + block)
    counts = starts.sum(axis=0)
    if counts.max(initial=0) * block > rows:
        return None
    positions = np.flatnonzero(np.ascontiguousarray(starts.T))
    ends = np.cumsum(counts)
    column = positions // rows
    blocks_from_here = ends[column] - np.arange(positions.size)
    return np.minimum(positions, (column + 1) * rows - blocks_from_here * block)


def read_block(options: CustomOptions, shape: Shape) -> int:
    """Rows of a block, checked."""
    if shape.rows < MIN_BLOCK:
        raise options.fail("rows", f"is {shape.rows}; a block needs at least {MIN_BLOCK} rows")
    return options.integer("block", MIN_BLOCK, min(MAX_BLOCK, shape.rows))


class UnalignedBlockEncoding(Encoding):
    name: ClassVar[str] = "unaligned_block"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        for block in BLOCK_SIZES:
            positions = cover(weights.nonzero, block) if block <= weights.shape.rows else None
            if positions is not None:
                yield Candidate(
                    structure=self.name,
                    block=block,
                    values=positions.size * block,
                    metadata_bytes=gaps.packed_size(positions, block),
                    cost=positions.size * (block + BLOCK_OVERHEAD),
                    details=positions,
                )

    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        return {"block": candidate.block, "positions": gaps.pack(candidate.details, candidate.block)}

    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        block = read_block(options, shape)
        positions = gaps.unpack(options, "positions", block)
        if positions.size and positions[-1] + block > shape.rows * shape.columns:
            raise options.fail("positions", "lead past the end of the matrix")
        column, row = np.divmod(positions, shape.rows)
        if np.any(row + block > shape.rows):
            raise options.fail("positions", "hold a block that crosses into the next column")
        return ((row[:, None] + np.arange(block)) * shape.columns + column[:, None]).reshape(-1)

    def block(self, options: CustomOptions, shape: Shape) -> str:
        return str(read_block(options, shape))
