"""A weight under pruning: the variable, its mask, and what acts on it inside the compiled training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_prune.layers import Candidate
from keras_prune.structures.base import Structure


class MaskConstraint:
    """Zeroes masked entries of a weight after each update, and applies the weight's own constraint before.

    The optimizer calls it inside the compiled step. The mask is a variable, so a new mask needs no new trace.

    Args:
        mask: boolean variable of the weight's shape.
        inner: the weight's own constraint.
        average: finds the moving average that the optimizer keeps of the weight, if it does. The optimizer has updated
            it before it calls the constraint, and may put it into the weight's place.
    """

    def __init__(
        self, mask: tf.Variable, inner: Callable[[Any], Any] | None, average: Callable[[], Any] = lambda: None
    ) -> None:
        self.mask = mask
        self.inner = inner
        self.average = average

    def __call__(self, weights: Any) -> tf.Tensor:
        """Return the constrained weights."""
        average = self.average()
        if average is not None:
            average.assign(_masked(self.mask, average))
        if self.inner is not None:
            weights = self.inner(weights)
        return _masked(self.mask, weights)


class PenaltyRegularizer:
    """Adds a method's penalty to the weight's own regularizer.

    Keras asks for it when it collects the losses, inside the compiled step.

    Args:
        penalty: ``weights -> scalar tensor``.
        inner: the weight's own regularizer.
    """

    def __init__(self, penalty: Callable[[Any], Any], inner: Callable[[Any], Any] | None) -> None:
        self.penalty = penalty
        self.inner = inner

    def __call__(self, weights: Any) -> tf.Tensor:
        """Return the sum of both."""
        penalty = self.penalty(weights)
        if self.inner is None:
            return penalty
        return penalty + tf.cast(self.inner(weights), penalty.dtype)


class Target:
    """One weight of a model that is being pruned."""

    def __init__(self, candidate: Candidate, structure: Structure) -> None:
        assert candidate.view is not None
        self.path = candidate.path
        self.layer = candidate.layer
        self.weight_name = candidate.weight_name
        self.variable = candidate.variable
        self.view = candidate.view
        self.structure = structure
        self.shape = tuple(int(n) for n in self.variable.shape)
        self.size = math.prod(self.shape)
        self.kernel = self.view.kernel_size(self.shape)
        self.mask_variable = tf.Variable(tf.ones(self.shape, tf.bool), trainable=False, name="mask")
        self.zeros = 0.0

    @property
    def name(self) -> str:
        """Path of the weight in the model."""
        return f"{self.path}/{self.weight_name}"

    def install(self, optimizer: Callable[[], Any] = lambda: None, penalty: Callable[[Any], Any] | None = None) -> bool:
        """Make mask and penalty act in training steps traced from now on; return whether that was new.

        Args:
            optimizer: finds the optimizer that will train the weight.
            penalty: a term ``weights -> scalar tensor`` for the loss.
        """
        installed = self.variable.constraint
        if isinstance(installed, MaskConstraint) and installed.mask is self.mask_variable:
            return False
        # What an earlier pruning of the same model left gives way.
        inner = installed.inner if isinstance(installed, MaskConstraint) else installed
        _set_constraint(
            self.variable,
            MaskConstraint(self.mask_variable, inner, lambda: _moving_average(optimizer(), self.variable)),
        )
        _remove_penalty(self.layer, self.variable)
        if penalty is not None:
            _add_penalty(self.layer, self.variable, penalty)
        return True

    def uninstall(self) -> None:
        """Give the weight back its own constraint and regularizer."""
        installed = self.variable.constraint
        if isinstance(installed, MaskConstraint) and installed.mask is self.mask_variable:
            _set_constraint(self.variable, installed.inner)
            _remove_penalty(self.layer, self.variable)

    def values(self) -> npt.NDArray[np.float32]:
        """Return the weight in its own shape.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        values = tf.cast(tf.convert_to_tensor(self.variable), tf.float32).numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self.weight_name} of layer {self.path!r} holds NaN or infinity, so magnitudes cannot be compared. "
                "The training has diverged: lower the learning rate, or clip gradients"
            )
        return values

    def matrix(self) -> npt.NDArray[np.float32]:
        """Return the weight as a float32 matrix ``[rows, columns]``.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        return self.view.to_matrix(self.values())

    def set_mask(self, mask: npt.NDArray[np.bool_]) -> None:
        """Take a new mask ``[rows, columns]`` and apply it to the weight at once."""
        self.mask_variable.assign(np.ascontiguousarray(self.view.from_matrix(mask, self.shape)))
        self.take_mask()

    def take_mask(self) -> None:
        """Apply a mask that has been put into the mask's variable."""
        mask = self.mask_variable.numpy()
        self.zeros = 1.0 - float(np.count_nonzero(mask)) / mask.size
        self.apply()

    def apply(self) -> None:
        """Zero the masked entries of the weight, and of its moving average, now."""
        average = None
        if isinstance(self.variable.constraint, MaskConstraint):
            average = self.variable.constraint.average()
        for variable in (self.variable, average):
            if variable is not None:
                variable.assign(_masked(self.mask_variable, variable))

    def obeyed(self) -> tf.Tensor:
        """Tell whether all masked entries of the weight are zero."""
        values = tf.convert_to_tensor(self.variable)
        return tf.reduce_all(self.mask_variable | (values == tf.zeros_like(values)))


def _set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    if isinstance(variable, tf.Variable):
        # tf_keras trains TensorFlow's own variables: inside a wrapper under mixed precision, replicated by a strategy.
        for inner in ("_variable", "_primary"):
            variable = getattr(variable, inner, variable)
        variable._constraint = constraint
    else:
        variable.constraint = constraint


def _add_penalty(layer: Any, variable: Any, penalty: Callable[[Any], Any]) -> None:
    if isinstance(variable, tf.Variable):
        layer._callable_losses.append(_LayerPenalty(variable, penalty))
    else:
        variable.regularizer = PenaltyRegularizer(penalty, variable.regularizer)


def _remove_penalty(layer: Any, variable: Any) -> None:
    if isinstance(variable, tf.Variable):
        own = [
            loss
            for loss in layer._callable_losses
            if not (isinstance(loss, _LayerPenalty) and loss.variable is variable)
        ]
        layer._callable_losses[:] = own
    elif isinstance(variable.regularizer, PenaltyRegularizer):
        variable.regularizer = variable.regularizer.inner


class _LayerPenalty:
    """A penalty as tf_keras knows it: one of the layer's losses."""

    def __init__(self, variable: Any, penalty: Callable[[Any], Any]) -> None:
        self.variable = variable
        self.penalty = penalty

    def __call__(self) -> tf.Tensor:
        return self.penalty(self.variable)


def _moving_average(optimizer: Any, variable: Any) -> Any:
    """Find the moving average that an optimizer keeps of a variable, or None."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "use_ema", False):
        return None
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if not averages:
        return None  # not built yet
    if hasattr(optimizer, "_get_variable_index"):
        return averages[optimizer._get_variable_index(variable)]
    return averages[optimizer._index_dict[optimizer._var_key(variable)]]


def _masked(mask: tf.Variable, weights: Any) -> tf.Tensor:
    # Selected, not multiplied: a product would make -0.0 and would keep NaN. A scalar zero is quicker than zeros_like.
    values = tf.convert_to_tensor(weights)
    return tf.where(mask, values, tf.zeros((), values.dtype))
