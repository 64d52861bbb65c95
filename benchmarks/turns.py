"""Timing several things in turns in one process, so that what the machine does meanwhile meets all alike."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

WARM_UP = 2
"""Calls at the beginning of a turn that are not counted: the others have just used the caches."""
TURN_CALLS, TURN_SECONDS = 12, 0.1
"""A turn ends after so many calls, or so much time."""
PAUSE = 0.06
"""Seconds before a turn where threads are used. The last side's threads look out for work for tens of milliseconds
before they sleep, and would take the cores from this one's."""
DISTURBED = 1.04
"""A turn that takes so many times as long as the fastest do was disturbed."""


def time_in_turns(
    calls: Sequence[Callable[[], Any]], seconds: float, threads: int = 1, pause: float = 0.0
) -> list[list[float]]:
    """Time calls in turns.

    Args:
        calls: what to time.
        seconds: how long to go on, all together; each has three turns at least.
        threads: how many threads each of them uses.
        pause: seconds before each single call, in which threads fall asleep and caches are used by others: what an app
            has that looks at a camera's pictures. Without, calls follow each other.

    Returns:
        The seconds that each counted call took, a list for each of ``calls``.

    Example:
        >>> from benchmarks.turns import time_in_turns
        >>> [len(times) >= 3 for times in time_in_turns([lambda: sum(range(9)), lambda: max(range(9))], seconds=0.01)]
        [True, True]
    """
    return [list(itertools.chain.from_iterable(turns)) for turns in time_turns(calls, seconds, threads, pause)]


def time_turns(
    calls: Sequence[Callable[[], Any]], seconds: float, threads: int = 1, pause: float = 0.0
) -> list[list[list[float]]]:
    """The same as :func:`time_in_turns`, turn by turn: ``times[call][turn]`` are the seconds of that turn's calls.

    Example:
        >>> from benchmarks.turns import time_turns
        >>> [len(turn) for turn in time_turns([lambda: sum(range(9))], seconds=0.0)[0]]
        [12, 12, 12]
    """
    times: list[list[list[float]]] = [[] for _ in calls]
    end = time.monotonic() + seconds
    turns = 0
    while turns < 3 or time.monotonic() < end:
        for call, by_turn in zip(calls, times, strict=True):
            by_turn.append(kept := [])
            if threads > 1:
                time.sleep(PAUSE)
            for _ in range(0 if pause else WARM_UP):
                call()
            turn_end = time.perf_counter() + TURN_SECONDS
            for _ in range(TURN_CALLS):
                if pause:
                    time.sleep(pause)
                began = time.perf_counter()
                call()
                ended = time.perf_counter()
                kept.append(ended - began)
                if ended > turn_end:
                    break
        turns += 1
    return times


def median(turns: Sequence[Sequence[float]]) -> float:
    """The median of all calls of some turns.

    Example:
        >>> from benchmarks.turns import median
        >>> median([[1.0, 2.0], [9.0]])
        2.0
    """
    return statistics.median(itertools.chain.from_iterable(turns))


def undisturbed(turns: Sequence[Sequence[float]]) -> list[int]:
    """Which turns of one call ran about as fast as it ever does.

    A shared machine's processors are slower while others use their other half, and threads slower while the host has
    them where they share no cache. ``turns`` are best another side's than the one of interest, which is then not chosen
    by its own luck; what that side does not feel, or what lasts all the time, goes unnoticed.

    Args:
        turns: seconds of the calls of each turn.

    Returns:
        The indices of turns whose median is at most ``DISTURBED`` times that of the fastest tenth.

    Example:
        >>> from benchmarks.turns import undisturbed
        >>> undisturbed([[1.0, 9.0, 1.0], [1.03], [1.05], [2.0, 1.0, 2.0]])
        [0, 1]
    """
    medians = [statistics.median(turn) for turn in turns]
    fastest = sorted(medians)[len(medians) // 10]
    return [index for index, taken in enumerate(medians) if taken <= DISTURBED * fastest]
