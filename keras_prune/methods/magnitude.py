"""Gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_prune.methods.base import Method, Project

if TYPE_CHECKING:
    from keras_prune.targets import Target


class Magnitude(Method):
    """Zeroes what is smallest, more of it each time the schedule asks, and trains on under the mask.

    Reference:
        Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878.
    """

    name = "magnitude"

    def update(self, targets: Sequence[Target], zeros: float, project: Project, progress: float) -> None:
        """Mask the smallest weights."""
        masks = project(targets, [target.matrix() for target in targets], zeros)
        for target, mask in zip(targets, masks, strict=True):
            target.set_mask(mask)

    def __repr__(self) -> str:
        return "Magnitude()"
