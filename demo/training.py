"""Training the dense network, and fine-tuning it while it is pruned."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import keras

from demo.console import Screen, Update
from demo.files import Images
from keras_prune import PolynomialDecay, Prune, UnalignedBlock

PRUNED_BY = 0.6
"""The share of the fine-tuning after which all zeros are there; the rest of it recovers accuracy."""
MASK_UPDATES = 24


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train.

    Args:
        dense_epochs: epochs of the dense training.
        pruning_epochs: epochs of the fine-tuning.
        seconds: fewer epochs are done, but at least one each, where all would take longer than this.
        batch_size: images a step.
    """

    dense_epochs: int = 3
    pruning_epochs: int = 2
    seconds: float = 330.0
    batch_size: int = 128


@dataclasses.dataclass
class History:
    """What was recorded at each training step: one value a step in each list."""

    loss: list[float] = dataclasses.field(default_factory=list)
    accuracy: list[float] = dataclasses.field(default_factory=list)
    sparsity: list[float] = dataclasses.field(default_factory=list)
    epochs: int = 0


class _Guide(keras.callbacks.Callback):
    """Sets the learning rate, shows progress, records, and ends training in time.

    The learning rate rises over the first steps, and falls to zero along a half cosine over all steps after ``hold``.
    """

    def __init__(self, update: Update, peak: float, hold: int, steps: int, epochs: int, deadline: float) -> None:
        super().__init__()
        self.update, self.peak, self.hold = update, peak, hold
        self.steps_per_epoch, self.epochs, self.deadline = steps, epochs, deadline
        self.history = History()
        self.step = 0
        self.epoch_began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch_began = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        warm_up = min(1.0, (self.step + 1) / 50)
        total = self.epochs * self.steps_per_epoch
        fall = max(0.0, (self.step - self.hold) / max(total - self.hold, 1))
        self.model.optimizer.learning_rate = self.peak * warm_up * (1 + math.cos(math.pi * fall)) / 2

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step += 1
        logs = logs or {}
        self.history.loss.append(float(logs["loss"]))
        self.history.accuracy.append(float(logs["accuracy"]))
        self.history.sparsity.append(float(logs.get("sparsity", 0.0)))
        note = f"loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f}"
        if "sparsity" in logs:
            note += f", zeros {logs['sparsity']:.0%}"
        self.update(self.step, note, self.epochs * self.steps_per_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.monotonic() - self.epoch_began
        left = self.deadline - time.monotonic()
        self.epochs = int(min(self.epochs, epoch + 1 + max(0.0, left / seconds)))
        self.history.epochs = epoch + 1
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True


def train_dense(model: keras.Model, images: Images, plan: Plan, screen: Screen) -> History:
    """Train the network from its beginning."""
    share = plan.dense_epochs / (plan.dense_epochs + plan.pruning_epochs)
    epochs, steps = plan.dense_epochs, _steps(images, plan)
    # How many epochs there is time for is known after the first, and so the learning rate can fall only then.
    return _fit(model, images, plan, screen, 2e-3, steps, epochs, share * plan.seconds, [])


def to_unaligned_blocks(end_step: int, zeros: float) -> Prune:
    """Prune gradually until a step."""
    return Prune(
        UnalignedBlock(size=4, selection="bed"),
        PolynomialDecay(
            0.0, zeros, begin_step=0, end_step=end_step, power=3, frequency=max(1, end_step // MASK_UPDATES)
        ),
    )


def fine_tune(
    model: keras.Model,
    images: Images,
    plan: Plan,
    screen: Screen,
    zeros: float,
    dense_seconds: float,
    dense: History,
    make_prune: Callable[[int, float], Prune] = to_unaligned_blocks,
) -> tuple[History, Prune]:
    """Prune the trained network to a fraction of zeros while it trains on.

    Args:
        model: the trained network; its weights change in place.
        images: what to train on.
        plan: how long.
        screen: where to show progress.
        zeros: fraction of zeros to reach.
        dense_seconds: time that the dense training took.
        dense: what was recorded then.
        make_prune: makes the callback that prunes, from the step at which all zeros are there, and their fraction.

    Returns:
        What was recorded, and the callback that pruned.
    """
    steps = _steps(images, plan)
    left = plan.seconds - dense_seconds
    epochs = max(1, min(plan.pruning_epochs, round(left / (dense_seconds / max(dense.epochs, 1)))))
    end = max(1, round(PRUNED_BY * epochs * steps))
    prune = make_prune(end, zeros)
    # The number of epochs stands: the schedule has to come to its end.
    return _fit(model, images, plan, screen, 1e-3, 0, epochs, math.inf, [prune]), prune


def _steps(images: Images, plan: Plan) -> int:
    return math.ceil(len(images) / plan.batch_size)


def _fit(
    model: keras.Model,
    images: Images,
    plan: Plan,
    screen: Screen,
    peak: float,
    hold: int,
    epochs: int,
    seconds: float,
    callbacks: list[keras.callbacks.Callback],
) -> History:
    model.compile(
        keras.optimizers.Adam(peak),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    steps = _steps(images, plan)
    with screen.progress("step", epochs * steps) as update:
        guide = _Guide(update, peak, hold, steps, epochs, time.monotonic() + seconds)
        model.fit(
            images.pixels,
            images.labels,
            batch_size=plan.batch_size,
            epochs=epochs,
            callbacks=[*callbacks, guide],
            verbose=0,
        )
    return guide.history
