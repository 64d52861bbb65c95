"""Blocks of B consecutive rows in one column, at multiples of B."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import gaps
from keras_prune.tflite.encodings.base import BLOCK_OVERHEAD, BLOCK_SIZES, Candidate, Encoding, Shape, Weights
from keras_prune.tflite.encodings.unaligned_block import read_block


class AlignedBlockEncoding(Encoding):
    """Aligned blocks: `positions` in units of groups of B rows, column by column."""

    name: ClassVar[str] = "aligned_block"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        for block in BLOCK_SIZES:
            if block not in weights.row_groups:
                continue
            positions = np.flatnonzero(np.ascontiguousarray(weights.row_groups[block].T))
            yield Candidate(
                structure=self.name,
                sizes=(block,),
                values=positions.size * block,
                metadata_bytes=gaps.packed_size(positions, 1),
                cost=positions.size * (block + BLOCK_OVERHEAD),
                details=(block, positions),
            )

    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        block, positions = candidate.details
        return {"block": block, "positions": gaps.pack(positions, 1)}

    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        block = read_block(options, shape)
        groups = -(-shape.rows // block)
        positions = gaps.unpack(options, "positions", 1)
        if positions.size and positions[-1] >= groups * shape.columns:
            raise options.fail("positions", "lead past the end of the matrix")
        column, group = np.divmod(positions, groups)
        row = group[:, None] * block + np.arange(block)
        return np.where(row < shape.rows, row * shape.columns + column[:, None], -1).reshape(-1)

    def sizes(self, options: CustomOptions, shape: Shape) -> tuple[int, ...]:
        return (read_block(options, shape),)
