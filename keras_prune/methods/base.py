"""What every method shares."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from keras_prune.schedules import Schedule
    from keras_prune.structures import Structure
    from keras_prune.targets import Target


class Project(Protocol):
    """Chooses masks by the targets' structures and the budget's scope."""

    def __call__(
        self,
        targets: Sequence[Target],
        matrices: Sequence[npt.NDArray[np.float32]],
        zeros: float,
        structures: Sequence[Structure] | None = None,
    ) -> list[npt.NDArray[np.bool_]]:
        """Return a mask for each matrix.

        Args:
            targets: the weights that the matrices belong to; one may occur several times.
            matrices: what to choose masks for, ``[rows, columns]``.
            zeros: fraction of zeros.
            structures: of each matrix, if not its target's own.
        """


class Method(abc.ABC):
    """How training gets to its masks.

    A new method is one file with a subclass and one line in ``keras_prune/methods/__init__.py``.
    """

    name: str

    def start(self, targets: Sequence[Target], schedule: Schedule) -> None:
        """Make what the method keeps beside the weights. Called once a model, before the training step is traced.

        Raises:
            ValueError: the method does not work with this schedule.
        """
        return None

    def penalty(self, target: Target) -> Callable[[Any], Any] | None:
        """Give a term ``weights -> scalar tensor`` that joins the loss inside the compiled step, or None.

        What changes between steps must be in variables, because the step is traced once.
        """
        return None

    @abc.abstractmethod
    def update(self, targets: Sequence[Target], zeros: float, project: Project, progress: float) -> None:
        """Choose masks, or come nearer to them; called at the steps that the schedule names.

        Args:
            targets: the weights under pruning.
            zeros: fraction of zeros that the schedule asks for.
            project: chooses masks.
            progress: 0 at the schedule's first step to 1 at its last; always 0 for a schedule without an end.
        """

    def variables(self) -> Mapping[str, Any]:
        """Return all that the method keeps, by name, as variables: what is saved to resume a training."""
        return {}


def require_end(method: Method, schedule: Schedule) -> None:
    """Raise ValueError unless the schedule tells when the hard prune is due."""
    if schedule.end_step < 0:
        raise ValueError(
            f"{method!r} prunes at the schedule's end_step, but {schedule!r} has none: give it one, and train on after "
            "it with the masks"
        )
