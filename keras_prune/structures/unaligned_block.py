"""Blocks of B output channels in one column, starting at any row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, Tiling, kept_entries
from keras_prune.structures.selection import SELECTIONS


@dataclasses.dataclass(frozen=True)
class UnalignedBlock(Structure):
    """Zeros everywhere but in blocks of B consecutive output channels of one column, at any row.

    The free start row retains nearly as much magnitude as unstructured pruning does, while a block of B weights still
    shares one load of the input.

    A fraction of zeros z leaves ``floor((1 - z) * entries / B)`` blocks, so there are at least z zeros and at most
    B - 1 entries more. Where the rows are not a multiple of B, at most ``floor(rows / B)`` blocks fit into a column,
    which can force more.

    Args:
        size: B, 2 to 64 output channels in a block.
        selection: how blocks are chosen. ``"bed"``, block expansion and division: windows are taken greedily and may
            reach over those taken before. ``"greedy"``: windows are taken greedily without that. ``"optimal"``: the set
            with the largest retained magnitude.

    Raises:
        ValueError: ``size`` is outside 2 to 64, or ``selection`` is not one of the three.

    Example:
        >>> import numpy as np
        >>> from keras_prune import UnalignedBlock
        >>> column = np.array([[0.1], [3.0], [-2.0], [0.2], [0.3], [0.1]])
        >>> UnalignedBlock(size=2).mask(column, zeros=0.6).ravel().tolist()
        [False, True, True, False, False, False]

    Reference:
        Lee and Shin, "Realizing Unaligned Block-wise Pruning for DNN Acceleration on Mobile Devices", arXiv:2407.19644.
    """

    name: ClassVar[str] = "unaligned_block"

    size: int = 4
    selection: str = "bed"

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, but is {self.selection!r}")

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        entries = sum(m.size for m in magnitudes)
        return SELECTIONS[self.selection](magnitudes, self.size, kept_entries(entries, zeros) // self.size)

    def obstacle(self, rows: int, columns: int, kernel: Kernel) -> str | None:
        """Tell why a matrix of this size cannot have this structure, or None if it can."""
        return too_few_rows(rows, self.size)

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return all windows of a block's size, which overlap."""
        return tuple(Tiling(rows=self.size, columns=1, offset=offset) for offset in range(self.size))


def check_size(size: int, name: str = "size", *, least: int = 2, most: int = 64, usual: int = 4) -> None:
    """Raise ValueError unless a block of ``size`` rows or columns can be stored."""
    if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, but is {size!r}; {usual} is usual")


def too_few_rows(rows: int, size: int) -> str | None:
    """Tell why a matrix cannot hold blocks of ``size`` rows, or None."""
    return f"{rows} output channels are fewer than a block of {size}" if rows < size else None
