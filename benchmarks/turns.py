"""Timing several things in turns in one process, so that what the machine does meanwhile meets all alike."""

from __future__ import annotations

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
    times: list[list[float]] = [[] for _ in calls]
    end = time.monotonic() + seconds
    turns = 0
    while turns < 3 or time.monotonic() < end:
        for call, kept in zip(calls, times, strict=True):
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
