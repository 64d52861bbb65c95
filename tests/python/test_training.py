"""Masks and penalties in the ways in which people train: each with a method that has both."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prune import AlignedBlock, ConstantSparsity, Prune, Reweighted

# Nothing is zero before step 5, and everything from there on.
SCHEDULE = ConstantSparsity(0.5, begin_step=1, end_step=5, frequency=2)


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    x = generator.standard_normal((40, 10)).astype(np.float32)
    return x, x[:, :3]


class OwnStep(keras.Model):
    """Trains with a step of the user's own."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def make(policy: str = "float32", model: Any = keras.Model, optimizer: Any = lambda: "adam", **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input([10])
    hidden = keras.layers.Dense(18, activation="tanh", name="hidden", dtype=policy)(inputs)
    outputs = keras.layers.Dense(3, name="last", dtype=policy)(hidden)
    model = model(inputs, outputs)
    model.compile(optimizer(), "mse", **options)
    return model


WAYS: dict[str, dict[str, Any]] = {
    "float16": {
        "policy": "mixed_float16",
        "optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    },
    "bfloat16": {"policy": "mixed_bfloat16"},
    "jit": {"jit_compile": True},
    "own step": {"model": OwnStep},
    "accumulation": {"optimizer": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2)},
}


class Watch(keras.callbacks.Callback):
    """Notes after every batch where the zeros are, and the loss."""

    _implements_train_batch_hooks = Prune._implements_train_batch_hooks
    _implements_test_batch_hooks = Prune._implements_test_batch_hooks
    _implements_predict_batch_hooks = Prune._implements_predict_batch_hooks

    def __init__(self) -> None:
        super().__init__()
        self.zeros: list[np.ndarray] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        kernel = self.model.get_layer("hidden").get_weights()[0]
        assert np.isfinite(kernel.astype(np.float32)).all()
        self.zeros.append(kernel == 0)
        self.losses.append(float(logs["loss"]))


def train(model: Any, prune: Prune) -> Watch:
    watch = Watch()
    model.fit(*data(), batch_size=4, epochs=1, verbose=0, shuffle=False, callbacks=[prune, watch])
    return watch


@pytest.mark.parametrize("way", WAYS)
def test_masks_and_penalties_act(way: str) -> None:
    prune = Prune(AlignedBlock(4), SCHEDULE, Reweighted(10.0))
    watch = train(make(**WAYS[way]), prune)
    assert [zeros.mean() for zeros in watch.zeros[:4]] == [0.0] * 4
    assert watch.zeros[4].mean() == pytest.approx(0.5, abs=0.02) == prune.sparsity
    for zeros in watch.zeros[5:]:
        np.testing.assert_array_equal(zeros, watch.zeros[4])
    # Losses are means over the batches so far, and the penalty begins with the second.
    assert watch.losses[1] > 2 * watch.losses[0]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_tf_keras_models_are_pruned_too(policy: str) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    recurrent = policy == "float32"
    model = tf_keras.Sequential(
        [
            tf_keras.Input((2, 5)),
            layers.Bidirectional(layers.SimpleRNN(4), name="both") if recurrent else layers.Flatten(name="both"),
            layers.Dense(12, name="hidden", kernel_constraint=tf_keras.constraints.MaxNorm(2.0), dtype=policy),
            layers.Dense(3, name="last", dtype=policy),
        ]
    )
    optimizer = tf_keras.optimizers.Adam(0.01)
    if policy != "float32":
        optimizer = tf_keras.mixed_precision.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    x, y = data()
    prune = Prune(AlignedBlock(4), SCHEDULE, Reweighted(10.0), layers=["both", "hidden"][not recurrent :])
    watch = Watch()
    # The two packages have callbacks of their own, and each takes the other's.
    model.fit(x.reshape(40, 2, 5), y, batch_size=4, verbose=0, shuffle=False, callbacks=[prune, watch])
    assert [zeros.mean() for zeros in watch.zeros[:4]] == [0.0] * 4
    for zeros in watch.zeros[4:]:
        np.testing.assert_array_equal(zeros, watch.zeros[4])
    assert watch.losses[1] > 2 * watch.losses[0]
    assert len(prune.report().pruned) == (5 if recurrent else 1)
    for target in prune._require().targets:
        assert np.mean(target.variable.numpy() == 0) == pytest.approx(0.5, abs=0.11)
    prune.release()
    hidden = model.get_layer("hidden")
    assert isinstance(hidden.kernel.constraint, tf_keras.constraints.MaxNorm)
    assert not hidden._callable_losses


MIRRORED = """
import contextlib

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_training as t
from keras_prune import Admm, AlignedBlock, ConstantSparsity, Prune

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
# fit may be called inside the scope or outside; what the method keeps is replicated inside.
for scope in (contextlib.nullcontext, strategy.scope):
    with strategy.scope():
        model = t.make(optimizer=lambda: "sgd")
    with scope():
        watch = t.train(model, Prune(AlignedBlock(4), ConstantSparsity(0.5, 1, 5, 2), Admm([0.1])))
    kernel = model.get_layer("hidden").kernel.value
    assert len({copy.device for copy in kernel.values}) == 2
    for copy in kernel.values:
        np.testing.assert_array_equal(copy.numpy(), kernel.values[0].numpy())
        np.testing.assert_array_equal(copy.numpy() == 0, watch.zeros[4])
    assert abs(watch.zeros[4].mean() - 0.5) < 0.02 and not watch.zeros[3].any()
print("done")
"""


def test_replicas_have_the_same_masks() -> None:
    paths = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", MIRRORED], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("done\n"), done.stderr
