"""A structure in each gate of a recurrent kernel by itself; in a file it is that structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, Tiling


@dataclasses.dataclass(frozen=True)
class PerGate(Structure):
    """Another structure in each gate of a recurrent kernel by itself: every gate gets the same fraction of zeros.

    Without it the gates share one budget, and one with small weights, such as a forget gate that stays open, may lose
    nearly all of them. No block lies in two gates. Where several layers share one budget, the same gate of all does.

    Args:
        structure: where zeros may be within a gate.
        gates: gates that the kernel's rows are divided into: 4 in an LSTM, 3 in a GRU.

    Raises:
        ValueError: there are fewer than 2 gates, or ``structure`` is per gate already.
        TypeError: ``structure`` is no structure.

    Example:
        >>> import numpy as np
        >>> from keras_prune import PerGate, UnalignedBlock
        >>> kernel = np.array([[9.0, 8.0], [9.0, 7.0], [0.2, 0.3], [0.2, 0.4]])
        >>> PerGate(UnalignedBlock(2), gates=2).mask(kernel, zeros=0.5).tolist()
        [[True, False], [True, False], [False, True], [False, True]]

    Reference:
        Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method",
        arXiv:2001.08357, for blocks in recurrent kernels.
    """

    name: ClassVar[str] = "per_gate"

    structure: Structure
    gates: int

    def __post_init__(self) -> None:
        if not isinstance(self.structure, Structure):
            raise TypeError(f"structure must be a structure such as UnalignedBlock(8), but is {self.structure!r}")
        if isinstance(self.structure, PerGate):
            raise ValueError(f"structure is per gate already: {self.structure!r}")
        if isinstance(self.gates, bool) or not isinstance(self.gates, int) or self.gates < 2:
            raise ValueError(f"gates must be an integer of at least 2, but is {self.gates!r}: 4 in an LSTM, 3 in a GRU")

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        of_matrices = [np.split(m, self.gates) for m in magnitudes]
        of_gates = [self.structure.masks(gate, zeros, kernels) for gate in zip(*of_matrices, strict=True)]
        return [np.concatenate(masks) for masks in zip(*of_gates, strict=True)]

    def prepare(self, matrices: Sequence[Matrix], kernels: Sequence[Kernel]) -> Structure:
        """Return the structure with what it takes from the trained weights, once, before pruning begins."""
        return dataclasses.replace(self, structure=self.structure.prepare(matrices, kernels))

    def obstacle(self, rows: int, columns: int, kernel: Kernel) -> str | None:
        """Tell why a matrix of this size cannot have this structure, or None if it can."""
        if rows % self.gates:
            return f"its {rows} output channels are not {self.gates} gates of one size"
        return self.structure.obstacle(rows // self.gates, columns, kernel)

    def parts(self, kernel: Kernel) -> tuple[Structure, ...]:
        """Return constraints that together are the structure; each gets auxiliary variables of its own in ADMM."""
        return tuple(dataclasses.replace(self, structure=part) for part in self.structure.parts(kernel))

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return the groups whose norms are penalised: those of the structure, the last of a gate may reach over it."""
        return self.structure.groups(kernel)
