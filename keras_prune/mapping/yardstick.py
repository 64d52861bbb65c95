"""Timing on a machine whose speed changes meanwhile: beside each run of a thing, runs of two small fixed layers.

What else a machine does, and other guests of the same physical cores, slow computing down by up to a factor of two for
moments or minutes, and memory by less. One *yardstick* is a layer that only computes, the other one that only moves
data. Their times tell how slow the machine is at a moment; all others are slowed down by a mixture of both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

YARDSTICKS = ("conv 28x28x32 32 3x3 1 dense 0", "add 112x112x32")
"""The layer that computes and the one that moves data, beyond a second-level cache."""

_QUANTILE = 0.05
_MIN_ROUNDS = 4
# Yardsticks take at least this part of the time of what they stand beside.
_PART = 0.1
# Worker threads look out for work for tens of milliseconds before they sleep.
_PAUSE = 0.06
# Slow-downs in factors of e: runs nearer to the reference than this count most.
_NEAR = 0.3
# Seconds that a machine goes on at one speed, about.
_LASTING = 0.02
# How much more probable a mixture of both slow-downs is than one alone.
_MIXED = 0.3

# Deviations in factors of e from which a run was interrupted by something else.
_INTERRUPTED = 0.7

Times = npt.NDArray[np.float64]


def in_turns(
    calls: Sequence[Callable[[], Any]],
    yardsticks: Sequence[Callable[[], Any]],
    seconds: float,
    *,
    threads: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[tuple[Times, Times]]:
    """Run things one after the other, each between runs of the yardsticks, again and again.

    Args:
        calls: what to time.
        yardsticks: to run between them; they use one thread.
        seconds: how long to go on, all together; four rounds at least.
        threads: how many threads each of ``calls`` uses.
        clock: seconds.
        sleep: waits for some.

    Returns:
        For each call the seconds of its runs, of shape (runs,), and those of the yardsticks around each of them, of
        shape (runs, yardsticks).
    """
    for call in (*calls, *yardsticks):
        call()  # the first run of each prepares memory

    def again(yardstick: Callable[[], Any]) -> float:
        yardstick()  # what else ran has left the caches in one state or another
        return _seconds(yardstick, clock)

    def stand_by(least: float) -> list[float]:
        taken: list[list[float]] = []
        end = clock() + least
        while not taken or clock() < end:
            taken.append([again(yardstick) for yardstick in yardsticks])
        return [float(np.median(own)) for own in zip(*taken, strict=True)]

    own: list[list[float]] = [[] for _ in calls]
    beside: list[list[float]] = []
    end = clock() + seconds
    rounds = 0
    while rounds < _MIN_ROUNDS or clock() < end:
        for call, kept in zip(calls, own, strict=True):
            if threads > 1:
                sleep(_PAUSE)
            beside.append(stand_by(_PART * kept[-1] if kept else 0.0))
            kept.append(_seconds(call, clock))
        rounds += 1
    beside.append(stand_by(_PART * own[-1][-1]))
    around = np.array(beside)
    around = (around[:-1] + around[1:]) / 2
    return [(np.array(kept), around[i :: len(calls)]) for i, kept in enumerate(own)]


def reference(
    yardsticks: Sequence[Callable[[], Any]], seconds: float, *, clock: Callable[[], float] = time.perf_counter
) -> Times:
    """Return the yardsticks' seconds, shape (yardsticks,), when the machine is as quick as it gets for so long."""
    _, beside = in_turns([lambda: None], yardsticks, seconds, clock=clock)[0]
    return np.asarray(np.quantile(beside, _QUANTILE, axis=0))


def at_reference(own: Times, beside: Times, quick: Times) -> float:
    """Tell how long a thing takes where the yardsticks take their reference times.

    Its slow-down is taken for ``s`` times that of the one yardstick and ``1 - s`` times that of the other. ``s`` is
    what explains its runs best; where all of them met the same slow-down, nothing tells, and ``s`` is a half.

    Args:
        own: seconds of its runs, shape (runs,).
        beside: of the two yardsticks around each run, shape (runs, 2).
        quick: their reference times, shape (2,).

    Returns:
        Seconds.

    Example:
        >>> import numpy as np
        >>> slow = np.array([[1.0, 1.0], [2.0, 1.2], [1.6, 1.1]])  # a machine in three states
        >>> round(at_reference(0.005 * slow[:, 0], 0.0001 * slow, np.array([0.0001, 0.0001])), 4)
        0.005
    """
    slow = beside / quick
    # Far from the reference, what is wrong with the mixture would count for more. A long run meets other speeds than
    # the yardsticks around it: to choose it by what they tell would mislead.
    longer = max(1.0, float(np.median(own)) / _LASTING)
    counts = np.exp(-np.square(np.log(slow)).sum(axis=1) / (2 * (longer * _NEAR) ** 2)) + 1e-6
    best, least = 0.0, np.inf
    for share in np.linspace(0.0, 1.0, 21):
        mixture = slow @ [share, 1.0 - share]
        found = np.log(own / mixture)
        away = np.abs(found - _median(found, counts))
        # The deviations of all runs by chance are hundredths: less is no better.
        loss = np.log(counts @ away / counts.sum() + 1e-2) + longer * _MIXED * (share - 0.5) ** 2
        if loss < least:
            kept = counts * (away < _INTERRUPTED)
            best, least = float(kept @ own / (kept @ mixture)), loss
    return best


def _seconds(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    call()
    return clock() - began


def _median(values: Times, counts: Times) -> float:
    order = np.argsort(values)
    sums = np.cumsum(counts[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])
