"""What every method shares."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from keras_prune.targets import Target

Project = Callable[[Sequence[npt.NDArray[np.float32]], float], list[npt.NDArray[np.bool_]]]
"""Chooses masks for one matrix a target at a fraction of zeros, by the targets' structures and the budget's scope."""


class Method(abc.ABC):
    """How training gets to its masks.

    A new method is one file with a subclass and one line in ``keras_prune/methods/__init__.py``.
    """

    name: str

    def start(self, targets: Sequence[Target]) -> None:
        """Make what the method keeps beside the weights. Called once, before the training step is traced."""
        return None

    def penalty(self, target: Target) -> Callable[[Any], Any] | None:
        """Give a term ``weights -> scalar tensor`` that joins the loss inside the compiled step, or None."""
        return None

    @abc.abstractmethod
    def update(self, targets: Sequence[Target], zeros: float, project: Project, last: bool) -> None:
        """Choose masks; called at the steps that the schedule names.

        Args:
            targets: the weights under pruning.
            zeros: fraction of zeros that the schedule asks for.
            project: chooses masks for one matrix a target.
            last: whether the schedule has come to its end.
        """
