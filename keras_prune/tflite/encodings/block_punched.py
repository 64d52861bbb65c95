"""Blocks of m filters x n channels whose kernels all lose the same positions.

Niu et al., "GRIM" and Guan et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes", fine-grained structured
("block-punched") pruning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import bits
from keras_prune.tflite.encodings.base import (
    BLOCK_OVERHEAD,
    BLOCK_SIZES,
    Candidate,
    Encoding,
    Shape,
    Weights,
    any_by_size,
)

MAX_BLOCK = 64
MAX_CHANNELS = 32


class BlockPunchedEncoding(Encoding):
    """Block-punched: one bit for each kernel position of each block."""

    name: ClassVar[str] = "block_punched"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        shape = weights.shape
        kernel = shape.kernel[0] * shape.kernel[1]
        for block in BLOCK_SIZES:
            if block not in weights.row_groups:
                continue
            rows = weights.row_groups[block].reshape(-1, kernel, shape.channels)
            # By channel, which is to be the first axis: groups are then whole planes.
            planes = np.ascontiguousarray(rows.transpose(2, 0, 1))
            for n, kept in any_by_size(planes, MAX_CHANNELS, axis=0).items():
                units = np.count_nonzero(kept, axis=(1, 2))
                columns = int(units.sum()) * n - int(units[-1]) * (-shape.channels % n)
                yield Candidate(
                    structure=self.name,
                    sizes=(block, n),
                    values=columns * block,
                    metadata_bytes=-(-kept.size // 8),
                    cost=columns * (block + BLOCK_OVERHEAD),
                    details=(block, n, kept.transpose(1, 0, 2)),  # [row group, channel group, position]
                )

    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        block, channels, kept = candidate.details
        return {"block": block, "block_channels": channels, "kept": bits.pack_bits(kept)}

    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        block, n = _read_block(options, shape)
        kernel = shape.kernel[0] * shape.kernel[1]
        row_groups, channel_groups = -(-shape.rows // block), -(-shape.channels // n)
        kept = bits.unpack_bits(options, "kept", row_groups * channel_groups * kernel)
        g, h, k = np.unravel_index(np.flatnonzero(kept), (row_groups, channel_groups, kernel))
        channel = h[:, None] * n + np.arange(n)  # [units, n]
        column = (k[:, None] * shape.channels + channel)[channel < shape.channels]
        row = np.repeat(g, np.minimum(n, shape.channels - h * n))[:, None] * block + np.arange(block)
        return np.where(row < shape.rows, row * shape.columns + column[:, None], -1).reshape(-1)

    def sizes(self, options: CustomOptions, shape: Shape) -> tuple[int, ...]:
        return _read_block(options, shape)


def _read_block(options: CustomOptions, shape: Shape) -> tuple[int, int]:
    block = options.integer("block", 1, min(MAX_BLOCK, shape.rows))
    return block, options.integer("block_channels", 1, shape.channels)
