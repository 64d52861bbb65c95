"""Magnitudes as integers.

The selection algorithms compare and add many nearly equal sums. In floating point the order of additions would decide
ties, and a sum updated many times would drift; in fixed point every sum is exact and an argument that holds on paper
holds in the machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def quantize(magnitudes: Sequence[npt.NDArray[np.floating]], bits: int) -> list[npt.NDArray[np.int64]]:
    """Scale non-negative arrays by one power of two so that the largest value takes ``bits`` bits, and round.

    A power of two keeps float32 values exact as long as they are within ``2 ** (bits - 24)`` of the largest one.
    """
    largest = max((float(m.max()) for m in magnitudes if m.size), default=0.0)
    exponent = bits - int(np.frexp(largest)[1]) if largest > 0 else 0
    return [np.rint(np.ldexp(m.astype(np.float64), exponent)).astype(np.int64) for m in magnitudes]
