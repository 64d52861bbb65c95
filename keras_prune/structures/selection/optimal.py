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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.fixed_point import quantize, scale_for

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
    price = problem.price_for(blocks, capacity)
    large = problem.starts(price)
    missing = sum(int(s.sum()) for s in large) - blocks
    if missing > 0:
        # Sets of the budget's size are mixtures of the largest and the smallest that are best at this price: at integer
        # prices, the smallest one is the largest one at the next price.
        small = problem.starts(price + 1)
        large = _mix(large, small, missing, block)
    return [_cover(s, block, m.shape) for s, m in zip(large, magnitudes, strict=True)]


class _Point(NamedTuple):
    price: int
    windows: int
    retained: int


class _Problem:
    """The dynamic programmes of all columns of all matrices."""

    def __init__(self, magnitudes: Sequence[npt.NDArray[np.floating]], block: int) -> None:
        self.block = block
        most = max(m.shape[0] // block for m in magnitudes)
        self.count_bits = int(most).bit_length()
        # A sum over a column takes count_bits more than a window's, which takes block.bit_length() more than a value.
        bits = min(62 - 2 * self.count_bits - int(block).bit_length(), 44)
        self.sums: list[Ints] = []
        exponent = scale_for(magnitudes, bits)
        for m in magnitudes:
            q = quantize(m, exponent)
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

    def price_for(self, blocks: int, capacity: int) -> int:
        """Find the largest price at which the largest best set has at least ``blocks`` windows."""
        low = _Point(0, *self.value_of(0))
        if low.windows <= blocks:
            return 0
        high = _Point(self.largest + 1, 0, 0)
        price = self._first_guess(blocks / capacity)
        turn = 0
        while low.windows > blocks and high.price - low.price > 1:
            price = min(max(price, low.price + 1), high.price - 1)
            point = _Point(price, *self.value_of(price))
            if point.windows >= blocks:
                low = point
            else:
                high = point
            turn += 1
            gap, width = low.windows - high.windows, high.price - low.price
            if turn % 3 == 0:
                # The mean gain of the windows between the two. Where they all gain the same this is the price sought.
                price = (low.retained - high.retained) // gap
            else:
                # Interpolate, and step over the goal by the error to expect, so that both ends move.
                error = min(0.25, max(0.25 * width / high.price, 0.7 / gap**0.5))
                fraction = (low.windows - blocks) / gap + (error if turn % 3 == 1 else -error)
                price = low.price + int(width * min(max(fraction, 0.0), 1.0))
        return low.price

    def _first_guess(self, density: float) -> int:
        """Estimate the price at which the aligned windows would pay for the wanted share of them."""
        aligned = np.concatenate([s[:: self.block].ravel() for s in self.sums])
        aligned = aligned[:: max(1, aligned.size >> 14)]
        return int(np.quantile(aligned, 1 - min(density, 1.0))) >> self.count_bits

    def value_of(self, price: int) -> tuple[int, int]:
        """Tell how many windows the largest best set at this price has, and what it retains."""
        count, value = 0, 0
        for s in self.sums:
            total = self._run(s, price)
            count += int((total & ((1 << self.count_bits) - 1)).sum())
            total >>= self.count_bits
            # In two halves: the sum over columns can pass 63 bits.
            value += (int((total >> 32).sum()) << 32) + int((total & 0xFFFFFFFF).sum())
        return count, value + price * count

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
        return best

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


def _mix(
    large: Sequence[npt.NDArray[np.bool_]], small: Sequence[npt.NDArray[np.bool_]], surplus: int, block: int
) -> list[npt.NDArray[np.bool_]]:
    """Take ``surplus`` windows fewer than ``large`` by going over to ``small`` column by column."""
    mixed = []
    for high, low in zip(large, small, strict=True):
        excess = high.sum(axis=0) - low.sum(axis=0)
        before = np.cumsum(excess) - excess
        starts = np.where(before + excess <= surplus, low, high)
        for column in np.flatnonzero((before < surplus) & (before + excess > surplus)):  # At most one.
            rest = int(before[column] + excess[column] - surplus)
            starts[:, column] = _cross(high[:, column], low[:, column], rest, block)
        surplus -= int(min(surplus, excess.sum()))
        mixed.append(starts)
    return mixed


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
