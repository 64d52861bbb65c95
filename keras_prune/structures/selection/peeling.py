"""Greedy picking of windows, many at a time.

Greedy and BED both repeat "take the best window of all". Two facts let a whole round of picks be made at once with the
same result:

* A window that is better than every window it overlaps will be taken before anything near it changes, whatever happens
  elsewhere. So all such local maxima can be taken together.
* Taking window M and closing the gap replaces a window that began n entries to its left by one made of those n
  entries and the B - n entries to the right of M. Those were no better than M's first B - n, or M would not have been a
  maximum, so window sums never grow. Hence gains fall along every chain of picks, and the picks of the sequential
  algorithm's first m steps are the m best gains.

The second fact also says that a window below the m-th best gain never matters, neither now nor later. A lower bound of
that gain is guessed from a sample of the columns; then columns are worked off in pieces that stay in the cache, and
each piece soon holds little more than what will be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.fixed_point import quantize, scale_for
from keras_prune.structures.selection.pieces import masks_from, pieces, sample

Ints = npt.NDArray[np.int64]

_TIE_BITS = 20
_CAUTION = 0.95  # The guess is lowered to this share; a guess too high costs a second run.


def peel(
    magnitudes: Sequence[npt.NDArray[np.floating]], block: int, blocks: int, bridge: bool
) -> list[npt.NDArray[np.bool_]]:
    """Take the best window of ``block`` consecutive rows again and again, at most ``blocks`` times in all.

    Args:
        magnitudes: non-negative matrices ``[rows, columns]`` that share the budget.
        block: B, rows of a window.
        blocks: how many windows may be taken.
        bridge: whether the entries above and below a taken window become neighbours (BED) or stay apart (greedy).

    Returns:
        One mask a matrix, true where an entry lies in a taken window.
    """
    if blocks <= 0:
        return [np.zeros(m.shape, bool) for m in magnitudes]
    # Room for a sum of B values and the tie breaker below the sign bit.
    exponent = scale_for(magnitudes, 62 - _TIE_BITS - int(block).bit_length())
    floor = -1  # A window must beat this to matter.
    few = sample(magnitudes)
    if few is not None:
        gains, _ = _pick(few, exponent, block, bridge, floor)
        share = int(blocks * sum(m.size for m in few) / sum(m.size for m in magnitudes))
        if 0 < share <= gains.size:
            floor = int(_nth_largest(gains, share) * _CAUTION) - 1
    gains, picks = _pick(magnitudes, exponent, block, bridge, floor)
    if gains.size < blocks and floor >= 0:
        gains, picks = _pick(magnitudes, exponent, block, bridge, -1)

    flat = np.zeros(sum(m.size for m in magnitudes), bool)
    flat[picks[_best(gains, blocks)].ravel()] = True
    return masks_from(flat, magnitudes)


def _pick(
    magnitudes: Sequence[npt.NDArray[np.floating]], exponent: int, block: int, bridge: bool, floor: int
) -> tuple[Ints, Ints]:
    """Take all windows that beat ``floor`` when their turn comes.

    Returns:
        Gains ``[n]`` and the windows' entries ``[n, block]``, counted down the columns of all matrices one after the
        other. A window comes after those it closed a gap over, and gains no more than they.
    """
    gains, picks = [np.empty(0, np.int64)], [np.empty((0, block), np.int64)]
    for start, piece in pieces(magnitudes):
        values = quantize(piece, exponent).T.ravel()
        segment = np.repeat(np.arange(piece.shape[1]), piece.shape[0])
        for gain, pick in _rounds(values, segment, block, bridge, floor):
            gains.append(gain)
            picks.append(pick + start)
    return np.concatenate(gains), np.concatenate(picks)


def _rounds(values: Ints, segment: Ints, block: int, bridge: bool, floor: int) -> Iterator[tuple[Ints, Ints]]:
    """Take all local maxima, close the gaps, and again; windows do not cross from one segment number to another."""
    position = np.arange(values.size)
    while values.size >= block:
        windows = values.size - block + 1
        sums = _window_sums(values, block)
        live = (segment[:windows] == segment[block - 1 :]) & (sums > floor)
        # Equal sums are ordered by an even scattering of the rows, so that a plateau has many local maxima.
        tie = (position[:windows] * 0x9E375) & ((1 << _TIE_BITS) - 1)
        key = np.where(live, (sums << _TIE_BITS) | tie, -1)
        top = np.flatnonzero(live & (key == _neighbourhood_max(key, block)))
        if top.size == 0:
            return
        entries = top[:, None] + np.arange(block)
        yield sums[top], position[entries]

        taken = np.zeros(values.size, bool)
        taken[entries.ravel()] = True
        near = np.zeros(values.size, bool)
        for offset in range(block):
            near[offset : offset + windows] |= live
        keep = near & ~taken
        # Entries dropped as hopeless must not let their neighbours meet; taken ones must, when bridging.
        wall = ~near if bridge else ~keep
        segment = (segment + np.cumsum(wall))[keep]
        values = values[keep]
        position = position[keep]


def _window_sums(values: Ints, block: int) -> Ints:
    windows = values.size - block + 1
    sums = values[:windows].copy()
    for offset in range(1, block):
        sums += values[offset : offset + windows]
    return sums


def _neighbourhood_max(key: Ints, block: int) -> Ints:
    """Find the largest key among the windows that overlap each window, itself included."""
    reach = block - 1
    width = 2 * reach + 1
    padded = np.full(key.size + 2 * reach, -1, np.int64)
    padded[reach : reach + key.size] = key
    span = 1
    while span < width:
        step = min(span, width - span)
        padded = np.maximum(padded[: padded.size - step], padded[step:])
        span += step
    return padded


def _nth_largest(values: Ints, n: int) -> np.int64:
    return np.partition(values, values.size - n)[values.size - n]


def _best(gains: Ints, blocks: int) -> Ints:
    """Find the best gains; of equal ones the earliest, so that no pick comes without those it closed a gap over."""
    if gains.size <= blocks:
        return np.arange(gains.size)
    threshold = _nth_largest(gains, blocks)
    better = np.flatnonzero(gains > threshold)
    equal = np.flatnonzero(gains == threshold)
    return np.concatenate([better, equal[: blocks - better.size]])
