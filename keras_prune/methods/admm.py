"""Pruning by the alternating direction method of multipliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_prune.methods.base import Method, Project, require_end

if TYPE_CHECKING:
    from keras_prune.schedules import Schedule
    from keras_prune.structures import Structure
    from keras_prune.targets import Target

RHO = (1e-4, 1e-3, 1e-2, 1e-1)


class Admm(Method):
    """Draws the weights towards the structure by a quadratic penalty, then prunes once, and trains on under the mask.

    For each constraint on a weight W there are an auxiliary weight Z, which obeys it, and a scaled dual U. The loss
    gets ``rho / 2 * |W - Z + U|^2``. At every step that the schedule names, ``Z = P(W + U)``, where P zeroes what the
    structure gives up at the fraction of zeros asked for, and ``U += W - Z``. A structure of two constraints has two
    pairs: for ``Pattern``, patterns (Z, U) and connectivity (Y, V).

    The time from the schedule's ``begin_step`` to its ``end_step`` is divided evenly among the values of rho; as one
    gives way to the next, the duals are scaled with their ratio, so that the multipliers ``rho * U`` stay. At
    ``end_step`` the weights are pruned hard and the penalty ends. Leave about a third of the training for the masked
    retraining after it. Until then no weight is zero.

    Use it with ``ConstantSparsity(zeros, begin_step, end_step, frequency)``, where ``frequency`` is a few hundred steps
    up to some epochs, and large enough for the weights to follow between updates.

    Args:
        rho: penalty factors of the stages, ascending; 1e-4 to 1e-1 is the published range.

    Raises:
        ValueError: no stage, or a factor that is not positive; in ``fit``: the schedule has no end.

    Example:
        >>> from keras_prune import ConstantSparsity, Prune
        >>> from keras_prune.methods import Admm
        >>> from keras_prune.structures import Pattern
        >>> Prune(Pattern(8), ConstantSparsity(0.8, begin_step=0, end_step=4000, frequency=200), Admm()).method
        Admm(rho=(0.0001, 0.001, 0.01, 0.1))

    Reference:
        Zhang et al., "A Systematic DNN Weight Pruning Framework using Alternating Direction Method of Multipliers",
        arXiv:1804.03294; Niu et al., "PatDNN", arXiv:2001.00138; Boyd et al., "Distributed Optimization and Statistical
        Learning via ADMM", 2011, section 3.4.1, for changing rho.
    """

    name = "admm"

    def __init__(self, rho: Sequence[float] = RHO) -> None:
        self.rho = tuple(float(r) for r in rho)
        if not self.rho or not all(r > 0 for r in self.rho):
            raise ValueError(f"rho must be one positive factor a stage, but is {rho!r}; {RHO} is usual")
        self._rho: Any = None
        # One a target. Over n constraints sum |W - A_i|^2 = n |W - A|^2 + spread, where A_i = Z_i - U_i, A is their
        # mean and spread = sum |A_i - A|^2, so that the step reads one tensor beside each weight.
        self._anchors: dict[Target, Any] = {}
        self._spreads: dict[Target, Any] = {}
        self._duals: dict[Target, list[Any]] = {}

    def __repr__(self) -> str:
        return f"Admm(rho={self.rho})"

    def start(self, targets: Sequence[Target], schedule: Schedule) -> None:
        """Make the auxiliary variables."""
        require_end(self, schedule)
        self._rho = tf.Variable(0.0, trainable=False, name="rho")
        self._anchors = {t: _zeros(t.shape, "anchor") for t in targets}
        self._spreads = {t: _zeros((), "spread") for t in targets}
        self._duals = {t: [_zeros(t.shape, "dual") for _ in _parts(t)] for t in targets}

    def penalty(self, target: Target) -> Callable[[Any], Any] | None:
        """Give ``rho / 2 * |W - Z + U|^2``, summed over the constraints."""
        rho, anchor, spread = self._rho, self._anchors[target], self._spreads[target]
        constraints = len(self._duals[target])

        def penalty(weights: Any) -> Any:
            values = tf.convert_to_tensor(weights)
            if values.dtype.size < 4:
                values = tf.cast(values, tf.float32)
            distance = tf.reduce_sum(tf.square(values - tf.cast(anchor, values.dtype)))
            total = constraints * distance + tf.cast(spread, values.dtype)
            return 0.5 * tf.cast(rho, values.dtype) * total

        return penalty

    def update(self, targets: Sequence[Target], zeros: float, project: Project, progress: float) -> None:
        """Update Z and U, or prune hard at the end."""
        if progress >= 1:
            masks = project(targets, [target.matrix() for target in targets], zeros)
            for target, mask in zip(targets, masks, strict=True):
                target.set_mask(mask)
            self._rho.assign(0.0)
            return
        rho = self.rho[min(int(progress * len(self.rho)), len(self.rho) - 1)]
        before = float(self._rho.numpy())
        pairs = [(target, i, part) for target in targets for i, part in enumerate(_parts(target))]
        weights = {target: target.values() for target in targets}
        sums = []
        for target, i, _ in pairs:
            dual = self._duals[target][i].numpy() * (before / rho if before else 1.0)
            sums.append(weights[target] + dual.astype(np.float32))
        matrices = [target.view.to_matrix(s) for (target, _, _), s in zip(pairs, sums, strict=True)]
        masks = project([t for t, _, _ in pairs], matrices, zeros, [part for _, _, part in pairs])
        anchors: dict[Target, list[Any]] = {target: [] for target in targets}
        for (target, i, _), total, mask in zip(pairs, sums, masks, strict=True):
            kept = target.view.from_matrix(mask, target.shape)
            # With V = W + U: where Z keeps V the new U = V - Z is zero, and elsewhere it is V.
            self._duals[target][i].assign(np.where(kept, np.float32(0), total))
            anchors[target].append(np.where(kept, total, -total))
        for target, each in anchors.items():
            mean = np.mean(each, axis=0)
            self._anchors[target].assign(mean)
            self._spreads[target].assign(sum(float(np.sum(np.square(anchor - mean))) for anchor in each))
        self._rho.assign(rho)

    def variables(self) -> Mapping[str, Any]:
        """Return rho, and the auxiliary variables of each weight, which are counted in their order."""
        found = {"rho": self._rho}
        for i, target in enumerate(self._duals):
            found[f"anchor/{i}"], found[f"spread/{i}"] = self._anchors[target], self._spreads[target]
            found.update({f"dual/{i}/{j}": dual for j, dual in enumerate(self._duals[target])})
        return found


def _zeros(shape: tuple[int, ...], name: str) -> Any:
    return tf.Variable(tf.zeros(shape), trainable=False, name=name)


def _parts(target: Target) -> tuple[Structure, ...]:
    return target.structure.parts(target.kernel)
