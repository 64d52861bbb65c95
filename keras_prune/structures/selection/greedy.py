"""Greedy selection: the best window that overlaps none taken before, again and again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.peeling import peel


def greedy(magnitudes: Sequence[npt.NDArray[np.floating]], block: int, blocks: int) -> list[npt.NDArray[np.bool_]]:
    """Select blocks greedily; see :func:`keras_prune.structures.selection.peeling.peel` for the arguments."""
    return peel(magnitudes, block, blocks, bridge=False)
