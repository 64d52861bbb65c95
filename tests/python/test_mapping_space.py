"""What a search chooses from, and how proposals are made to meet the budget."""

from __future__ import annotations

import numpy as np
import pytest

from keras_prune.mapping.options import Option
from keras_prune.mapping.space import LEVELS, Space

SCHEMES = ("unaligned_block:2", "unaligned_block:8", "block_punched:8x4")
RATES = (0.5, 0.6, 0.7)


@pytest.mark.parametrize("seed", range(20))
def test_proposals_are_made_to_meet_the_budget(seed):
    rng = np.random.default_rng(seed)
    options = []
    for _ in range(int(rng.integers(1, 5))):
        own = [Option("dense", 0.0, 1.0, 0.0, 100, ())]
        for scheme in SCHEMES[: int(rng.integers(0, 4))]:
            slow = rng.uniform(0.5, 0.9)
            own += [
                Option(scheme, z, slow * (1 - z), z**2, 100, ()) for z in sorted(rng.choice(RATES, 2, replace=False))
            ]
        options.append(own)
    costs = [[option.ms for option in own] for own in options]
    least, most = sum(min(own) for own in costs), sum(own[0] for own in costs)
    space = Space([f"l{i}" for i in range(len(options))], options, costs, float(rng.uniform(least, most)))
    for _ in range(20):
        drawn = {name: own[int(rng.integers(len(own)))] for name, own in space.choices.items()}
        met = space.meet(drawn)
        chosen = space.chosen(met)
        assert space.cost(chosen) <= space.budget and space.values(chosen) == met == space.meet(met)
        # No layer could have fewer zeros.
        for own, i in zip(options, chosen, strict=True):
            fewer = [o.ms for o in own if o.scheme in (own[i].scheme, "dense") and o.zeros < own[i].zeros]
            assert all(space.cost(chosen) - own[i].ms + ms > space.budget for ms in fewer)
    assert Space([], [], []).choices == {}


def test_levels_are_those_of_plans():
    assert LEVELS == (0, 50, 60, 70, 75, 80, 85, 90, 95)
