"""What a search chooses from, as named values, and how a proposal is made to meet a budget."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

from keras_prune.mapping.options import RATES, Option
from keras_prune.tflite.layer import DENSE

Values = dict[str, str | int]
"""Of each layer with a choice: its scheme, by ``"<path> structure"``, and its zeros in per cent, ``"<path> zeros"``."""

LEVELS = (0, *(round(100 * rate) for rate in RATES))
"""Zeros in per cent."""


@dataclasses.dataclass(frozen=True)
class Space:
    """All plans of a model.

    Args:
        paths: of the layers.
        options: of each layer: dense first, then each scheme's by rising zeros and falling cost.
        costs: of the same options.
        budget: that the sum of costs may not exceed.

    Example:
        >>> from keras_prune.mapping.options import Option
        >>> dense, sparse = Option("dense", 0.0, 4.0, 0.0, 64, ()), Option("unaligned_block:4", 0.8, 1.0, 0.1, 64, ())
        >>> space = Space(["one"], [[dense, sparse]], [[4.0, 1.0]], budget=2.0)
        >>> space.meet({"one structure": "unaligned_block:4", "one zeros": 0})
        {'one structure': 'unaligned_block:4', 'one zeros': 80}
    """

    paths: Sequence[str]
    options: Sequence[Sequence[Option]]
    costs: Sequence[Sequence[float]]
    budget: float = math.inf

    @functools.cached_property
    def choices(self) -> dict[str, list[str] | list[int]]:
        """Map each name to its possible values."""
        found: dict[str, list[str] | list[int]] = {}
        for path, ladders in zip(self.paths, self._ladders, strict=True):
            if ladders:
                found[_structure(path)] = list(ladders)
                found[_zeros(path)] = list(LEVELS)
        return found

    def chosen(self, values: Mapping[str, str | int]) -> list[int]:
        """Return the index of each layer's option: the least zeros of its scheme that are no less than the value's."""
        return self._picked(*self._read(values), shift=0)

    def values(self, chosen: Sequence[int]) -> Values:
        """Return the values of options, the reverse of :meth:`chosen`."""
        found: Values = {}
        for path, options, ladders, i in zip(self.paths, self.options, self._ladders, chosen, strict=True):
            if ladders:
                # What scheme a layer without zeros would have is of no matter: two plans alike have values alike.
                found[_structure(path)] = options[i].scheme if options[i].scheme != DENSE else next(iter(ladders))
                found[_zeros(path)] = round(100 * options[i].zeros)
        return found

    def nearest(self, options: Sequence[Option]) -> Values:
        """Return the values of the plan nearest to options that need not be among this space's own."""
        proposed: Values = {}
        for path, option, ladders in zip(self.paths, options, self._ladders, strict=True):
            if ladders:
                proposed[_structure(path)] = option.scheme if option.scheme in ladders else next(iter(ladders))
                proposed[_zeros(path)] = round(100 * option.zeros)
        return self.values(self.chosen(proposed))

    def uniform(self, scheme: str) -> Values:
        """Give all layers that can have it one scheme, with zeros that :meth:`meet` will raise; others stay dense."""
        chosen = [ladders[scheme][1] if scheme in ladders else 0 for ladders in self._ladders]
        return self.values(chosen)

    def meet(self, values: Mapping[str, str | int]) -> Values:
        """Return the plan nearest to a proposal that just meets the budget.

        All layers' zeros are raised or lowered by the same number of steps until the costs just fit. Schemes that are
        too slow even with the most zeros are replaced, those first that save most. What is left of the budget goes to
        the layers that win most by fewer zeros. Without a budget only values that make no difference are made alike.
        """
        schemes, levels = self._read(values)
        if math.isinf(self.budget):
            return self.values(self._picked(schemes, levels, shift=0))
        picked: list[int] = []
        for shift in range(-len(LEVELS), len(LEVELS) + 1):
            picked = self._picked(schemes, levels, shift)
            if self.cost(picked) <= self.budget:
                break
        while self.cost(picked) > self.budget:
            cheapest = [min(range(len(costs)), key=costs.__getitem__) for costs in self.costs]
            saved = [costs[i] - costs[j] for costs, i, j in zip(self.costs, picked, cheapest, strict=True)]
            most = max(range(len(saved)), key=saved.__getitem__)
            if saved[most] <= 0.0:
                break  # no plan meets it
            picked[most] = cheapest[most]
        return self.values(self._filled(picked))

    def cost(self, chosen: Sequence[int]) -> float:
        """Sum the costs of options."""
        return sum(costs[i] for costs, i in zip(self.costs, chosen, strict=True))

    def loss(self, values: Mapping[str, str | int]) -> float:
        """Sum the predicted losses of a plan."""
        return sum(options[i].loss for options, i in zip(self.options, self.chosen(values), strict=True))

    @functools.cached_property
    def _ladders(self) -> list[dict[str, list[int]]]:
        """Of each layer and scheme, the indices of its options by rising zeros, dense first."""
        found = []
        for options in self.options:
            ladders: dict[str, list[int]] = {}
            for i, option in enumerate(options):
                if option.scheme != DENSE:
                    ladders.setdefault(option.scheme, [0]).append(i)
            found.append(ladders)
        return found

    def _read(self, values: Mapping[str, str | int]) -> tuple[list[str], list[int]]:
        """Return each layer's scheme and the place of its zeros in LEVELS."""
        schemes, levels = [], []
        for path, ladders in zip(self.paths, self._ladders, strict=True):
            schemes.append(str(values[_structure(path)]) if ladders else DENSE)
            levels.append(LEVELS.index(int(values[_zeros(path)])) if ladders else 0)
        return schemes, levels

    def _picked(self, schemes: Sequence[str], levels: Sequence[int], shift: int) -> list[int]:
        picked = []
        for options, ladders, scheme, level in zip(self.options, self._ladders, schemes, levels, strict=True):
            ladder = ladders.get(scheme, [0])
            wanted = LEVELS[min(max(level + shift, 0), len(LEVELS) - 1)]
            picked.append(next((i for i in ladder if round(100 * options[i].zeros) >= wanted), ladder[-1]))
        return picked

    def _filled(self, picked: list[int]) -> list[int]:
        """Lower zeros where it wins most for its cost, as long as the budget allows."""
        left = self.budget - self.cost(picked)
        while True:
            best: tuple[float, int, int] | None = None
            for layer, (options, costs, ladders) in enumerate(
                zip(self.options, self.costs, self._ladders, strict=True)
            ):
                i = picked[layer]
                ladder = ladders.get(options[i].scheme, [0])
                if i == 0:
                    continue
                fewer = ladder[ladder.index(i) - 1]
                more = costs[fewer] - costs[i]
                won = (options[i].loss - options[fewer].loss) / max(more, 1e-12)
                if more <= left and (best is None or won > best[0]):
                    best = (won, layer, fewer)
            if best is None:
                return picked
            _, layer, fewer = best
            left -= self.costs[layer][fewer] - self.costs[layer][picked[layer]]
            picked[layer] = fewer


def _structure(path: str) -> str:
    return f"{path} structure"


def _zeros(path: str) -> str:
    return f"{path} zeros"
