"""Blocks of the matrix that lose whole rows and columns, each block its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, Tiling, kept_entries
from keras_prune.structures.unaligned_block import check_size

_MAX_ROWS, _MAX_COLUMNS = 64, 128


@dataclasses.dataclass(frozen=True)
class BlockRowColumn(Structure):
    """Each block of rows x columns of the matrix loses whole rows and whole columns of its own.

    Made for dense layers and recurrent kernels; a convolution takes part as the matrix of its kernels, with columns in
    the order (ky, kx, input channel). Rows and columns of all blocks compete by the root mean square of their weights,
    so that long and short ones compare, and the smallest are removed, rows and columns alike, until enough entries are
    zero.

    Args:
        rows: rows (output channels) of a block, 2 to 64.
        columns: columns (inputs) of a block, 2 to 128. Conversion finds blocks whose sides are powers of two from 4 on.

    Raises:
        ValueError: ``rows`` or ``columns`` is out of range.

    Example:
        >>> import numpy as np
        >>> from keras_prune import BlockRowColumn
        >>> weights = np.array([[9.0, 1.0, 9.0, 9.0], [9.0, 1.0, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0], [9.0, 1.0, 9.0, 9.0]])
        >>> BlockRowColumn(rows=4, columns=4).mask(weights, zeros=0.4).astype(int).tolist()
        [[1, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]

    Reference:
        Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method",
        arXiv:2001.08357.
    """

    name: ClassVar[str] = "block_row_column"

    rows: int = 8
    columns: int = 32

    def __post_init__(self) -> None:
        check_size(self.rows, "rows", most=_MAX_ROWS, usual=8)
        check_size(self.columns, "columns", most=_MAX_COLUMNS, usual=32)

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return the rows and the columns of blocks."""
        return Tiling(rows=1, columns=self.columns), Tiling(rows=self.rows, columns=1)

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        budget = kept_entries(sum(m.size for m in magnitudes), zeros)
        units = [_Units.of(matrix, self.rows, self.columns) for matrix in magnitudes]
        scores = np.concatenate([s.ravel() for u in units for s in (u.row_scores, u.column_scores)])
        order = np.argsort(scores, kind="stable")

        def kept_after(removed: int) -> list[tuple[Mask, Mask]]:
            flags = np.ones(scores.size, bool)
            flags[order[:removed]] = False
            split = np.split(flags, np.cumsum([s.size for u in units for s in (u.row_scores, u.column_scores)])[:-1])
            pairs = zip(split[::2], split[1::2], units, strict=True)
            return [(r.reshape(u.row_scores.shape), c.reshape(u.column_scores.shape)) for r, c, u in pairs]

        def entries(kept: list[tuple[Mask, Mask]]) -> int:
            return sum(u.entries(rows, columns) for u, (rows, columns) in zip(units, kept, strict=True))

        # The more units are gone, the fewer entries stay: the fewest removed units that do.
        least, most = 0, int(scores.size)
        while least < most:
            middle = (least + most) // 2
            if entries(kept_after(middle)) <= budget:
                most = middle
            else:
                least = middle + 1
        return [u.mask(rows, columns) for u, (rows, columns) in zip(units, kept_after(least), strict=True)]


@dataclasses.dataclass(frozen=True)
class _Units:
    """The rows and columns of one matrix's blocks.

    Attributes:
        row_scores: of each row in each group of columns, ``[rows, column groups]``.
        column_scores: of each column in each group of rows, ``[row groups, columns]``.
        heights: rows of each row group.
        widths: columns of each column group.
    """

    row_scores: npt.NDArray[np.float64]
    column_scores: npt.NDArray[np.float64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, matrix: Matrix, rows: int, columns: int) -> _Units:
        energy = np.square(matrix, dtype=np.float64)
        row_starts, column_starts = np.arange(0, energy.shape[0], rows), np.arange(0, energy.shape[1], columns)
        heights = np.diff(row_starts, append=energy.shape[0])
        widths = np.diff(column_starts, append=energy.shape[1])
        return cls(
            row_scores=np.add.reduceat(energy, column_starts, axis=1) / widths,
            column_scores=np.add.reduceat(energy, row_starts, axis=0) / heights[:, None],
            heights=heights,
            widths=widths,
        )

    def entries(self, rows: Mask, columns: Mask) -> int:
        """Count the entries that stay with these rows and columns."""
        row_counts = np.add.reduceat(rows.astype(np.int64), np.cumsum(self.heights) - self.heights, axis=0)
        column_counts = np.add.reduceat(columns.astype(np.int64), np.cumsum(self.widths) - self.widths, axis=1)
        return int((row_counts * column_counts).sum())

    def mask(self, rows: Mask, columns: Mask) -> Mask:
        """Return the matrix of kept entries."""
        return rows.repeat(self.widths, axis=1) & columns.repeat(self.heights, axis=0)
