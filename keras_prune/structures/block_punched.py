"""Blocks of filters x channels whose kernels all lose the same positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, Tiling, keep_best, kept_entries, per_kernel
from keras_prune.structures.unaligned_block import check_size


@dataclasses.dataclass(frozen=True)
class BlockPunched(Structure):
    """All kernels of a block of filters (output channels) x input channels lose the same positions.

    A position of a block is scored by the sum over the block's channels of the L2 norm over its filters, and one
    threshold a layer (or over all layers, where they share a budget) tells which stay. Blocks at the edges may be
    smaller; they compete with the score that they have.

    A dense layer or a 1x1 convolution has one position, so whole blocks are kept or removed.

    Args:
        filters: output channels in a block, 2 to 64. Conversion finds blocks of 2, 4, 8 or 16, so others are stored as
            the largest of these that divides them.
        channels: input channels in a block, 1 to 64; for these, powers of two up to 32 are found.

    Raises:
        ValueError: ``filters`` or ``channels`` is out of range.

    Example:
        >>> import numpy as np
        >>> from keras_prune import BlockPunched
        >>> weights = np.array([[1.0, 1.0, 4.0, 4.0], [1.0, 1.0, 4.0, 4.0]])
        >>> BlockPunched(filters=2, channels=2).mask(weights, zeros=0.5).astype(int).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]

    Reference:
        Cai et al., "YOLObile: Real-Time Object Detection on Mobile Devices via Compression-Compilation Co-Design",
        arXiv:2009.05697; Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile
        Acceleration", arXiv:2111.11581.
    """

    name: ClassVar[str] = "block_punched"

    filters: int = 8
    channels: int = 4

    def __post_init__(self) -> None:
        check_size(self.filters, "filters", usual=8)
        check_size(self.channels, "channels", least=1)

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return the positions of blocks."""
        return (Tiling(rows=self.filters, columns=self.channels, positions=1),)

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        scores, sizes, shapes = [], [], []
        for matrix, kernel in zip(magnitudes, kernels, strict=True):
            energy = np.square(per_kernel(matrix, kernel), dtype=np.float64)
            rows, _, channels = energy.shape
            row_starts, channel_starts = np.arange(0, rows, self.filters), np.arange(0, channels, self.channels)
            norms = np.sqrt(np.add.reduceat(energy, row_starts, axis=0))
            scores.append(np.add.reduceat(norms, channel_starts, axis=2))
            heights, widths = np.diff(row_starts, append=rows), np.diff(channel_starts, append=channels)
            sizes.append(np.broadcast_to(heights[:, None, None] * widths, scores[-1].shape))
            shapes.append((heights, widths))
        kept = keep_best(scores, sizes, kept_entries(sum(m.size for m in magnitudes), zeros))
        return [
            k.repeat(heights, axis=0).repeat(widths, axis=2).reshape(matrix.shape)
            for k, (heights, widths), matrix in zip(kept, shapes, magnitudes, strict=True)
        ]
