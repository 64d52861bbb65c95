"""What proposes plans: KerasTuner's oracles, whose proposals are made to meet the budget before they are tried."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np

from keras_prune import files
from keras_prune.mapping.policy import Policy
from keras_prune.mapping.space import Space, Values

# How often a proposal that was tried before is replaced by another one.
_ATTEMPTS = 3
_RANDOM_ATTEMPTS = 200
# Of the Bayesian oracle: noise of a reward and weight of the deviation, in variances and deviations of the rewards;
# plans drawn, and of how many of the best others near them.
_NOISE, _CURIOSITY = 1e-2, 1.5
_CANDIDATES, _NEAR_BEST = 64, 4
# The probability with which a policy that begins keeps each value of the best of the first plans. Few changes at a time
# are more likely to win than many.
_KEPT = 0.75
REWARD = "reward"
# What becomes of a trial's metrics in the names of those of a finalist.
_FINAL = "final_"


class PlanOracle(keras_tuner.Oracle):
    """The part that all oracles have in common: the first plans are given, others meet the budget, none comes twice.

    All that is random follows from the seed and a trial's number, so that a search which was interrupted goes on as it
    would have without.

    Args:
        space: of plans.
        starts: plans to begin with.
        trials: how many plans are tried.
        seed: of all that is random.
    """

    def __init__(self, space: Space, starts: Sequence[Values], trials: int, seed: int, **options: Any) -> None:
        super().__init__(
            objective=keras_tuner.Objective(REWARD, "max"),
            max_trials=trials,
            hyperparameters=_hyperparameters(space),
            seed=seed + 1,  # KerasTuner takes 0 for none
            **options,
        )
        self.space = space
        self.starts = list(starts)
        self.verbose = 0

    def propose(self, number: int, attempt: int) -> Values:
        """Return values for a trial, which need not meet the budget.

        Args:
            number: of the trial.
            attempt: how many proposals for it were tried before already.
        """
        raise NotImplementedError

    def accept(self, number: int) -> None:
        """Note that the trial runs with what was proposed last."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the values of a trial."""
        number = int(trial_id)
        # Reloaded trials come in the order of the file system.
        self.trials: dict[str, Any] = dict(sorted(self.trials.items(), key=lambda item: int(item[0])))
        if number < len(self.starts):
            return {"status": "RUNNING", "values": dict(self.starts[number])}
        for attempt in range(_ATTEMPTS):
            values = self.space.meet(self.propose(number, attempt))
            if not self._duplicate(values):
                self.accept(number)
                return {"status": "RUNNING", "values": values}
        rng = np.random.default_rng([self.seed, number])
        for _ in range(_RANDOM_ATTEMPTS):
            values = self.space.meet(
                {name: own[int(rng.integers(len(own)))] for name, own in self.space.choices.items()}
            )
            if not self._duplicate(values):
                return {"status": "RUNNING", "values": values}
        return {"status": "STOPPED", "values": None}

    def note_final(self, trial: Any, measured: dict[str, float], steps: int) -> None:
        """Keep with a trial what it came to as a finalist, trained for so many steps."""
        for name, value in measured.items():
            if not trial.metrics.exists(_FINAL + name):
                trial.metrics.register(_FINAL + name, direction="max")
            trial.metrics.update(_FINAL + name, value, step=steps)
        self._save_trial(trial)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        with files.replacing(self._get_oracle_fname()) as aside:
            super(keras_tuner.Oracle, self).save(str(aside))

    def reload(self) -> None:
        """Read the state; trials that were under way are run again."""
        super().reload()
        waiting = {*self.end_order, *self._retry_queue}
        self._retry_queue += sorted(set(self.trials) - waiting, reverse=True)

    def _save_trial(self, trial: Any) -> None:
        with files.replacing(Path(self._get_trial_dir(trial.trial_id)) / "trial.json") as aside:
            trial.save(str(aside))


class PolicyGradientOracle(PlanOracle):
    """A policy of one choice for each layer's structure and one for its zeros, learning by REINFORCE.

    It begins around the best of the first plans, and is led by each trial's reward against a running mean of those
    before. Only what was drawn is kept; the policy is computed anew from it and the rewards.

    Args:
        space, starts, trials, seed: see :class:`PlanOracle`.
        rate: step along the gradient, see :class:`keras_prune.mapping.policy.Policy`.
    """

    def __init__(self, space: Space, starts: Sequence[Values], trials: int, seed: int, rate: float = 0.5) -> None:
        super().__init__(space, starts, trials, seed)
        self.rate = rate
        self.drawn: dict[str, list[int]] = {}
        """The actions of each trial, by its number."""
        self._latest: list[int] = []

    def policy(self) -> Policy:
        """Return the policy as the trials that have ended taught it."""
        ended = [self.trials[key] for key in self.end_order if self.trials[key].score is not None]
        given = [trial for trial in ended if int(trial.trial_id) < len(self.starts)]
        first = max(given, key=lambda trial: float(trial.score)).hyperparameters.values if given else None
        policy = Policy(self._beginning(first or (self.starts[0] if self.starts else None)), self.rate)
        for trial in ended:
            actions = self.drawn.get(str(int(trial.trial_id)))
            if actions is None:
                policy.observe(float(trial.score))
            else:
                policy.learn(actions, float(trial.score))
        return policy

    def propose(self, number: int, attempt: int) -> Values:
        self._latest = self.policy().sample(np.random.default_rng([self.seed, number, attempt]))
        return {name: own[i] for (name, own), i in zip(self.space.choices.items(), self._latest, strict=True)}

    def accept(self, number: int) -> None:
        self.drawn[str(number)] = self._latest

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "rate": self.rate, "drawn": self.drawn}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.rate, self.drawn = state["rate"], state["drawn"]

    def _beginning(self, values: dict[str, Any] | None) -> list[list[float]]:
        logits = []
        for name, own in self.space.choices.items():
            at = own.index(values[name]) if values is not None else -1
            if at < 0 or len(own) == 1:
                logits.append([0.0] * len(own))
            elif isinstance(own[0], str):
                kept = math.log(_KEPT / (1.0 - _KEPT) * (len(own) - 1))
                logits.append([kept * (i == at) for i in range(len(own))])
            else:
                # Falling by the same factor r with each step: 1 + 2 (r + r^2 + ...) = 1 / kept.
                ratio = (1.0 - _KEPT) / (1.0 + _KEPT)
                logits.append([abs(i - at) * math.log(ratio) for i in range(len(own))])
        return logits


class BayesianOracle(PlanOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Bayesian optimisation: a Gaussian process of the rewards, upper confidence bound.

    The bound is looked for among plans that meet the budget, half of them near the best ones, half of them drawn from
    all, rather than in the unit cube, of which most points would be changed before they are tried.

    Args:
        space, starts, trials, seed: see :class:`PlanOracle`.
    """

    def __init__(self, space: Space, starts: Sequence[Values], trials: int, seed: int) -> None:
        super().__init__(space, starts, trials, seed, alpha=_NOISE, beta=_CURIOSITY)

    def propose(self, number: int, attempt: int) -> Values:
        rng = np.random.default_rng([self.seed, number, attempt])
        ended = completed(self.get_best_trials(len(self.trials)))
        candidates = [self.space.meet(self._drawn(rng)) for _ in range(_CANDIDATES)]
        for trial in ended[:_NEAR_BEST]:
            for _ in range(_CANDIDATES // _NEAR_BEST):
                candidates.append(self.space.meet(self._drawn(rng, near=trial.hyperparameters.values)))
        candidates = [values for values in candidates if not self._duplicate(values)] or candidates
        if len(ended) < 2:
            return candidates[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a length that is far from all others is no harm
            self.gpr.fit(*self._vectorize_trials())
        parts = self._nonfixed_space()
        points = np.array([[part.value_to_prob(values[part.name]) for part in parts] for values in candidates])
        mean, deviation = self.gpr.predict(points, return_std=True)
        return candidates[int(np.argmin(mean - self.beta * deviation))]

    def _make_gpr(self) -> Any:
        gpr = super()._make_gpr()
        return gpr.set_params(n_restarts_optimizer=2)  # of 20, which take longer than they win

    def _drawn(self, rng: np.random.Generator, near: Values | None = None) -> Values:
        """Draw values, or change about a quarter of those of a plan."""
        return {
            name: own[int(rng.integers(len(own)))] if near is None or rng.random() < 0.25 else near[name]
            for name, own in self.space.choices.items()
        }


ORACLES: dict[str, type[PlanOracle]] = {"policy_gradient": PolicyGradientOracle, "bayesian": BayesianOracle}
"""What ``plan(..., oracle=...)`` knows."""


def completed(trials: Iterable[Any]) -> list[Any]:
    """Return those of trials that have ended, the best first; of equal ones the earlier."""
    found = [trial for trial in trials if trial.status == "COMPLETED"]
    return sorted(found, key=lambda trial: (-float(trial.score), int(trial.trial_id)))


def final(trial: Any, steps: int) -> dict[str, float] | None:
    """Return what a trial came to as a finalist, or None if it was none with so many steps."""
    found = {
        name.removeprefix(_FINAL): float(seen.mean())
        for name, history in trial.metrics.metrics.items()
        if name.startswith(_FINAL)
        for seen in history.get_history()
        if seen.step == steps
    }
    return found or None


def _hyperparameters(space: Space) -> Any:
    found = keras_tuner.HyperParameters()
    for name, own in space.choices.items():
        found.Choice(name, own)
    return found
