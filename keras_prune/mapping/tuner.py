"""KerasTuner's loop over trials, each of which is a plan."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import operator
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras_tuner

from keras_prune import files
from keras_prune.mapping.oracles import PlanOracle, completed, final
from keras_prune.mapping.plan import Plan
from keras_prune.mapping.space import Space
from keras_prune.tflite.layer import DENSE

if TYPE_CHECKING:
    from keras_prune.mapping.search import Finals, Goal, Problem, Search


class PlanTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Tries the plans that an oracle proposes; keeps the best.

    Args:
        oracle: proposes.
        problem: what is planned.
        space: of plans.
        goal: measures plans.
        finals: measures finalists, or None for none.
        directory: for results.
        settings: of the search.
    """

    def __init__(
        self,
        oracle: PlanOracle,
        problem: Problem,
        space: Space,
        goal: Goal,
        finals: Finals | None,
        directory: Path,
        settings: Search,
    ) -> None:
        self.problem, self.space, self.goal, self.finals, self.settings = problem, space, goal, finals, settings
        self.best_file = directory / "best.json"
        self._best: Any = None
        with contextlib.redirect_stdout(sys.stderr):  # it says when it reloads
            super().__init__(oracle=oracle, directory=str(directory.parent), project_name=directory.name)
        # A worker knows of other machines' trials by asking the chief, which is gone when all are done.
        self._worker = self._is_worker()

    def run_trial(self, trial: Any, *arguments: Any, **options: Any) -> dict[str, float]:
        """Measure a plan."""
        try:
            return self.goal.measure(self._planned(trial))
        except Exception as error:
            # All plans would fail in the same way; KerasTuner would try some more before it says so.
            raise keras_tuner.errors.FatalError(str(error)) from error

    def search(self, *arguments: Any, **options: Any) -> None:
        """Run trials until there are enough of them, and the finalists; those of several machines the chief."""
        try:
            super().search(*arguments, **options)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None
        if not self._worker:
            self._take_best()
            self._run_finals()

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
        return f"best {self._accuracy(self._best):.2%}, {self._best.metrics.get_best_value('ms'):.4g} ms"

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

    def _run_finals(self) -> None:
        if self.finals is None:
            return
        best, others = self._contenders()
        for place, trial in enumerate([*best, *others], start=1):
            if place > len(best) and self._final(self._best) is not None:
                break  # the others are for where all finalists lost too much
            if self._final(trial) is None:
                measured = self.finals.goal.measure(self._planned(trial))
                self.oracle.note_final(trial, measured, self.finals.steps)
            self._take_best()
            self.settings.progress(
                f"search: finalist {place} of {max(place, len(best))}, accuracy {self._accuracy(trial):.2%}, "
                f"{trial.metrics.get_best_value('ms'):.4g} ms; {self.told_best()}"
            )

    def _contenders(self) -> tuple[list[Any], list[Any]]:
        """Return the finalists, and the trials that may be finalists after them."""
        trials, count = self._completed(), self.settings.finalists
        if math.isinf(self.space.budget):
            # What met the target only just may not do so in truth; and what failed it only just, but is faster, may.
            met = [trial for trial in trials if self.goal.met(float(trial.score))]
            fastest = min((trial.metrics.get_best_value("ms") for trial in met), default=math.inf)
            near = [trial for trial in trials[len(met) :] if trial.metrics.get_best_value("ms") < fastest]
            pairs = itertools.zip_longest(met, near)
            best = [trial for pair in pairs for trial in pair if trial is not None][:count]
            return best, [trial for trial in met if trial not in best]
        # The first trial is the plan of the rules, which is to be beaten by more than luck.
        first = [trial for trial in trials[count:] if int(trial.trial_id) == 0]
        return [*trials[: count - len(first)], *first], []

    def _take_best(self) -> None:
        """Take the best finalist so far, or of the trials if no finalist meets the target."""
        finalists: list[tuple[float, Any]] = []
        others: list[tuple[float, Any]] = []
        for trial in self._completed():
            result = self._final(trial)
            reward = float(trial.score) if result is None else result["reward"]
            if self.goal.met(reward):
                (others if result is None else finalists).append((reward, trial))
        self._best = max(finalists or others, key=operator.itemgetter(0), default=(0.0, None))[1]
        if self._worker:
            return
        if self._best is None:
            self.best_file.unlink(missing_ok=True)
        else:
            files.write(self.best_file, self._plan(self._best).to_json())

    def _completed(self) -> list[Any]:
        return completed(self.oracle.get_best_trials(self.settings.trials))

    def _final(self, trial: Any) -> dict[str, float] | None:
        return final(trial, self.finals.steps) if self.finals is not None and trial is not None else None

    def _accuracy(self, trial: Any) -> float:
        return (self._final(trial) or {"accuracy": float(trial.metrics.get_best_value("accuracy"))})["accuracy"]

    def _planned(self, trial: Any) -> Plan:
        chosen = self.space.chosen(trial.hyperparameters.values)
        return self.problem.plan([own[i] for own, i in zip(self.space.options, chosen, strict=True)])

    def _plan(self, trial: Any) -> Plan:
        chosen = self.space.chosen(trial.hyperparameters.values)
        told = f"search: of the best plan of all tried, accuracy {self._accuracy(trial):.2%}"
        if self._final(trial) is not None:
            told += f", {trial.metrics.get_best_value('accuracy'):.2%} before it was trained longer as a finalist"
        made = []
        for layer, (options, i) in enumerate(zip(self.space.options, chosen, strict=True)):
            reasons = options[i].reasons
            if len(options) > 1:
                reasons = (told, *self._compared(layer, chosen))
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
