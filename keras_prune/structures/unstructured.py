"""Zeros anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from keras_prune.structures.base import Kernel, Mask, Matrix, Structure, kept_entries


@dataclasses.dataclass(frozen=True)
class Unstructured(Structure):
    """Zeros wherever weights are smallest: the yardstick that every block structure is measured against.

    It retains the most magnitude that any structure can, and is the slowest to run: conversion stores it as what fits
    best, or leaves the layer dense.

    Example:
        >>> import numpy as np
        >>> from keras_prune import Unstructured
        >>> Unstructured().mask(np.array([[0.1, -3.0], [2.0, 0.2]]), zeros=0.5).tolist()
        [[False, True], [True, False]]

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", arXiv:1506.02626.
    """

    name: ClassVar[str] = "unstructured"

    def _select(self, magnitudes: Sequence[Matrix], zeros: float, kernels: Sequence[Kernel]) -> list[Mask]:
        flat = np.concatenate([m.ravel() for m in magnitudes])
        budget = kept_entries(flat.size, zeros)
        threshold = np.partition(flat, flat.size - budget)[flat.size - budget] if budget else np.inf
        kept = flat > threshold
        # Of those at the threshold the first ones fill the budget.
        kept[np.flatnonzero(flat == threshold)[: budget - np.count_nonzero(kept)]] = True
        parts = np.split(kept, np.cumsum([m.size for m in magnitudes])[:-1])
        return [part.reshape(m.shape) for part, m in zip(parts, magnitudes, strict=True)]
