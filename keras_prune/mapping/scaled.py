"""A structure whose layer takes its own share of a schedule's zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from keras_prune.mapping.workload import parse_scheme
from keras_prune.structures import Structure, Tiling
from keras_prune.structures.base import Kernel, Mask, Matrix

_MOST = 0.999


@dataclasses.dataclass(frozen=True)
class Scaled(Structure):
    """A structure that gets a multiple of the zeros asked for, so that one schedule serves layers of unlike rates.

    Args:
        scheme: structure and block, such as ``"unaligned_block:4"``.
        share: by what its zeros are multiplied; no layer gets more than 99.9 %.
        part: which of the structure's parts this is; all of it by default.
        patterns: those taken from the trained weights, for a structure that has any.

    Raises:
        ValueError: ``scheme`` names no structure, or the share is not positive.

    Example:
        >>> import numpy as np
        >>> from keras_prune.mapping.scaled import Scaled
        >>> int(Scaled("aligned_block:2", share=0.5).mask(np.eye(8), zeros=0.5).sum())
        48
    """

    name: ClassVar[str] = "scaled"

    scheme: str
    share: float
    part: int | None = None
    patterns: tuple[tuple[int, ...], ...] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if parse_scheme(self.scheme) is None:
            raise ValueError("a dense layer has no zeros to scale")
        if not self.share > 0.0:
            raise ValueError(f"share must be positive, but is {self.share}")
        if self.patterns is not None:
            object.__setattr__(self, "patterns", tuple(tuple(pattern) for pattern in self.patterns))

    def _inner(self, kernel: Kernel = (1, 1)) -> Structure:
        structure: Any = parse_scheme(self.scheme)
        if self.patterns is not None:
            structure = dataclasses.replace(structure, patterns=self.patterns)
        return structure if self.part is None else structure.parts(kernel)[self.part]

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        inner = self._inner(kernels[0] if kernels else (1, 1))
        return inner.masks(magnitudes, min(zeros * self.share, _MOST), kernels)

    def prepare(self, matrices: Sequence[Matrix], kernels: Sequence[Kernel]) -> Structure:
        prepared = self._inner().prepare(matrices, kernels)
        return dataclasses.replace(self, patterns=getattr(prepared, "patterns", None))

    def obstacle(self, rows: int, columns: int, kernel: Kernel) -> str | None:
        return self._inner().obstacle(rows, columns, kernel)

    def parts(self, kernel: Kernel) -> tuple[Structure, ...]:
        count = len(self._inner().parts(kernel))
        return (self,) if count == 1 else tuple(dataclasses.replace(self, part=i) for i in range(count))

    def groups(self, kernel: Kernel) -> tuple[Tiling, ...]:
        return self._inner().groups(kernel)
