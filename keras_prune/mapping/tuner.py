"""KerasTuner's loop over trials, each of which is a plan."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras_tuner

from keras_prune import files
from keras_prune.mapping.oracles import PlanOracle
from keras_prune.mapping.plan import Plan
from keras_prune.mapping.space import Space
from keras_prune.tflite.layer import DENSE

if TYPE_CHECKING:
    from keras_prune.mapping.search import Goal, Problem, Search


class PlanTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Tries the plans that an oracle proposes; keeps the best.

    Args:
        oracle: proposes.
        problem: what is planned.
        space: of plans.
        goal: measures plans.
        directory: for results.
        settings: of the search.
    """

    def __init__(
        self, oracle: PlanOracle, problem: Problem, space: Space, goal: Goal, directory: Path, settings: Search
    ) -> None:
        self.problem, self.space, self.goal, self.settings = problem, space, goal, settings
        self.best_file = directory / "best.json"
        self._best: Any = None
        with contextlib.redirect_stdout(sys.stderr):  # it says when it reloads
            super().__init__(oracle=oracle, directory=str(directory.parent), project_name=directory.name)
        # A worker knows of other machines' trials by asking the chief, which is gone when all are done.
        self._worker = self._is_worker()

    def run_trial(self, trial: Any, *arguments: Any, **options: Any) -> dict[str, float]:
        """Measure a plan."""
        chosen = self.space.chosen(trial.hyperparameters.values)
        try:
            return self.goal.measure(
                self.problem.plan([own[i] for own, i in zip(self.space.options, chosen, strict=True)])
            )
        except Exception as error:
            # All plans would fail in the same way; KerasTuner would try some more before it says so.
            raise keras_tuner.errors.FatalError(str(error)) from error

    def search(self, *arguments: Any, **options: Any) -> None:
        """Run trials until there are enough of them."""
        try:
            super().search(*arguments, **options)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None
        if not self._worker:
            self._take_best()

    def on_trial_end(self, trial: Any) -> None:
        """Keep the best plan and say how far the search is."""
        super().on_trial_end(trial)
        self._take_best()
        measured = self.oracle.get_trial(trial.trial_id)
        accuracy, ms = (measured.metrics.get_best_value(name) for name in ("accuracy", "ms"))
        self.settings.progress(
            f"search: {int(trial.trial_id) + 1} of {self.settings.trials}, accuracy {accuracy:.2%}, {ms:.4g} ms; "
            f"{self.told_best()}"
        )

    def told_best(self) -> str:
        """Say what the best plan so far is."""
        if self._best is None:
            return "no plan has met the target yet"
        accuracy, ms = (self._best.metrics.get_best_value(name) for name in ("accuracy", "ms"))
        return f"best {accuracy:.2%}, {ms:.4g} ms"

    def best(self) -> Plan:
        """Return the best plan.

        Raises:
            ValueError: none has met the target.
        """
        if self._best is None:
            raise ValueError(
                f"none of {self.settings.trials} trials met the target {self.problem.target!r}: allow more trials or "
                "more steps for each, or ask for less"
            )
        return self._plan(self._best)

    def _take_best(self) -> None:
        found = [trial for trial in self.oracle.get_best_trials(1) if trial.status == "COMPLETED"]
        if not found or not self.goal.met(float(found[0].score)):
            return
        self._best = found[0]
        if not self._worker:
            files.write(self.best_file, self._plan(self._best).to_json())

    def _plan(self, trial: Any) -> Plan:
        chosen = self.space.chosen(trial.hyperparameters.values)
        accuracy = trial.metrics.get_best_value("accuracy")
        made = []
        for layer, (options, i) in enumerate(zip(self.space.options, chosen, strict=True)):
            reasons = options[i].reasons
            if len(options) > 1:
                reasons = (
                    f"search: of the best plan of all tried, accuracy {accuracy:.2%}",
                    *self._compared(layer, chosen),
                )
            made.append(dataclasses.replace(options[i], reasons=reasons))
        return self.problem.plan(made)

    def _compared(self, layer: int, chosen: list[int]) -> tuple[str, ...]:
        """Compare the plans that have the same structure in a layer with those that have another."""
        if math.isinf(self.space.budget):
            return ()  # they differ in more than this: in their latency
        scheme = self.space.options[layer][chosen[layer]].scheme
        same: list[float] = []
        others: list[float] = []
        for trial in getattr(self.oracle, "trials", {}).values():
            if trial.status == "COMPLETED":
                its = self.space.options[layer][self.space.chosen(trial.hyperparameters.values)[layer]].scheme
                (same if its == scheme else others).append(trial.metrics.get_best_value("accuracy"))
        if not same or not others:
            return ()
        what = "dense" if scheme == DENSE else f"{scheme} here"
        return (
            f"plans with {what}: {statistics.mean(same):.2%} on average ({len(same)}), "
            f"others {statistics.mean(others):.2%} ({len(others)})",
        )
