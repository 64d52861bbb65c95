"""Blocks of B output channels in one column, starting at multiples of B."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, Tiling, keep_best, kept_entries
from keras_prune.structures.unaligned_block import check_size, too_few_rows


@dataclasses.dataclass(frozen=True)
class AlignedBlock(Structure):
    """Zeros everywhere but in blocks of B output channels of one column that start at a multiple of B.

    Blocks are kept by their L1 norm, the largest first, as long as the fraction of zeros holds. Where the rows are not
    a multiple of B, each column's last block is shorter and competes with the sum it has.

    Args:
        size: B, 2 to 64 output channels in a block.

    Raises:
        ValueError: ``size`` is outside 2 to 64.

    Example:
        >>> import numpy as np
        >>> from keras_prune import AlignedBlock
        >>> column = np.array([[0.1], [3.0], [-2.0], [0.2], [0.3], [0.1]])
        >>> AlignedBlock(size=2).mask(column, zeros=0.6).ravel().tolist()
        [True, True, False, False, False, False]

    Reference:
        Lin et al., "1xN Pattern for Pruning Convolutional Neural Networks", arXiv:2105.14713.
    """

    name: ClassVar[str] = "aligned_block"

    size: int = 4

    def __post_init__(self) -> None:
        check_size(self.size)

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        scores, sizes = [], []
        for matrix in magnitudes:
            first_rows = np.arange(0, matrix.shape[0], self.size)
            scores.append(np.add.reduceat(matrix, first_rows, axis=0, dtype=np.float64))
            heights = np.diff(np.append(first_rows, matrix.shape[0]))
            sizes.append(np.broadcast_to(heights[:, None], scores[-1].shape))
        budget = kept_entries(sum(m.size for m in magnitudes), zeros)
        kept = keep_best(scores, sizes, budget)
        return [np.repeat(k, self.size, axis=0)[: m.shape[0]] for k, m in zip(kept, magnitudes, strict=True)]

    def obstacle(self, rows: int, columns: int, kernel: Kernel) -> str | None:
        """Tell why a matrix of this size cannot have this structure, or None if it can."""
        return too_few_rows(rows, self.size)

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return the blocks."""
        return (Tiling(rows=self.size, columns=1),)
