"""Magnitudes as integers.

The selection algorithms compare and add many nearly equal sums. In floating point the order of additions would decide
ties, and a sum updated many times would drift; in fixed point every sum is exact and an argument that holds on paper
holds in the machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def scale_for(magnitudes: Sequence[npt.NDArray[np.floating]], bits: int) -> int:
    """Find the power of two by which non-negative arrays must be scaled so that the largest value takes ``bits`` bits.

    A power of two keeps float32 values exact as long as they are within ``2 ** (bits - 24)`` of the largest one.
    """
    largest = max((float(m.max()) for m in magnitudes if m.size), default=0.0)
    return bits - int(np.frexp(largest)[1]) if largest > 0 else 0


def quantize(magnitudes: npt.NDArray[np.floating], exponent: int) -> npt.NDArray[np.int64]:
    """Scale by ``2 ** exponent`` and round."""
    return np.rint(np.ldexp(magnitudes.astype(np.float64), exponent)).astype(np.int64)
