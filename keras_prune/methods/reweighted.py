"""Reweighted group regularisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_prune.methods.base import Method, Project, require_end
from keras_prune.structures.base import Mask, Tiling

if TYPE_CHECKING:
    from keras_prune.schedules import Schedule
    from keras_prune.targets import Target

# Fractions of zeros are found to one part in 2^12.
_HALVINGS = 12


class Reweighted(Method):
    """Penalises small groups of weights harder than large ones, so that groups vanish by themselves; then prunes.

    The loss gets ``strength * sum over groups g of alpha_g * |W_g|^2``, where ``alpha_g = 1 / (|W_g|^2 + eps)`` is held
    between refreshes; in the unsquared form ``alpha_g * |W_g|`` and ``alpha_g = 1 / (|W_g| + eps)``. ``|.|`` is the L2
    norm, and the groups are the structure's: blocks, kernels, rows and columns of blocks. Of several divisions into
    groups, such as the windows of an unaligned block or the rows and columns of a block, the mean counts.

    The schedule's ``frequency`` is the refresh interval, some epochs in the papers; its ``begin_step`` is where the
    penalty begins. At ``end_step`` the penalty ends and the weights are pruned:

    - to the schedule's fraction of zeros, in each layer or, with ``Prune(scope="global")``, under one threshold for all
      layers of a structure, so that each layer gets a rate of its own;
    - or, if that fraction is 0, automatically: each layer loses the most weights that have together no more than
      ``threshold`` of its energy (sum of squares).

    Leave about a third of the training for fine-tuning under the masks. Until ``end_step`` no weight is exactly zero.

    Args:
        strength: lambda, the factor of the penalty.
        eps: keeps alpha finite. Groups whose norm (squared in the squared form) is well below it are driven to zero no
            harder than others.
        squared: whether to use the squared form.
        threshold: energy that a layer may lose where rates are automatic, in (0, 1).

    Raises:
        ValueError: an argument is out of range; in ``fit``: the schedule has no end.

    Example:
        >>> from keras_prune import BlockRowColumn, ConstantSparsity, Prune
        >>> from keras_prune.methods import Reweighted
        >>> schedule = ConstantSparsity(0.0, begin_step=0, end_step=4000, frequency=1000)
        >>> prune = Prune(BlockRowColumn(8, 32), schedule, Reweighted(strength=1e-4))  # rates emerge by themselves

    Reference:
        Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method",
        arXiv:2001.08357; Candes, Wakin and Boyd, "Enhancing Sparsity by Reweighted L1 Minimization", 2008.
    """

    name = "reweighted"

    def __init__(
        self, strength: float = 1e-4, eps: float = 1e-3, squared: bool = True, threshold: float = 0.01
    ) -> None:
        for name, value in (("strength", strength), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, but is {value!r}")
        if not 0 < threshold < 1:
            raise ValueError(
                f"threshold must be in (0, 1), but is {threshold!r}. It is the share of energy that a layer may lose"
            )
        self.strength = float(strength)
        self.eps = float(eps)
        self.squared = bool(squared)
        self.threshold = float(threshold)
        # One a target, 0 while there is no penalty: alpha of the groups of each division, or, in the squared form, what
        # these come to for each weight, so that the step need not form groups.
        self._factors: dict[Target, list[Any]] = {}

    def __repr__(self) -> str:
        return (
            f"Reweighted(strength={self.strength}, eps={self.eps}, squared={self.squared}, threshold={self.threshold})"
        )

    def start(self, targets: Sequence[Target], schedule: Schedule) -> None:
        """Make the factors of all groups."""
        require_end(self, schedule)
        self._factors = {
            target: [
                tf.Variable(tf.zeros(shape), trainable=False, name="factors")
                for shape in (
                    [target.shape] if self.squared else [e.shape for e in _energies(tf.zeros(target.shape), target)]
                )
            ]
            for target in targets
        }

    def penalty(self, target: Target) -> Callable[[Any], Any] | None:
        """Give ``strength * sum of alpha_g * |W_g|^2``, or the unsquared form."""
        factors = self._factors[target]

        def penalty(weights: Any) -> Any:
            values = tf.convert_to_tensor(weights)
            if values.dtype.size < 4:
                values = tf.cast(values, tf.float32)
            squares = tf.square(values)
            norms = [squares] if self.squared else [_safe_sqrt(e) for e in _energies(squares, target)]
            terms = [tf.reduce_sum(tf.cast(f, values.dtype) * norm) for f, norm in zip(factors, norms, strict=True)]
            return tf.cast(self.strength / len(terms), values.dtype) * tf.add_n(terms)

        return penalty

    def update(self, targets: Sequence[Target], zeros: float, project: Project, progress: float) -> None:
        """Refresh the factors, or prune at the end."""
        if progress < 1:
            for target in targets:
                squares = tf.constant(np.square(target.values()))
                with tf.GradientTape() as tape:
                    tape.watch(squares)
                    energies = _energies(squares, target)
                    alphas = [
                        1.0 / ((e if self.squared else tf.sqrt(e)) + self.eps) for e in map(tf.stop_gradient, energies)
                    ]
                    # Linear in the squares of the weights, with the factor of each as its gradient.
                    mean = tf.add_n([tf.reduce_sum(a * e) for a, e in zip(alphas, energies, strict=True)]) / len(alphas)
                new = [tape.gradient(mean, squares)] if self.squared else alphas
                for factors, values in zip(self._factors[target], new, strict=True):
                    factors.assign(values)
            return
        matrices = [target.matrix() for target in targets]
        if zeros > 0:
            masks = project(targets, matrices, zeros)
        else:
            masks = [self._automatic(target, matrix) for target, matrix in zip(targets, matrices, strict=True)]
        for target, mask in zip(targets, masks, strict=True):
            target.set_mask(mask)
            for factors in self._factors[target]:
                factors.assign(tf.zeros_like(factors))

    def variables(self) -> Mapping[str, Any]:
        """Return the factors of each weight, which are counted in their order."""
        return {
            f"factors/{i}/{j}": variable
            for i, variables in enumerate(self._factors.values())
            for j, variable in enumerate(variables)
        }

    def _automatic(self, target: Target, matrix: npt.NDArray[np.float32]) -> Mask:
        """Choose the mask with the most zeros that loses no more than the threshold's share of energy."""
        energy = np.square(matrix, dtype=np.float64)
        allowed = self.threshold * energy.sum()
        best = np.ones(matrix.shape, bool)
        least, most = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            mask = target.structure.mask(matrix, middle, target.kernel)
            if energy[~mask].sum() <= allowed:
                best, least = mask, middle
            else:
                most = middle
        return best


def _energies(squares: Any, target: Target) -> list[Any]:
    """Sum the weights' squares in each group ``[row groups, position groups, column groups]``, for each division."""
    axes = target.view.rows + target.view.columns
    rows = int(np.prod([target.shape[axis] for axis in target.view.rows]))
    matrix = tf.reshape(tf.transpose(squares, axes), [rows, -1])
    return [
        _tile_sums(matrix, tiling, int(np.prod(target.kernel))) for tiling in target.structure.groups(target.kernel)
    ]


def _tile_sums(matrix: Any, tiling: Tiling, kernel: int) -> Any:
    rows, columns = matrix.shape
    positions = 1 if tiling.positions is None else kernel
    extents = (rows, positions, columns // positions)
    tile = (tiling.rows, tiling.positions or 1, tiling.columns)
    before = (tiling.offset, 0, 0)
    after = [-(b + extent) % size for b, extent, size in zip(before, extents, tile, strict=True)]
    cells = tf.pad(tf.reshape(matrix, extents), list(zip(before, after, strict=True)))
    split = [n for extent, size in zip(cells.shape, tile, strict=True) for n in (extent // size, size)]
    return tf.reduce_sum(tf.reshape(cells, split), axis=[1, 3, 5])


def _safe_sqrt(values: Any) -> Any:
    """Square root whose gradient at zero is zero."""
    positive = values > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, values, tf.ones_like(values))), tf.zeros_like(values))
