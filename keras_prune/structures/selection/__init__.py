"""Algorithms that choose which windows of B consecutive rows of a column to keep, under one budget for all matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.bed import bed
from keras_prune.structures.selection.greedy import greedy
from keras_prune.structures.selection.optimal import optimal

Selection = Callable[[Sequence[npt.NDArray[np.floating]], int, int], list[npt.NDArray[np.bool_]]]

SELECTIONS: dict[str, Selection] = {"bed": bed, "greedy": greedy, "optimal": optimal}

__all__ = ["SELECTIONS", "Selection", "bed", "greedy", "optimal"]
