"""What every structure shares."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Kernel = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """A division of a weight matrix into rectangular groups, for penalties that drive whole groups to zero.

    Args:
        rows: rows (output channels) of a group.
        columns: columns of a group; input channels, where ``positions`` is given.
        positions: kernel positions of a group. None: the columns are taken as they come, ``(ky, kx, input channel)``.
        offset: rows by which the first group begins above the matrix. The last groups may stick out too.
    """

    rows: int
    columns: int
    positions: int | None = None
    offset: int = 0


class Structure(abc.ABC):
    """Where zeros may be in a weight matrix.

    A structure sees each weight as a matrix ``[rows, columns]``: a row is an output channel, a column is one of its
    inputs, for a convolution in the order ``(ky, kx, input channel)``. It is a value: parameters and no state.

    A new structure is one file with a subclass that has a ``name`` and a ``_select``, and one line in
    ``keras_prune/structures/__init__.py``.
    """

    name: ClassVar[str]
    """Name in reports and in the file format."""

    def mask(self, matrix: Matrix, zeros: float, kernel: Kernel = (1, 1)) -> Mask:
        """Choose what to keep of one matrix.

        Args:
            matrix: weights ``[rows, columns]``, any float dtype.
            zeros: fraction of entries to make zero, in [0, 1). The result has at least that fraction, and as close to
                it as whole units of the structure allow; exactly 0 keeps everything.
            kernel: spatial size of the convolution kernel, for the structures that look at it.

        Returns:
            Boolean matrix of the same shape, true where a weight is kept.

        Raises:
            ValueError: ``zeros`` is outside [0, 1), the matrix is not two-dimensional or holds NaN or infinity.

        Example:
            >>> import numpy as np
            >>> from keras_prune import AlignedBlock
            >>> AlignedBlock(size=2).mask(np.array([[1.0, 9.0], [2.0, 9.0]]), zeros=0.5).tolist()
            [[False, True], [False, True]]
        """
        return self.masks([matrix], zeros, [kernel])[0]

    def masks(self, matrices: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel] | None = None) -> list[Mask]:
        """Choose what to keep of several matrices under one budget: the fraction holds for all of them together.

        Args:
            matrices: weights ``[rows, columns]`` each.
            zeros: fraction of all entries to make zero, in [0, 1).
            kernels: spatial size of each matrix's convolution kernel; (1, 1) by default.

        Returns:
            A boolean matrix for each.

        Raises:
            ValueError: as for :meth:`mask`.
        """
        check_sparsity(zeros, "zeros")
        if kernels is None:
            kernels = [(1, 1)] * len(matrices)
        magnitudes = []
        for i, matrix in enumerate(matrices):
            if np.ndim(matrix) != 2:
                raise ValueError(f"matrix {i} must have the shape [rows, columns], but has {np.shape(matrix)}")
            magnitude = np.abs(np.asarray(matrix, dtype=np.float32))
            if not np.isfinite(magnitude).all():
                raise ValueError(f"matrix {i} holds NaN or infinity; magnitudes cannot be compared")
            magnitudes.append(magnitude)
        if zeros == 0 or not magnitudes:
            return [np.ones(m.shape, bool) for m in magnitudes]
        return self._select(magnitudes, zeros, kernels)

    @abc.abstractmethod
    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        """:meth:`masks` on checked, non-negative float32 matrices and 0 < zeros < 1."""

    def prepare(self, matrices: Sequence[Matrix], kernels: Sequence[Kernel]) -> Structure:
        """Return the structure with what it takes from the trained weights, once, before pruning begins."""
        return self

    def obstacle(self, rows: int, columns: int, kernel: Kernel) -> str | None:
        """Tell why a matrix of this size cannot have this structure, or None if it can."""
        return None

    def parts(self, kernel: Kernel) -> tuple[Structure, ...]:
        """Return constraints that together are the structure; each gets auxiliary variables of its own in ADMM."""
        return (self,)

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return the groups whose norms reweighted regularisation penalises; several divisions count their average."""
        return (Tiling(rows=1, columns=1),)


def per_kernel(matrix: npt.NDArray[Any], kernel: Kernel) -> npt.NDArray[Any]:
    """View a matrix as ``[rows, kernel positions, input channels]``."""
    return matrix.reshape(matrix.shape[0], int(np.prod(kernel)), -1)


def check_sparsity(value: float, name: str) -> None:
    """Raise ValueError unless ``value`` is a fraction in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(
            f"{name} must be in [0, 1), but is {value}. It is the fraction of zeros: 0.8 makes 80 % of the weights zero"
        )


def kept_entries(size: int, zeros: float) -> int:
    """Count the most entries of ``size`` that may stay so that at least the fraction ``zeros`` becomes zero.

    One part in ten million is forgiven: schedules compute in float32, where 0.8 is a little more than 0.8.
    """
    return int((1.0 - zeros + 1e-7) * size)


def keep_best(scores: Sequence[Matrix], sizes: Sequence[npt.NDArray[np.int64]], budget: int) -> list[Mask]:
    """Keep the units with the largest scores, best first, as long as their sizes fit the budget together.

    Args:
        scores: one array of unit scores a matrix.
        sizes: entries in each unit, arrays of the same shapes.
        budget: entries that may be kept over all arrays.

    Returns:
        Boolean arrays of the same shapes. Of equal scores the earlier unit is kept.
    """
    flat = np.concatenate([s.ravel() for s in scores])
    order = np.argsort(-flat, kind="stable")
    filled = np.cumsum(np.concatenate([s.ravel() for s in sizes])[order])
    kept = np.zeros(flat.size, bool)
    kept[order[: np.searchsorted(filled, budget, side="right")]] = True
    masks, start = [], 0
    for score in scores:
        masks.append(kept[start : start + score.size].reshape(score.shape))
        start += score.size
    return masks
