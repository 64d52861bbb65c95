"""The policy that searches propose by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_prune.mapping.policy import Policy


def test_gradient_of_the_policy_by_finite_differences():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=n) for n in (3, 1, 5)]
    actions = [2, 0, 1]
    gradient = Policy(logits).gradient(actions)
    for i, j in [(i, j) for i, own in enumerate(logits) for j in range(len(own))]:
        change = 1e-6
        moved = []
        for sign in (1, -1):
            shifted = [own.copy() for own in logits]
            shifted[i][j] += sign * change
            # By its definition, not by the class.
            moved.append(sum(own[a] - math.log(np.exp(own).sum()) for own, a in zip(shifted, actions, strict=True)))
        assert gradient[i][j] == pytest.approx((moved[0] - moved[1]) / (2 * change), abs=1e-7)
    assert Policy(logits).log_probability(actions) == pytest.approx(
        sum(own[a] - math.log(np.exp(own).sum()) for own, a in zip(logits, actions, strict=True))
    )


def test_policy_learns_what_is_rewarded():
    policy, rng = Policy([np.zeros(4), np.zeros(3)]), np.random.default_rng(0)
    drawn = np.array([policy.sample(rng) for _ in range(2000)])
    assert np.abs(np.bincount(drawn[:, 0]) / 2000 - 0.25).max() < 0.05
    for _ in range(150):
        actions = policy.sample(rng)
        policy.learn(actions, float(actions[0] == 3) + 0.5 * float(actions[1] == 1) + rng.normal(0, 0.1))
    assert policy.probabilities(0).argmax() == 3 and policy.probabilities(1).argmax() == 1
    assert policy.probabilities(0)[3] > 0.9
    # Rewards that are all equal teach nothing.
    level = Policy([np.zeros(2)])
    for _ in range(5):
        level.learn([1], 0.3)
    assert level.probabilities(0)[1] == 0.5
