"""The best possible set of blocks, by duality.

Let f(n) be the largest magnitude that n non-overlapping windows can retain. The constraint matrix "no entry twice, n
windows" has the consecutive-ones property, so the linear programme is integral and f is concave. For a price p a block,
the columns separate, and each column's best set is a short dynamic programme

    T[i] = max(T[i - 1], T[i - B] + S[i - B] - p),

run over all columns at once. The number of windows falls as p grows; the price at which it passes the budget is
searched for, and where several sets are equally good at that price, columns are moved from the smaller set to the
larger one until the budget is spent exactly.

Everything is in integers: a value carries its window count in its low bits, so one addition and one maximum keep
both, and ties go to the larger count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.fixed_point import quantize

Ints = npt.NDArray[np.int64]


def optimal(magnitudes: Sequence[npt.NDArray[np.floating]], block: int, blocks: int) -> list[npt.NDArray[np.bool_]]:
    """Select the at most ``blocks`` windows of ``block`` rows that retain the largest total magnitude.

    Args:
        magnitudes: non-negative matrices ``[rows, columns]`` that share the budget.
        block: B, rows of a window.
        blocks: how many windows may be taken.

    Returns:
        One mask a matrix, true where an entry lies in a taken window.
    """
    capacity = sum((m.shape[0] // block) * m.shape[1] for m in magnitudes)
    blocks = min(blocks, capacity)
    if blocks <= 0:
        return [np.zeros(m.shape, bool) for m in magnitudes]
    problem = _Problem(magnitudes, block)

    # Invariant: more[0] is a price at which at least `blocks` windows pay, less[0] one at which fewer do.
    more = (0, capacity)
    less = (problem.largest + 1, 0)
    price = problem.first_guess(blocks / capacity)
    turn = 0
    exact = False
    if problem.count(0) <= blocks:
        exact, price = True, 0
    while not exact and less[0] - more[0] > 1:
        price = min(max(price, more[0] + 1), less[0] - 1)
        count = problem.count(price)
        if count == blocks:
            exact = True
            break
        if count > blocks:
            more = (price, count)
        else:
            less = (price, count)
        width = less[0] - more[0]
        # False position first, with a step past the goal so that both ends move; bisection every third time.
        if turn % 3 == 2:
            price = more[0] + width // 2
        else:
            fraction = (more[1] - blocks) / max(more[1] - less[1], 1)
            margin = 0.02 if turn % 3 == 0 else -0.02
            price = more[0] + int(width * min(max(fraction + margin, 0.0), 1.0))
        turn += 1
    if exact:
        return [_cover(s, block, m.shape) for s, m in zip(problem.starts(price), magnitudes, strict=True)]

    large, small = problem.starts(more[0]), problem.starts(less[0])
    missing = blocks - sum(int(s.sum()) for s in small)
    masks = []
    for high, low, matrix in zip(large, small, magnitudes, strict=True):
        extra = high.sum(axis=0) - low.sum(axis=0)
        before = np.concatenate([[0], np.cumsum(extra)[:-1]])
        whole = before + extra <= missing
        starts = np.where(whole, high, low)
        partly = np.flatnonzero(~whole & (before < missing))
        for column in partly:  # At most one.
            starts[:, column] = _cross(high[:, column], low[:, column], int(missing - before[column]), block)
        missing -= int(min(missing, extra.sum()))
        masks.append(_cover(starts, block, matrix.shape))
    return masks


class _Problem:
    """The dynamic programmes of all columns of all matrices."""

    def __init__(self, magnitudes: Sequence[npt.NDArray[np.floating]], block: int) -> None:
        self.block = block
        most = max(m.shape[0] // block for m in magnitudes)
        self.count_bits = int(most).bit_length()
        # A sum over a column takes count_bits more than a window's, which takes block.bit_length() more than a value.
        bits = min(62 - 2 * self.count_bits - int(block).bit_length(), 44)
        self.sums: list[Ints] = []
        for q in quantize(magnitudes, bits):
            windows = max(q.shape[0] - block + 1, 0)
            sums = np.zeros((windows, q.shape[1]), np.int64)
            for offset in range(block if windows else 0):
                sums += q[offset : offset + windows]
            self.sums.append(sums)
        self.largest = max((int(s.max()) for s in self.sums if s.size), default=0)
        for s in self.sums:
            # The low bits count: taking a window adds one.
            s <<= self.count_bits
            s += 1

    def first_guess(self, density: float) -> int:
        """Estimate the price at which the aligned windows would pay for the wanted share of them."""
        aligned = np.concatenate([s[:: self.block].ravel() for s in self.sums])[:: max(1, len(self.sums))]
        return int(np.quantile(aligned, 1 - min(density, 1.0))) >> self.count_bits

    def count(self, price: int) -> int:
        """Count the windows in the largest best set at this price."""
        low = (1 << self.count_bits) - 1
        return sum(int((self._run(s, price)[-1] & low).sum()) for s in self.sums)

    def starts(self, price: int) -> list[npt.NDArray[np.bool_]]:
        """Find the start rows ``[windows, columns]`` of the largest best set at this price."""
        return [self._trace(s, price) for s in self.sums]

    def _run(self, sums: Ints, price: int, better: npt.NDArray[np.bool_] | None = None) -> Ints:
        """Run the recurrence with its last B values only; ``better[i]`` tells where row i's window pays."""
        block, (windows, columns) = self.block, sums.shape
        cost = price << self.count_bits
        ring = np.zeros((block, columns), np.int64)
        best = np.zeros(columns, np.int64)
        offer = np.empty(columns, np.int64)
        for i in range(windows):
            slot = ring[i % block]  # T[i], about to be replaced by T[i + B].
            np.subtract(sums[i], cost, out=offer)
            np.add(offer, slot, out=offer)
            if better is not None:
                np.greater(offer, best, out=better[i])
            np.maximum(offer, best, out=slot)
            best = slot
        return best[None]

    def _trace(self, sums: Ints, price: int) -> npt.NDArray[np.bool_]:
        block = self.block
        starts = np.zeros(sums.shape, bool)
        self._run(sums, price, starts)
        busy = np.zeros(sums.shape[1], np.int16)
        for i in range(sums.shape[0] - 1, -1, -1):
            row = starts[i]
            row &= busy <= 0
            busy -= 1
            busy[row] = block - 1
        return starts


def _cover(starts: npt.NDArray[np.bool_], block: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    windows = starts.shape[0]
    for offset in range(block if windows else 0):
        mask[offset : offset + windows] |= starts
    return mask


def _cross(high: npt.NDArray[np.bool_], low: npt.NDArray[np.bool_], extra: int, block: int) -> npt.NDArray[np.bool_]:
    """Make one column's set with ``extra`` windows more than ``low``, as good as both at their common price.

    Where neither set has a window across row i, ``high`` above and ``low`` below is again a set, and no worse: the two
    ways to cross add up to the two sets. The surplus of ``high`` above i changes by at most one between such rows.
    """
    windows = high.size
    # Surplus of windows that end at or before row i, and whether a window lies across the boundary at i.
    surplus = np.zeros(windows + block, np.int64)
    across = np.zeros(windows + block, bool)
    surplus[block:] = np.cumsum(high.astype(np.int64) - low)
    for offset in range(1, block):
        across[offset : offset + windows] |= high | low
    cut = int(np.flatnonzero(~across & (surplus == extra))[0])
    return np.where(np.arange(windows) < cut, high, low)
