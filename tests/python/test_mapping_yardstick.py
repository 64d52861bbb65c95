"""Times on a machine whose speed changes: the machine is a fake whose true times are known."""

from __future__ import annotations

import random

import numpy as np
import pytest

from keras_prune.mapping.yardstick import at_reference, in_turns, reference

COMPUTING, MOVING = 160e-6, 440e-6
"""Seconds of the yardsticks on the machine at its quickest."""


class Machine:
    """Its clock stands still but for runs. Each state, of the slow-downs of computing and moving, lasts a while."""

    def __init__(self, states, lasting=0.07, seed=0):
        self.now, self._random, self._lasting = 0.0, random.Random(seed), lasting
        self._states, self._until = states, 0.0
        self.slept = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept += seconds

    def thing(self, computing, moving):
        """Something that takes so many seconds for each at full speed."""

        def run():
            left = 1.0 + (3.0 if self._random.random() < 0.02 else 0.02 * self._random.random())
            while left > 1e-9:
                if self.now >= self._until:
                    self._state = self._random.choice(self._states)
                    self._until = self.now + self._lasting * self._random.uniform(0.2, 1.8)
                whole = computing * self._state[0] + moving * self._state[1]
                passed = min(left * whole, max(self._until - self.now, 1e-9))
                self.now += passed
                left -= passed / whole

        return run

    def measured(self, things, seconds=3.0, quick=(COMPUTING, MOVING)):
        yardsticks = [self.thing(COMPUTING, 0.0), self.thing(0.0, MOVING)]
        calls = [self.thing(*thing) for thing in things]
        times = in_turns(calls, yardsticks, seconds, clock=self.clock, sleep=self.sleep)
        return [at_reference(own, beside, np.array(quick)) for own, beside in times]


THINGS = [(3e-4, 0.0), (0.0, 2e-3), (2e-4, 3e-4), (5e-3, 1e-3), (1e-5, 2e-5), (0.05, 0.02)]
"""Seconds of computing and of moving."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "states",
    [[(1.0, 1.0)], [(1.0, 1.0), (2.0, 1.2)], [(1.0, 1.0), (1.6, 1.1), (2.1, 1.3)], [(1.05, 1.0), (1.5, 1.3), (2, 2)]],
)
def test_times_are_those_of_the_quick_machine(states, seed):
    found = Machine(states, seed=seed).measured(THINGS)
    assert found == pytest.approx([sum(thing) for thing in THINGS], rel=0.06)


def test_a_machine_that_was_never_quick_meanwhile():
    found = Machine([(1.6, 1.15), (2.0, 1.25)]).measured(THINGS)
    assert found == pytest.approx([sum(thing) for thing in THINGS], rel=0.25)
    # The same thing, measured while the machine was quick and while it was not.
    raw = 2.0 * 3e-4
    assert abs(found[0] / 3e-4 - 1.0) < abs(raw / 3e-4 - 1.0) / 4


def test_ratios_hold_where_the_speed_never_changes():
    # All is twice as slow throughout: nothing tells the yardsticks' shares apart, and nothing needs to.
    found = Machine([(2.0, 2.0)]).measured(THINGS)
    assert found == pytest.approx([sum(thing) for thing in THINGS], rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_runs_that_last_longer_than_a_speed_of_the_machine(seed):
    machine = Machine([(1.0, 1.0), (1.5, 1.25), (2.0, 1.6)], lasting=0.3, seed=seed)
    (found,) = machine.measured([(0.25, 0.05)], seconds=30.0)
    assert found == pytest.approx(0.3, rel=0.1)


def test_reference_is_the_quickest_speed():
    machine = Machine([(1.0, 1.0), (2.0, 1.2), (2.0, 1.2)])
    yardsticks = [machine.thing(COMPUTING, 0.0), machine.thing(0.0, MOVING)]
    assert reference(yardsticks, 3.0, clock=machine.clock) == pytest.approx([COMPUTING, MOVING], rel=0.03)


def test_each_run_stands_between_yardsticks():
    log, now = [], [0.0]

    def thing(name, seconds):
        def run():
            log.append(name)
            now[0] += seconds

        return run

    calls = [thing("a", 3.0), thing("b", 200.0)]
    yardsticks = [thing("x", 1.0), thing("y", 2.0)]
    slept = []
    times = in_turns(calls, yardsticks, 0.0, threads=2, clock=lambda: now[0], sleep=slept.append)
    # First each once, and each yardstick once more before it counts.
    assert "".join(log).startswith("abxy" + "xxyya" + "xxyyb") and len(slept) == 8
    assert "".join(log).endswith("b" + "xxyy" * 4)  # the longer a run, the more of them
    for (own, beside), seconds in zip(times, (3.0, 200.0), strict=True):
        assert own.tolist() == [seconds] * 4 and beside.tolist() == [[1.0, 2.0]] * 4
