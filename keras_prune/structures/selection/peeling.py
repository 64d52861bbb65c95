"""Greedy picking of windows, many at a time.

Greedy and BED both repeat "take the best window of all". Two facts let a whole round of picks be made at once with the
same result:

* A window that is better than every window it overlaps will be taken before anything near it changes, whatever happens
  elsewhere. So all such local maxima can be taken together.
* Taking window M and closing the gap replaces a window that began n entries to its left by one made of those n
  entries and the B - n entries to the right of M. Those were no better than M's first B - n, or M would not have been a
  maximum, so window sums never grow. Hence gains fall along every chain of picks, and the picks of the sequential
  algorithm's first m steps are the m best gains.

The second fact also says that a window below the m-th best gain so far never matters again, so the arrays shrink fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_prune.structures.selection.fixed_point import quantize

_TIE_BITS = 20


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
    # Room for a sum of B values and the tie breaker below the sign bit.
    bits = 62 - _TIE_BITS - int(block).bit_length()
    values = np.concatenate([q.T.ravel() for q in quantize(magnitudes, bits)])
    heights = np.concatenate([np.full(m.shape[1], m.shape[0]) for m in magnitudes])
    segment = np.repeat(np.arange(heights.size, dtype=np.int64), heights)
    position = np.arange(values.size, dtype=np.int64)

    picked: list[npt.NDArray[np.int64]] = []
    gains: list[npt.NDArray[np.int64]] = []
    count = 0
    floor = -1  # A window must beat this to matter.
    while blocks > 0 and values.size >= block:
        windows = values.size - block + 1
        sums = _window_sums(values, block)
        live = (segment[:windows] == segment[block - 1 :]) & (sums > floor)
        # Equal sums are ordered by an even scattering of the rows, so that a plateau has many local maxima.
        tie = (position[:windows] * 0x9E375) & ((1 << _TIE_BITS) - 1)
        key = np.where(live, (sums << _TIE_BITS) | tie, -1)
        top = np.flatnonzero(live & (key == _neighbourhood_max(key, block)))
        if top.size == 0:
            break
        entries = top[:, None] + np.arange(block)
        picked.append(position[entries])
        gains.append(sums[top])
        count += top.size
        if count >= blocks:
            floor = int(_nth_largest(np.concatenate(gains), blocks))

        taken = np.zeros(values.size, bool)
        taken[entries.ravel()] = True
        near = np.zeros(values.size, bool)
        live &= sums > floor
        for offset in range(block):
            near[offset : offset + windows] |= live
        keep = near & ~taken
        # Entries dropped as hopeless must not let their neighbours meet; taken ones must, when bridging.
        wall = ~near & ~taken if bridge else ~keep
        segment = (segment + np.cumsum(wall))[keep]
        values = values[keep]
        position = position[keep]

    flat = np.zeros(int(sum(m.size for m in magnitudes)), bool)
    if count:
        all_gains, all_picks = np.concatenate(gains), np.concatenate(picked)
        flat[all_picks[_best(all_gains, blocks)].ravel()] = True
    masks, start = [], 0
    for m in magnitudes:
        rows, columns = m.shape
        masks.append(np.ascontiguousarray(flat[start : start + m.size].reshape(columns, rows).T))
        start += m.size
    return masks


def _window_sums(values: npt.NDArray[np.int64], block: int) -> npt.NDArray[np.int64]:
    windows = values.size - block + 1
    sums = values[:windows].copy()
    for offset in range(1, block):
        sums += values[offset : offset + windows]
    return sums


def _neighbourhood_max(key: npt.NDArray[np.int64], block: int) -> npt.NDArray[np.int64]:
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


def _nth_largest(values: npt.NDArray[np.int64], n: int) -> np.int64:
    return np.partition(values, values.size - n)[values.size - n]


def _best(gains: npt.NDArray[np.int64], blocks: int) -> npt.NDArray[np.int64]:
    """Find the best gains; of equal ones the earliest, so that no pick comes without those it closed a gap over."""
    if gains.size <= blocks:
        return np.arange(gains.size)
    threshold = _nth_largest(gains, blocks)
    better = np.flatnonzero(gains > threshold)
    equal = np.flatnonzero(gains == threshold)
    return np.concatenate([better, equal[: blocks - better.size]])
