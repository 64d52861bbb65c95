"""The accuracy that a plan lets one expect: pruned at once, and trained on for a moment."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_prune.mapping.plan import Plan
from keras_prune.pruning import Pruner
from keras_prune.targets import Target


class QuickAccuracy:
    """Measures plans: prunes the model at once, trains it for some steps under the masks, evaluates, and restores it.

    All plans begin with the same weights and optimizer, and see the same batches if ``train`` holds arrays, so that
    their accuracies differ by the plans alone. A constant learning rate falls to nought over the second half of the
    steps: without, the accuracy after one step is points from that after the next. A plan without zeros is evaluated as
    the model is, without training.

    Args:
        model: a built and compiled Keras model; the optimizer and learning rate that it is compiled with are used.
        train: ``(inputs, targets)``, arrays with one sample a row, or a batched ``tf.data.Dataset``.
        validation: the same, to evaluate with; no images that ``train`` or the final test has.
        steps: training steps for each plan; 0 evaluates without training.
        batch_size: samples of arrays in a step.
        metric: name of the metric to be maximised, a fraction; or another such as ``"auc"`` that ``compile`` knows.
        seed: chooses the samples of arrays.

    Raises:
        ValueError: the model is not one of Keras 3 or not compiled, or knows no such metric.

    Example:
        >>> import keras, numpy as np
        >>> from keras_prune.mapping import QuickAccuracy
        >>> model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8), keras.layers.Dense(2)])
        >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        >>> data = np.ones([8, 4]), np.ones([8])
        >>> accuracy = QuickAccuracy(model, data, data, steps=2, batch_size=4)  # for plan(..., accuracy=accuracy)
    """

    def __init__(
        self,
        model: Any,
        train: Any,
        validation: Any,
        *,
        steps: int = 100,
        batch_size: int = 64,
        metric: str = "accuracy",
        seed: int = 0,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise ValueError(f"{type(model).__name__} is no model of Keras 3: give a function of the plan as accuracy")
        if not model.compiled:
            raise ValueError(
                f"model {model.name!r} is not compiled: compile it with the loss, the metric and the optimizer that "
                "plans are to be trained with"
            )
        for name, value, least in (("steps", steps, 0), ("batch_size", batch_size, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, but is {value}")
        self.model, self.validation, self.metric = model, validation, metric
        self.steps, self.batch_size = steps, batch_size
        self.train, self.seed = train, seed
        self._samples = _drawn(train, steps * batch_size, seed) if isinstance(train, tuple) else train
        self._targets: dict[str, Target] = {}

    def __call__(self, plan: Plan) -> float:
        """Return the accuracy of a plan."""
        if not plan.pruned:
            return self._evaluate()
        variables = self._variables()
        before = [(variable, variable.numpy()) for variable in variables]
        try:
            self._mask(plan)
            if self.steps:
                self._fit()
            return self._evaluate()
        finally:
            for target in self._targets.values():
                target.set_mask(np.ones_like(target.matrix(), bool))
            for variable, value in before:
                variable.assign(value)

    def longer(self, steps: int, validation: Any = None, seed: int | None = None) -> QuickAccuracy:
        """Return the same with other steps, for instance to compare the plans found.

        Both share the model's training step, which is not traced anew for either.

        Args:
            steps: training steps for each plan.
            validation: other data to evaluate with.
            seed: chooses other samples of arrays, so that what was luck with the first ones is not with these.
        """
        options: dict[str, Any] = {"batch_size": self.batch_size, "metric": self.metric}
        options["seed"] = self.seed if seed is None else seed
        data = self.validation if validation is None else validation
        other = QuickAccuracy(self.model, self.train, data, steps=steps, **options)
        other._targets = self._targets
        return other

    def release(self) -> None:
        """Take the masks, which are all ones between two plans, out of the model's training step."""
        for target in self._targets.values():
            target.uninstall()
        self._targets.clear()
        self.model.make_train_function(force=True)

    def _variables(self) -> list[Any]:
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        # Random generators of layers such as Dropout have states that are no numbers to numpy's liking, but integers.
        found = {id(variable): variable for variable in (*self.model.variables, *optimizer.variables)}
        return list(found.values())

    def _mask(self, plan: Plan) -> None:
        pruner = Pruner(self.model, plan.structures(), layers=[layer.path for layer in plan.pruned])
        pruner.prepare()
        masks = pruner.project(pruner.targets, [target.matrix() for target in pruner.targets], plan.zeros)
        # The masks of the first plan stay in the training step; a new one would have to be traced for each plan.
        for target, mask in zip(pruner.targets, masks, strict=True):
            self._targets.setdefault(target.name, target).set_mask(mask)
        if any([target.install(lambda: self.model.optimizer) for target in self._targets.values()]):
            self.model.make_train_function(force=True)

    def _fit(self) -> None:
        options: dict[str, Any] = {"callbacks": [_Falling(self.steps)], "shuffle": False, "verbose": 0}
        if isinstance(self._samples, tuple):
            inputs, targets = self._samples
            self.model.fit(inputs, targets, batch_size=self.batch_size, **options)
            return
        data = self._samples.repeat() if hasattr(self._samples, "repeat") else self._samples
        self.model.fit(data, steps_per_epoch=self.steps, **options)

    def _evaluate(self) -> float:
        data = self.validation
        if isinstance(data, tuple):
            found = self.model.evaluate(*data, batch_size=256, verbose=0, return_dict=True)
        else:
            found = self.model.evaluate(data, verbose=0, return_dict=True)
        if self.metric not in found:
            raise ValueError(
                f"the model has no metric {self.metric!r}, only {', '.join(found)}: give one of them as metric, or "
                f"compile with metrics=[{self.metric!r}]"
            )
        value = float(found[self.metric])
        return value if math.isfinite(value) else 0.0  # what diverged knows nothing


class _Falling(keras.callbacks.Callback):
    """Lets a constant learning rate fall to nought in the second half; schedules are left as they are."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.first: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        if isinstance(getattr(optimizer, "_learning_rate", None), keras.Variable):
            self.first = float(optimizer.learning_rate.numpy())

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.first is not None:
            self.model.optimizer.learning_rate = self.first * min(1.0, 2.0 * (1.0 - batch / self.steps))


def _drawn(data: tuple[Any, Any], count: int, seed: int) -> tuple[Any, Any]:
    """Draw samples, each once before any comes twice."""
    import tensorflow as tf

    leaves = tf.nest.flatten(data)
    size = len(leaves[0])
    if any(len(leaf) != size for leaf in leaves) or size == 0:
        raise ValueError(
            f"train must hold as many inputs as targets, but has {', '.join(str(len(leaf)) for leaf in leaves)}"
        )
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(size) for _ in range(max(1, math.ceil(count / size)))])[:count]
    inputs, targets = tf.nest.map_structure(lambda leaf: np.asarray(leaf)[order], data)
    return inputs, targets
