"""One option for each layer: the least loss within a budget of cost (the multiple-choice knapsack problem)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Partial choices kept after each layer. Up to so many the answer is exact.
_MOST = 2000


def solve(costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float) -> list[int] | None:
    """Choose an option for each layer so that the costs together are within a budget and the losses least.

    Layer by layer, of all choices so far those are kept that no other beats in both cost and loss. Where they are more
    than 2000, only the best of each of 2000 equal steps of cost is, which the last layers even out again.

    Args:
        costs: of each layer's options.
        losses: of the same options.
        budget: that the sum of costs may not exceed.

    Returns:
        The index of each layer's option, or None if even the cheapest ones exceed the budget.

    Example:
        >>> solve([[4.0, 1.0], [4.0, 2.0]], [[0.0, 0.3], [0.0, 0.1]], budget=6.0)
        [0, 1]
    """
    cost, loss = np.zeros(1), np.zeros(1)
    history: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    cheapest = [min(options) for options in costs]
    for i, (own_costs, own_losses) in enumerate(zip(costs, losses, strict=True)):
        rest = sum(cheapest[i + 1 :])
        all_costs = np.add.outer(cost, np.asarray(own_costs)).ravel()
        all_losses = np.add.outer(loss, np.asarray(own_losses)).ravel()
        feasible = np.flatnonzero(all_costs + rest <= budget * (1 + 1e-12))
        if feasible.size == 0:
            return None
        order = feasible[np.lexsort((all_losses[feasible], all_costs[feasible]))]
        falling = np.minimum.accumulate(all_losses[order])
        better = np.ones(order.size, bool)
        better[1:] = all_losses[order][1:] < falling[:-1]
        order = order[better]
        if order.size > _MOST:
            steps = np.linspace(all_costs[order[0]], all_costs[order[-1]], _MOST)
            # Of each step the dearest choice, which on the front has the least loss; and the cheapest of all.
            last = np.searchsorted(all_costs[order], steps, side="right") - 1
            order = order[np.unique(last)]
        history.append(np.divmod(order, len(own_costs)))
        cost, loss = all_costs[order], all_losses[order]
    at = int(np.argmin(loss))
    chosen = []
    for before, option in reversed(history):
        chosen.append(int(option[at]))
        at = int(before[at])
    return chosen[::-1]
