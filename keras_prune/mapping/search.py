"""The best plan found by trying plans: on KerasTuner, with its results on disk, its resuming and its workers."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_prune import files
from keras_prune.mapping import rules
from keras_prune.mapping.options import Option, Workload, every_option, rule_options
from keras_prune.mapping.plan import Plan, Target, assemble
from keras_prune.mapping.quick import QuickAccuracy
from keras_prune.mapping.sensitivity import Sensitivity
from keras_prune.mapping.solver import solve
from keras_prune.mapping.space import Space, Values

ORACLES = ("policy_gradient", "bayesian")
# Where a search for the least latency begins: between dense and the fastest, in logarithms of the latency.
_STARTS = (0.25, 0.5, 0.75)
_FEWEST_STARTS = 2
# How many times the steps of a trial a finalist is trained for.
_LONGER = 4


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class Search:
    """How to search; the arguments of ``plan(..., method="search")``.

    The first trials, a quarter at most, are the plan of the rules, the plans with the least sum of squares of predicted
    losses and of these losses over all structures and blocks, and single structures and blocks in all layers; the
    oracle proposes the others. A proposal is changed as little as it takes to meet the target before it is tried.

    The best of many short trainings is partly luck. The best few plans, that of the rules always among them, are
    therefore trained again, longer and on other samples, and the best of these *finalists* is returned: one halving, to
    fewer plans and more steps each, of Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
    Hyperparameter Optimization", AISTATS 2016. Where the least latency is searched for, half of the finalists are plans
    that are faster still and lost little too much in the short training; if all finalists lose too much, the plans next
    to them become finalists until one does not.

    Results are kept in ``directory``; the same call goes on where it was interrupted, or with more ``trials``. The best
    plan so far is always in its ``best.json``. Several machines search together as KerasTuner's documentation says, by
    the environment variables ``KERASTUNER_TUNER_ID``, ``KERASTUNER_ORACLE_IP`` and ``KERASTUNER_ORACLE_PORT``; the
    chief's call trains the finalists and returns the best plan of all, a worker's call the best of those that were
    known when its last trial ended.

    Args:
        train, validation: data, see :class:`keras_prune.mapping.QuickAccuracy`; the model must be compiled.
        accuracy: a function of the plan that returns the accuracy to expect, a fraction, instead of the two. Then there
            are finalists only if ``final_accuracy`` is given too.
        oracle: ``"policy_gradient"`` or ``"bayesian"``; the latter needs scikit-learn too.
        trials: how many plans are tried.
        directory: where results are kept.
        seed: of the proposals and of the training samples; the same seed gives the same plan.
        steps, batch_size, metric: see :class:`keras_prune.mapping.QuickAccuracy`.
        finalists: how many plans are trained longer at the end; with 0 or 1 none is.
        final_steps: training steps of each finalist; by default four times ``steps``. None is trained if these are no
            more than ``steps``.
        final_accuracy: a function such as ``accuracy``, more exact and dearer, to measure finalists with instead. Its
            results are kept as those of ``final_steps``.
        progress: called with a line of text for each trial; by default it is printed to standard error.

    Raises:
        ValueError: data are missing, or an argument is out of range.

    Example:
        >>> import keras, tempfile
        >>> from keras_prune import mapping
        >>> model = keras.Sequential([keras.Input([8, 8, 16]), *(keras.layers.Conv2D(16, 1) for _ in range(4))])
        >>> layer = mapping.Layer("conv", 8, 8, 16, 16)
        >>> entries = {mapping.Point(layer): 10.0, mapping.Point(layer, "unaligned_block:4", 0.8): 3.0}
        >>> table = mapping.LatencyTable(entries, mapping.cpu_name(), "0.1.0")
        >>> made = mapping.plan(
        ...     model, "1.3x", table, method="search", accuracy=lambda plan: 0.9 - 0.1 * plan.zeros, trials=5,
        ...     directory=tempfile.mkdtemp(), progress=lambda line: None, force=True,
        ... )
        >>> made.dense_ms / made.predicted_ms >= 1.3
        True
    """

    train: Any = None
    validation: Any = None
    accuracy: Callable[[Plan], float] | None = None
    oracle: str = "policy_gradient"
    trials: int = 50
    directory: str | os.PathLike[str] = "plan-search"
    seed: int = 0
    steps: int = 100
    batch_size: int = 64
    metric: str = "accuracy"
    finalists: int = 4
    final_steps: int | None = None
    final_accuracy: Callable[[Plan], float] | None = None
    progress: Callable[[str], None] = _say

    def __post_init__(self) -> None:
        if self.accuracy is None and (self.train is None or self.validation is None):
            raise ValueError(
                "a search trains and evaluates plans: give train=(inputs, targets) and validation=(inputs, targets)"
            )
        if self.oracle not in ORACLES:
            raise ValueError(f"oracle must be one of {', '.join(ORACLES)}, but is {self.oracle!r}")
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, but is {self.trials}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")
        if self.finalists < 0:
            raise ValueError(f"finalists must not be negative, but is {self.finalists}")


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be planned; as for :func:`keras_prune.mapping.plan`."""

    model: Any
    target: str | float
    wanted: Target
    workload: Workload
    given: rules.Given
    max_zeros: float
    sensitivity: Sensitivity | None

    def options(self, make: Callable[..., list[Option]]) -> list[list[Option]]:
        """List what each layer could get."""
        return [
            make(weight, calls, self.given, self.max_zeros, self.sensitivity) for weight, calls in self.workload.layers
        ]

    def plan(self, chosen: Sequence[Option]) -> Plan:
        """Make a plan of one option for each layer."""
        return assemble(self.target, self.given.table, self.workload, chosen)


def run(problem: Problem, settings: Search) -> Plan:
    """Search for a plan.

    Raises:
        ValueError: the target cannot be met, no plan that was tried met it, or the directory holds another search.
        ImportError: KerasTuner is not installed.
    """
    oracles, tuner = _keras_tuner(settings.oracle)
    space = make_space(problem)
    starts = first_plans(problem, space)[: max(_FEWEST_STARTS, settings.trials // 4)]
    accuracy, final_accuracy, final_steps = _measures(problem, settings)
    directory = Path(settings.directory)
    _claim(directory, problem, space, settings)
    oracle = oracles.ORACLES[settings.oracle](space, starts, settings.trials, settings.seed)
    dense = problem.plan([own[0] for own in space.options])
    goal = Goal(problem.wanted, accuracy, dense)
    finals = Finals(Goal(problem.wanted, final_accuracy, dense), final_steps) if final_accuracy is not None else None
    searcher = tuner.PlanTuner(oracle, problem, space, goal, finals, directory, settings)
    try:
        searcher.search()
    except KeyboardInterrupt:
        settings.progress(f"search: interrupted; the same call goes on. {searcher.told_best()}")
        raise
    finally:
        if isinstance(accuracy, QuickAccuracy):
            accuracy.release()
    best: Plan = searcher.best()
    return best


Accuracy = Callable[[Plan], float]


def _measures(problem: Problem, settings: Search) -> tuple[Accuracy, Accuracy | None, int]:
    """Return what measures plans, what measures finalists if any, and the latter's steps."""
    steps = settings.final_steps if settings.final_steps is not None else _LONGER * settings.steps
    accuracy, longer = settings.accuracy, settings.final_accuracy
    if accuracy is None:
        accuracy = QuickAccuracy(
            problem.model,
            settings.train,
            settings.validation,
            steps=settings.steps,
            batch_size=settings.batch_size,
            metric=settings.metric,
            seed=settings.seed,
        )
        if longer is None and steps > settings.steps:
            longer = accuracy.longer(steps, seed=settings.seed + 1)
    return accuracy, longer if settings.finalists > 1 else None, steps


@dataclasses.dataclass
class Goal:
    """What is better: more accuracy within a budget, or less latency within a loss of accuracy.

    Args:
        wanted: the target.
        accuracy: of a plan.
        dense: the plan that leaves all layers dense.
    """

    wanted: Target
    accuracy: Callable[[Plan], float]
    dense: Plan
    _reference: float | None = None

    def measure(self, plan: Plan) -> dict[str, float]:
        """Return accuracy, latency and reward of a plan."""
        accuracy = float(self.accuracy(plan))
        reward = accuracy
        if self.wanted.kind == "points":
            if self._reference is None:
                self._reference = float(self.accuracy(self.dense))
            excess = 100.0 * (self._reference - accuracy) - self.wanted.value
            # Whatever loses too much is worse than whatever does not, the dense network included.
            reward = math.log(self.dense.predicted_ms / plan.predicted_ms) if excess <= 0 else -excess / (excess + 1.0)
        return {"reward": reward, "accuracy": accuracy, "ms": plan.predicted_ms}

    def met(self, reward: float) -> bool:
        """Tell whether a plan with such a reward meets the target."""
        return self.wanted.kind != "points" or reward >= 0.0


@dataclasses.dataclass(frozen=True)
class Finals:
    """How finalists are measured.

    Args:
        goal: measures.
        steps: that they are trained for; what results are found again by.
    """

    goal: Goal
    steps: int


def make_space(problem: Problem) -> Space:
    """List all plans that a search chooses from.

    Raises:
        ValueError: the target cannot be met, or no zeros would make any layer faster.
    """
    options = problem.options(every_option)
    paths = [weight.path for weight, _ in problem.workload.layers]
    if problem.wanted.kind == "points":
        costs, budget = [[option.ms for option in own] for own in options], math.inf
    else:
        costs, budget = problem.wanted.costs(options, problem.workload.other_ms)
        if sum(min(own) for own in costs) > budget:
            fastest = [own[c.index(min(c))] for own, c in zip(options, costs, strict=True)]
            raise ValueError(problem.wanted.failure(problem.plan(fastest), options, problem.max_zeros))
    space = Space(paths, options, costs, budget)
    if not space.choices:
        raise ValueError("no zeros would make any layer faster by the latency table: there is nothing to search")
    return space


def first_plans(problem: Problem, space: Space) -> list[Values]:
    """List the plans that a search begins with, each once, those of single schemes by rising predicted loss."""
    by_rules = problem.options(rule_options)
    found: list[Values] = []
    # A layer that keeps hardly anything is worse than its loss says, and worse than two that keep half each: the least
    # sum of squares shares out the zeros.
    for options, power in ((by_rules, 1), (space.options, 2), (space.options, 1)):
        for costs, budget in _budgets(problem, options):
            chosen = solve(costs, [[option.loss**power for option in own] for own in options], budget)
            if chosen is not None:
                planned = [own[i] for own, i in zip(options, chosen, strict=True)]
                values = space.nearest(planned)
                found.append(values if space.cost(space.chosen(values)) <= space.budget else space.meet(values))
    if not math.isinf(space.budget):
        schemes = {option.scheme: None for own in space.options for option in own[1:]}
        single = [space.meet(space.uniform(scheme)) for scheme in schemes]
        found += sorted(single, key=space.loss)
    return [values for i, values in enumerate(found) if values not in found[:i]]


def _budgets(problem: Problem, options: Sequence[Sequence[Option]]) -> list[tuple[list[list[float]], float]]:
    """The target's budget, or for the least latency some between dense and the fastest."""
    listed = [list(own) for own in options]
    if problem.wanted.kind != "points":
        return [problem.wanted.costs(listed, problem.workload.other_ms)]
    costs = [[option.ms for option in own] for own in listed]
    dense, fastest = sum(own[0] for own in costs), sum(min(own) for own in costs)
    return [(costs, dense ** (1.0 - share) * fastest**share) for share in _STARTS]


def _claim(directory: Path, problem: Problem, space: Space, settings: Search) -> None:
    """Note in the directory what is searched for, so that no two searches are mixed."""
    digest = hashlib.sha256()
    budget = None if math.isinf(space.budget) else space.budget
    digest.update(repr((problem.wanted, budget, settings.oracle, settings.seed)).encode())
    if settings.accuracy is None:
        digest.update(repr((settings.steps, settings.batch_size, settings.metric)).encode())
    for (weight, _), own in zip(problem.workload.layers, space.options, strict=True):
        digest.update(repr((weight.path, [(option.scheme, option.zeros, option.ms) for option in own])).encode())
        if len(own) > 1 and weight.candidate is not None:
            digest.update(np.ascontiguousarray(weight.candidate.variable.numpy()).tobytes())
    path, told = directory / "search.json", json.dumps({"key": digest.hexdigest()}) + "\n"
    if path.exists() and path.read_text() != told:
        raise ValueError(
            f"{directory} holds the search for another model, table, target, oracle or seed: give another directory, "
            "or remove it"
        )
    directory.mkdir(parents=True, exist_ok=True)
    files.write(path, told)


def _keras_tuner(oracle: str) -> tuple[Any, Any]:
    """Import what stands on KerasTuner."""
    wanted = "keras-tuner[bayesian]" if oracle == "bayesian" else "keras-tuner"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            from keras_prune.mapping import oracles, tuner

            if oracle == "bayesian":
                import scipy.optimize  # noqa: F401
                import sklearn.gaussian_process  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"method='search' needs a package that is not installed: pip install '{wanted}' ({error})"
        ) from error
    return oracles, tuner
