"""Schedules: when masks are chosen anew, and at how many zeros.

Semantics and argument names are those of tensorflow-model-optimization, whose own schedule objects are accepted too.
These compute in plain Python, because a schedule is asked at every training step.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

from keras_prune.structures.base import check_sparsity


class Schedule(abc.ABC):
    """Tells at each training step whether to choose masks anew and the fraction of zeros to reach.

    A subclass sets ``begin_step``, ``end_step`` and ``frequency`` and defines :meth:`sparsity`.
    """

    begin_step: int
    end_step: int
    frequency: int

    def __call__(self, step: int) -> tuple[bool, float]:
        """Return (choose masks now?, fraction of zeros) after ``step`` training steps."""
        step = int(step)
        in_range = step >= self.begin_step and (self.end_step < 0 or step <= self.end_step)
        return in_range and (step - self.begin_step) % self.frequency == 0, self.sparsity(step)

    @abc.abstractmethod
    def sparsity(self, step: int) -> float:
        """Tell the fraction of zeros at a step."""

    def progress(self, step: int) -> float:
        """Tell how far a step is from ``begin_step``, 0, to ``end_step``, 1; always 0 without an end."""
        if self.end_step < 0:
            return 0.0
        if self.end_step == self.begin_step:
            # The limit of a schedule that gets ever shorter, where tfmot divides by zero.
            return float(step >= self.begin_step)
        return min(1.0, max(0.0, (step - self.begin_step) / (self.end_step - self.begin_step)))

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": ..., "config": arguments}``."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Make a schedule from :meth:`get_config`'s ``"config"``."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config()["config"].items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and other.get_config() == self.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))


class ConstantSparsity(Schedule):
    """The same fraction of zeros from ``begin_step`` on.

    Args:
        target_sparsity: fraction of zeros, in [0, 1).
        begin_step: training step at which pruning begins.
        end_step: last step at which masks may be chosen anew; -1 means to the end of training.
        frequency: masks are chosen anew every so many steps.

    Raises:
        ValueError: a fraction outside [0, 1), a negative step, an end before the beginning, a frequency below 1.

    Example:
        >>> from keras_prune import ConstantSparsity
        >>> ConstantSparsity(0.5, begin_step=100)(100)
        (True, 0.5)
    """

    def __init__(self, target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100) -> None:
        self.target_sparsity = target_sparsity
        self.begin_step = begin_step
        self.end_step = end_step
        self.frequency = frequency
        _check_steps(begin_step, end_step, frequency, endless=True)
        check_sparsity(target_sparsity, "target_sparsity")

    def sparsity(self, step: int) -> float:
        """Tell the fraction of zeros at a step."""
        return self.target_sparsity

    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": ..., "config": arguments}``."""
        return {
            "class_name": type(self).__name__,
            "config": {
                "target_sparsity": self.target_sparsity,
                "begin_step": self.begin_step,
                "end_step": self.end_step,
                "frequency": self.frequency,
            },
        }


class PolynomialDecay(Schedule):
    """Zeros that grow fast at first and level off, ``final + (initial - final) * (1 - progress) ** power``.

    Progress goes from 0 at ``begin_step`` to 1 at ``end_step``. The power 3 is the cubic schedule of gradual pruning.

    Args:
        initial_sparsity: fraction of zeros at ``begin_step``, in [0, 1).
        final_sparsity: fraction of zeros at ``end_step``, in [0, 1).
        begin_step: training step at which pruning begins.
        end_step: training step at which it ends.
        power: exponent.
        frequency: masks are chosen anew every so many steps.

    Raises:
        ValueError: a fraction outside [0, 1), a negative step, an end before the beginning or -1, a frequency below 1.

    Example:
        >>> from keras_prune import PolynomialDecay
        >>> PolynomialDecay(0.0, 0.8, begin_step=0, end_step=1000)(1000)
        (True, 0.8)

    Reference:
        Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878.
    """

    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        power: float = 3,
        frequency: int = 100,
    ) -> None:
        self.initial_sparsity = initial_sparsity
        self.final_sparsity = final_sparsity
        self.begin_step = begin_step
        self.end_step = end_step
        self.power = power
        self.frequency = frequency
        _check_steps(begin_step, end_step, frequency, endless=False)
        check_sparsity(initial_sparsity, "initial_sparsity")
        check_sparsity(final_sparsity, "final_sparsity")

    def sparsity(self, step: int) -> float:
        """Tell the fraction of zeros at a step."""
        progress = self.progress(step)
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * (1.0 - progress) ** self.power

    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": ..., "config": arguments}``."""
        return {
            "class_name": type(self).__name__,
            "config": {
                "initial_sparsity": self.initial_sparsity,
                "final_sparsity": self.final_sparsity,
                "begin_step": self.begin_step,
                "end_step": self.end_step,
                "power": self.power,
                "frequency": self.frequency,
            },
        }


SCHEDULES: dict[str, type[Schedule]] = {s.__name__: s for s in (ConstantSparsity, PolynomialDecay)}


class _Foreign(Schedule):
    """A callable of someone else that follows tfmot's convention, ``should_prune, sparsity = schedule(step)``."""

    def __init__(self, schedule: Callable[[int], Any]) -> None:
        self.schedule = schedule
        self.begin_step = int(getattr(schedule, "begin_step", 0))
        self.end_step = int(getattr(schedule, "end_step", -1))
        self.frequency = int(getattr(schedule, "frequency", 1))

    def __call__(self, step: int) -> tuple[bool, float]:
        due, sparsity = self.schedule(step)
        return bool(due), float(sparsity)

    def sparsity(self, step: int) -> float:
        return self(step)[1]

    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": ..., "config": arguments}``."""
        return {"class_name": type(self).__name__, "config": {"schedule": self.schedule}}

    def __repr__(self) -> str:
        return repr(self.schedule)


def as_schedule(schedule: Any) -> Schedule:
    """Return a :class:`Schedule` for one of ours, one of tfmot's or any callable that follows their convention.

    Raises:
        ValueError: something else.
    """
    if isinstance(schedule, Schedule):
        return schedule
    kind = type(schedule)
    if kind.__module__.startswith("tensorflow_model_optimization.") and kind.__name__ in SCHEDULES:
        # The same in plain Python: tfmot's computes with TensorFlow operations, a third of a millisecond a step.
        return SCHEDULES[kind.__name__].from_config(schedule.get_config()["config"])
    if callable(schedule) and not isinstance(schedule, type):
        return _Foreign(schedule)
    raise ValueError(
        f"schedule must be a ConstantSparsity, a PolynomialDecay, one of tfmot's pruning schedules or a callable "
        f"step -> (should_prune, sparsity), but is {schedule!r}"
    )


def _check_steps(begin_step: int, end_step: int, frequency: int, endless: bool) -> None:
    if begin_step < 0:
        raise ValueError(f"begin_step must be 0 or more, but is {begin_step}")
    if end_step == -1 and not endless:
        raise ValueError("end_step cannot be -1 here: zeros that grow need a step at which they stop growing")
    if end_step < -1:
        raise ValueError(f"end_step must be -1 (no end) or a step, but is {end_step}")
    if end_step != -1 and end_step < begin_step:
        raise ValueError(
            f"the schedule ends before it begins: begin_step={begin_step}, end_step={end_step}. "
            "Give end_step a value of at least begin_step"
        )
    if frequency <= 0:
        raise ValueError(f"frequency must be 1 or more, but is {frequency}")
