"""The best possible set of blocks, by duality.

Let f(n) be the largest magnitude that n non-overlapping windows can retain. The constraint matrix "no entry twice, n
windows" has the consecutive-ones property, so the linear programme is integral and f is concave. For a price p a block,
the columns separate, and each column's best set is a short dynamic programme

    T[i + B] = max(T[i + B - 1], T[i] + S[i] - p),

run over all columns at once. The number of windows falls as p grows; the price at which it passes the budget is
searched for, and where several sets are equally good at that price, parts of the larger set are exchanged for parts of
the smaller one until the budget is met exactly.

A window whose sum is below the price never pays. So once a lower bound of the price is known, columns fall apart into
short stretches of windows that may pay, and these are what the programme runs over, longest first.

Everything is in integers: a value carries its window count in its low bits, so one addition and one maximum keep both,
and ties go to the larger count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.fixed_point import quantize, scale_for
from keras_prune.structures.selection.pieces import Matrices, masks_from, pieces, sample

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_NEVER = -(1 << 61)  # Sum of a window that must not be taken.
_CAUTION = 0.97  # A guessed price is lowered to this share for the bound; too high a bound costs a second run.


def optimal(magnitudes: Sequence[npt.NDArray[np.floating]], block: int, blocks: int) -> list[Flags]:
    """Select the at most ``blocks`` windows of ``block`` rows that retain the largest total magnitude.

    Args:
        magnitudes: non-negative matrices ``[rows, columns]`` that share the budget.
        block: B, rows of a window.
        blocks: how many windows may be taken.

    Returns:
        One mask a matrix, true where an entry lies in a taken window.
    """
    blocks = min(blocks, _capacity(magnitudes, block))
    flat = np.zeros(sum(m.size for m in magnitudes), bool)
    if blocks > 0:
        most = max(m.shape[0] // block for m in magnitudes)
        scale = _Scale(magnitudes, block, most)
        price, stretches = _search(magnitudes, block, blocks, scale)
        chosen = stretches.taken(price)
        surplus = int(chosen.sum()) - blocks
        if surplus > 0:
            # At integer prices the smallest of the best sets is the largest one at the next price.
            chosen = stretches.mix(chosen, stretches.taken(price + 1), surplus)
        first = stretches.position[chosen]
        for offset in range(block):
            flat[first + offset] = True
    return masks_from(flat, magnitudes)


def _capacity(magnitudes: Matrices, block: int) -> int:
    return sum((m.shape[0] // block) * m.shape[1] for m in magnitudes)


class _Scale:
    """How sums are held in 64 bits: a value above a window count."""

    def __init__(self, magnitudes: Matrices, block: int, most: int) -> None:
        self.count_bits = int(most).bit_length()
        # A sum over a column takes count_bits more than a window's, which takes block.bit_length() more than a value.
        bits = min(60 - 2 * self.count_bits - int(block).bit_length(), 44)
        self.exponent = scale_for(magnitudes, bits)


class _Point(NamedTuple):
    """What the largest best set at a price has and retains."""

    price: int
    windows: int
    retained: int


def _search(
    magnitudes: Matrices, block: int, blocks: int, scale: _Scale, tolerance: float = 0.0
) -> tuple[int, _Stretches]:
    """Find the largest price at which the largest best set has at least ``blocks`` windows, to a relative tolerance."""
    few = sample(magnitudes)
    if few is None:
        guess = _aligned_price(magnitudes, block, blocks, scale)
    else:
        share = blocks / _capacity(magnitudes, block)
        guess = _search(few, block, max(1, int(share * _capacity(few, block))), scale, 0.005)[0]
    stretches = _Stretches(magnitudes, block, int(_CAUTION * guess), scale)
    low = stretches.at(stretches.floor)
    if low.windows < blocks:
        stretches = _Stretches(magnitudes, block, 0, scale)
        low = stretches.at(0)
    high = _Point(stretches.largest + 1, 0, 0)
    price = guess + int((1 - _CAUTION) * guess)
    turn = 0
    while low.windows > blocks and high.price - low.price > max(1, tolerance * high.price):
        point = stretches.at(min(max(price, low.price + 1), high.price - 1))
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
    return low.price, stretches


def _aligned_price(magnitudes: Matrices, block: int, blocks: int, scale: _Scale) -> int:
    """Estimate the price as that at which the wanted share of the aligned windows would pay."""
    sums = []
    for m in magnitudes:
        whole = m.shape[0] // block
        entries = quantize(m[: whole * block], scale.exponent)
        sums.append(entries.reshape(whole, block, m.shape[1]).sum(axis=1).ravel())
    aligned = np.concatenate(sums)
    return int(np.quantile(aligned, 1 - min(blocks / aligned.size, 1.0)))


class _Stretches:
    """The dynamic programmes of all stretches of windows that may pay, side by side.

    Stretches are ordered by length, the longest first. Row i of all those longer than i is one slice, so a step of all
    programmes is a few operations on slices.
    """

    def __init__(self, magnitudes: Matrices, block: int, floor: int, scale: _Scale) -> None:
        self.block = block
        self.floor = floor
        self.count_bits = scale.count_bits
        found = [(start, *_live_windows(piece, block, floor, scale)) for start, piece in pieces(magnitudes)]
        position = np.concatenate([start + where for start, where, _ in found])
        sums = np.concatenate([values for _, _, values in found])
        self.largest = int(sums.max(initial=0))

        # A window belongs to the stretch of the one before it if they may overlap. The B - 1 rows at the end of a
        # column where none begins keep columns apart.
        begins = np.flatnonzero(np.diff(position, prepend=-block) >= block)
        ends = np.append(begins[1:], position.size)[: begins.size]
        lengths = position[ends - 1] - position[begins] + 1
        by_length = np.argsort(-lengths, kind="stable")
        rank = np.empty_like(by_length)
        rank[by_length] = np.arange(rank.size)
        longest = int(lengths.max(initial=0))
        self.widths: Ints = rank.size - np.cumsum(np.bincount(lengths, minlength=longest + 1))[:longest]
        self.offsets: Ints = np.concatenate([[0], np.cumsum(self.widths)])

        row = position - np.repeat(position[begins], ends - begins)
        cell = self.offsets[row] + np.repeat(rank, ends - begins)
        self.sums = np.full(int(self.offsets[-1]), _NEVER, np.int64)
        self.sums[cell] = (sums << self.count_bits) + 1  # The low bits count: taking a window adds one.
        self.position = np.zeros(self.sums.size, np.int64)
        self.position[cell] = position

    def at(self, price: int) -> _Point:
        """Run the programmes at a price that is at least the floor."""
        total = self._run(price, None)
        windows = int((total & ((1 << self.count_bits) - 1)).sum())
        total >>= self.count_bits
        # In two halves: the sum over all stretches can pass 63 bits.
        value = (int((total >> 32).sum()) << 32) + int((total & 0xFFFFFFFF).sum())
        return _Point(price, windows, value + price * windows)

    def taken(self, price: int) -> Flags:
        """Mark the windows in the largest best set at this price."""
        marks = np.zeros(self.sums.size, bool)
        self._run(price, marks)
        # From the ends: a window that pays is taken unless it overlaps the one taken after it.
        busy = np.zeros(int(self.widths[0]) if self.widths.size else 0, np.int16)
        for begin, width in zip(self.offsets[-2::-1].tolist(), self.widths[::-1].tolist(), strict=True):
            row, blocked = marks[begin : begin + width], busy[:width]
            row &= blocked <= 0
            blocked -= 1
            blocked[row] = self.block - 1
        return marks

    def _run(self, price: int, pays: Flags | None) -> Ints:
        """Run the recurrence, T[i] in a ring of B rows; ``pays`` is set where taking a window beats leaving it."""
        cost = price << self.count_bits
        count = int(self.widths[0]) if self.widths.size else 0
        ring = np.zeros((self.block, count), np.int64)
        buffer = np.empty(count, np.int64)
        final = np.zeros(count, np.int64)
        best, before = final, count
        for i, (begin, width) in enumerate(zip(self.offsets.tolist(), self.widths.tolist(), strict=False)):
            if width < before:
                final[width:before] = best[width:before]
                before = width
            offer, slot = buffer[:width], ring[i % self.block][:width]
            np.subtract(self.sums[begin : begin + width], cost, out=offer)
            np.add(offer, slot, out=offer)
            if pays is not None:
                np.greater(offer, best[:width], out=pays[begin : begin + width])
            np.maximum(offer, best[:width], out=slot)
            best = slot
        final[:before] = best[:before]
        return final

    def mix(self, large: Flags, small: Flags, surplus: int) -> Flags:
        """Take ``surplus`` windows fewer than ``large`` by going over to ``small`` stretch by stretch."""
        stretch = np.arange(self.sums.size) - np.repeat(self.offsets[:-1], self.widths)
        count = int(self.widths[0])
        excess = np.bincount(stretch[large], minlength=count) - np.bincount(stretch[small], minlength=count)
        before = np.cumsum(excess) - excess
        mixed = np.where((before + excess <= surplus)[stretch], small, large)
        for which in np.flatnonzero((before < surplus) & (before + excess > surplus)):  # At most one.
            cells = self.offsets[:-1][self.widths > which] + which
            rest = int(before[which] + excess[which] - surplus)
            mixed[cells] = _cross(large[cells], small[cells], rest, self.block)
        return mixed


def _live_windows(
    piece: npt.NDArray[np.floating], block: int, floor: int, scale: _Scale
) -> tuple[npt.NDArray[np.intp], Ints]:
    """Find the windows of a run of columns whose sum reaches the floor: places, counted down the columns, and sums."""
    values = quantize(piece, scale.exponent).T
    rows = values.shape[1]
    windows = rows - block + 1
    if windows <= 0 or values.size == 0:
        return np.empty(0, np.intp), np.empty(0, np.int64)
    sums = np.full(values.shape, -1, np.int64)
    inner = sums[:, :windows]
    inner[:] = values[:, :windows]
    for offset in range(1, block):
        inner += values[:, offset : offset + windows]
    where = np.flatnonzero(sums >= floor)
    return where, sums.ravel()[where]


def _cross(high: Flags, low: Flags, extra: int, block: int) -> Flags:
    """Make one stretch's set with ``extra`` windows more than ``low``, as good as both at their common price.

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
