"""The solver against all choices and against a bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_prune.mapping.options import RATES
from keras_prune.mapping.solver import solve


def brute_force(costs, losses, budget):
    best = None
    for choice in itertools.product(*(range(len(own)) for own in costs)):
        cost = sum(own[i] for own, i in zip(costs, choice, strict=True))
        loss = sum(own[i] for own, i in zip(losses, choice, strict=True))
        if cost <= budget and (best is None or loss < best):
            best = loss
    return best


@pytest.mark.parametrize("seed", range(40))
def test_solver_finds_the_optimum(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, rng.integers(1, 6))
    costs = [rng.integers(1, 20, size).tolist() if seed % 2 else rng.uniform(0, 9, size).tolist() for size in sizes]
    losses = [rng.uniform(0, 1, size).tolist() for size in sizes]
    budget = float(rng.uniform(0.6, 1.2) * sum(np.mean(own) for own in costs))
    wanted, found = brute_force(costs, losses, budget), solve(costs, losses, budget)
    if wanted is None:
        assert found is None
        return
    assert sum(own[i] for own, i in zip(costs, found, strict=True)) <= budget * (1 + 1e-9)
    assert sum(own[i] for own, i in zip(losses, found, strict=True)) == pytest.approx(wanted, abs=1e-12)


def test_solver_on_many_layers_stays_near_the_bound():
    rng = np.random.default_rng(0)
    zeros = np.array([0.0, *RATES])
    sizes = rng.uniform(0.1, 3.0, 80)
    costs = (sizes[:, None] * (1 - zeros)).tolist()
    losses = (rng.uniform(0.1, 1, 80)[:, None] * zeros**3).tolist()
    budget = 0.3 * sizes.sum()
    found = solve(costs, losses, budget)
    assert sum(own[i] for own, i in zip(costs, found, strict=True)) <= budget
    # The Lagrangian dual bounds the least loss from below.
    bound = max(
        sum(
            min(loss + price * cost for cost, loss in zip(*own, strict=True)) for own in zip(costs, losses, strict=True)
        )
        - price * budget
        for price in np.geomspace(1e-3, 10, 400)
    )
    assert sum(own[i] for own, i in zip(losses, found, strict=True)) <= 1.01 * bound


def test_solver_with_layers_that_have_no_choice():
    assert solve([[2.0], [3.0]], [[0.0], [0.0]], 5.0) == [0, 0]
    assert solve([[2.0], [3.0]], [[0.0], [0.0]], 4.9) is None
