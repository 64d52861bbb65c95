"""Block expansion and division (BED).

As published: take the best window of B neighbours over all columns, mark its entries as kept and delete them, so that
their neighbours become adjacent; repeat m times. Later windows may thus reach over earlier ones (expansion). At the end
each column's runs of kept entries are multiples of B long and divide into contiguous blocks of B (division).

Reference: Lee and Shin, arXiv:2407.19644.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.peeling import peel


def bed(magnitudes: Sequence[npt.NDArray[np.floating]], block: int, blocks: int) -> list[npt.NDArray[np.bool_]]:
    """Select blocks by BED; see :func:`keras_prune.structures.selection.peeling.peel` for the arguments."""
    return peel(magnitudes, block, blocks, bridge=True)
