"""Large problems in parts: runs of columns that fit the cache, and a sample to learn the going rate from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Matrices = Sequence[npt.NDArray[np.floating]]

PIECE = 1 << 17
"""Entries; a handful of int64 arrays of that size fit a second-level cache."""
SAMPLE = 1 << 16
"""Entries from which a price can be learned to a few percent."""


def pieces(magnitudes: Matrices) -> Iterator[tuple[int, npt.NDArray[np.floating]]]:
    """Cut matrices into runs of whole columns; yields each with the number of entries before it."""
    start = 0
    for m in magnitudes:
        rows, columns = m.shape
        width = max(1, PIECE // max(rows, 1))
        for first in range(0, columns, width):
            yield start + first * rows, m[:, first : first + width]
        start += m.size


def sample(magnitudes: Matrices) -> Matrices | None:
    """Take every n-th column of all matrices, or None where that would save nothing."""
    entries = sum(m.size for m in magnitudes)
    if entries <= 4 * SAMPLE:
        return None
    return [m[:, :: entries // SAMPLE] for m in magnitudes]


def masks_from(flat: npt.NDArray[np.bool_], magnitudes: Matrices) -> list[npt.NDArray[np.bool_]]:
    """Cut marks, counted down the columns of all matrices one after the other, into one mask a matrix."""
    masks, start = [], 0
    for m in magnitudes:
        rows, columns = m.shape
        masks.append(np.ascontiguousarray(flat[start : start + m.size].reshape(columns, rows).T))
        start += m.size
    return masks
