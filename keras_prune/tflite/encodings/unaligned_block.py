"""Blocks of B consecutive rows in one column, at any row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import gaps
from keras_prune.tflite.encodings.base import BLOCK_OVERHEAD, Candidate, Encoding, Shape, Weights

MIN_BLOCK, MAX_BLOCK = 2, 64


def read_block(options: CustomOptions, shape: Shape) -> int:
    """Read the rows of a block."""
    if shape.rows < MIN_BLOCK:
        raise options.fail("rows", f"is {shape.rows}; a block needs at least {MIN_BLOCK} rows")
    return options.integer("block", MIN_BLOCK, min(MAX_BLOCK, shape.rows))


class UnalignedBlockEncoding(Encoding):
    """Unaligned blocks: `positions` of their first entries, column by column."""

    name: ClassVar[str] = "unaligned_block"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        for block, positions in weights.covers.items():
            yield Candidate(
                structure=self.name,
                sizes=(block,),
                values=positions.size * block,
                metadata_bytes=gaps.packed_size(positions, block),
                cost=positions.size * (block + BLOCK_OVERHEAD),
                details=(block, positions),
            )

    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        block, positions = candidate.details
        return {"block": block, "positions": gaps.pack(positions, block)}

    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        block = read_block(options, shape)
        positions = gaps.unpack(options, "positions", block)
        if positions.size and positions[-1] + block > shape.rows * shape.columns:
            raise options.fail("positions", "lead past the end of the matrix")
        column, row = np.divmod(positions, shape.rows)
        if np.any(row + block > shape.rows):
            raise options.fail("positions", "hold a block that crosses into the next column")
        return ((row[:, None] + np.arange(block)) * shape.columns + column[:, None]).reshape(-1)

    def sizes(self, options: CustomOptions, shape: Shape) -> tuple[int, ...]:
        return (read_block(options, shape),)
