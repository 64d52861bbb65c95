"""Kernels that keep the entries of one pattern out of a few, or vanish."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, Tiling, keep_best, kept_entries, per_kernel

_KERNEL = (3, 3)
_POSITIONS, _CENTRE, _NEIGHBOURS = 9, 4, 3
# The file format's detection takes more patterns than this for chance.
_COUNTS = range(1, 33)


@dataclasses.dataclass(frozen=True)
class Pattern(Structure):
    """3x3 kernels keep four entries in one of a few arrangements, and whole kernels are removed beyond that.

    A kernel is the weights between one input and one output channel. A *pattern* is the centre and three neighbours.
    The set of patterns is taken from the trained weights, over all layers together, when pruning begins: each kernel's
    natural pattern is its centre and its three largest neighbours, and the most frequent ones make the set. Each kernel
    takes the pattern of the set that retains most of its energy (sum of squares).

    *Connectivity*: patterns alone leave 5/9 of a 3x3 layer zero, also where fewer zeros are asked for (but none at 0).
    For a fraction z beyond that, the kernels with the least energy an entry are removed, so that
    ``(1 - z) / (4/9)`` of them stay. Kernels of any other size, 1x1 included, are kept or removed whole.

    Args:
        count: patterns in the set, 1 to 32; 4, 6, 8 and 12 are usual.
        patterns: the set itself, each pattern a sequence of the positions ``3 * ky + kx`` that it keeps; by default it
            is taken from the weights.

    Raises:
        ValueError: ``count`` is outside 1 to 32, or a pattern is empty, repeats a position or leaves the kernel.

    Example:
        >>> import numpy as np
        >>> from keras_prune import Pattern
        >>> kernel = np.array([[1, 5, 1], [1, 2, 6], [1, 7, 1]])
        >>> Pattern(count=4).mask(kernel.reshape(1, 9), zeros=0.5, kernel=(3, 3)).reshape(3, 3).astype(int).tolist()
        [[0, 1, 0], [0, 1, 1], [0, 1, 0]]

    Reference:
        Niu et al., "PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based Weight Pruning",
        arXiv:2001.00138.
    """

    name: ClassVar[str] = "pattern"

    count: int = 8
    patterns: tuple[tuple[int, ...], ...] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count not in _COUNTS:
            raise ValueError(
                f"count must be a whole number from {_COUNTS[0]} to {_COUNTS[-1]}, but is {self.count!r}; 8 is usual"
            )
        if self.patterns is not None:
            normal = tuple(tuple(sorted(int(k) for k in pattern)) for pattern in self.patterns)
            if not normal or not all(p and len(set(p)) == len(p) and p[0] >= 0 and p[-1] < _POSITIONS for p in normal):
                raise ValueError(f"each pattern must be distinct positions 0 to 8 of a 3x3 kernel, but got {normal!r}")
            object.__setattr__(self, "patterns", normal)

    def prepare(self, matrices: Sequence[Matrix], kernels: Sequence[Kernel]) -> Structure:
        """Return the structure with the set of patterns that these weights have most often."""
        if self.patterns is not None or _KERNEL not in kernels:
            return self
        return dataclasses.replace(self, patterns=self._frequent(matrices, kernels))

    def parts(self, kernel: Kernel) -> tuple[Structure, ...]:
        """Return the two constraints, patterns and connectivity; the second alone where the first says nothing."""
        arguments = (self.count, self.patterns)
        connectivity = _Connectivity(*arguments)
        return (_Arrangement(*arguments), connectivity) if kernel == _KERNEL else (connectivity,)

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        """Return whole kernels."""
        return (Tiling(rows=1, columns=1, positions=int(np.prod(kernel))),)

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        energies = _energies(magnitudes, kernels)
        entries = self._arranged(magnitudes, kernels)
        kept = _connected([np.where(e, x, 0) for e, x in zip(entries, energies, strict=True)], entries, zeros)
        return [_flat(e & k[:, None, :]) for e, k in zip(entries, kept, strict=True)]

    def _arranged(self, magnitudes: Sequence[Matrix], kernels: Sequence[Kernel]) -> list[Mask]:
        """Choose each kernel's entries ``[rows, positions, channels]``, as though all kernels stayed."""
        patterns = self.patterns
        if patterns is None and _KERNEL in kernels:
            patterns = self._frequent(magnitudes, kernels)
        chosen = []
        for energy, kernel in zip(_energies(magnitudes, kernels), kernels, strict=True):
            if kernel != _KERNEL:
                chosen.append(np.ones(energy.shape, bool))
                continue
            assert patterns is not None
            kept = np.zeros((len(patterns), _POSITIONS), bool)
            for i, pattern in enumerate(patterns):
                kept[i, list(pattern)] = True
            best = np.argmax(np.matmul(kept.astype(np.float64), energy), axis=1)  # [rows, channels]
            chosen.append(np.moveaxis(kept[best], 2, 1))
        return chosen

    def _frequent(self, matrices: Sequence[Matrix], kernels: Sequence[Kernel]) -> tuple[tuple[int, ...], ...]:
        """Find the most frequent natural patterns of 3x3 kernels; of equally frequent ones the first by position."""
        counts = np.zeros(1 << _POSITIONS, np.int64)
        for energy, kernel in zip(_energies(matrices, kernels), kernels, strict=True):
            if kernel == _KERNEL:
                largest = np.argsort(-np.delete(energy, _CENTRE, axis=1), axis=1, kind="stable")[:, :_NEIGHBOURS]
                codes = (1 << _CENTRE) + (1 << (largest + (largest >= _CENTRE))).sum(axis=1)
                # A kernel that is zero already has no natural pattern.
                counts += np.bincount(codes[energy.any(axis=1)], minlength=counts.size)
        order = np.argsort(-counts, kind="stable")[: self.count]
        codes = order[counts[order] > 0]
        if codes.size == 0:
            codes = np.array([0b010111000])
        return tuple(tuple(k for k in range(_POSITIONS) if code >> k & 1) for code in codes.tolist())


class _Arrangement(Pattern):
    """The patterns alone: all kernels stay."""

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        return [_flat(entries) for entries in self._arranged(magnitudes, kernels)]


class _Connectivity(Pattern):
    """The connectivity alone: as many whole kernels stay as meet the fraction of zeros once they have patterns."""

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        energies = _energies(magnitudes, kernels)
        kept = _connected(energies, self._arranged(magnitudes, kernels), zeros)
        return [_flat(np.repeat(k[:, None, :], e.shape[1], axis=1)) for k, e in zip(kept, energies, strict=True)]


def _energies(matrices: Sequence[Matrix], kernels: Sequence[Kernel]) -> list[npt.NDArray[np.float64]]:
    squares = [np.square(np.asarray(matrix, np.float64)) for matrix in matrices]
    return [per_kernel(square, kernel) for square, kernel in zip(squares, kernels, strict=True)]


def _connected(energies: Sequence[Matrix], entries: Sequence[Mask], zeros: float) -> list[Mask]:
    """Choose the kernels ``[rows, channels]`` that stay: those with the most energy an entry."""
    sizes = [e.sum(axis=1) for e in entries]
    scores = [x.sum(axis=1) / size for x, size in zip(energies, sizes, strict=True)]
    return keep_best(scores, sizes, kept_entries(sum(e.size for e in entries), zeros))


def _flat(mask: Mask) -> Mask:
    return mask.reshape(mask.shape[0], -1)
