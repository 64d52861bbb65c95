"""Quick accuracy against training by the callback."""

from __future__ import annotations

import numpy as np
import pytest
from latency_tables import analytic_table

from keras_prune import Prune
from keras_prune.mapping import QuickAccuracy, plan


def made_plan(model):
    return plan(model, "60%", analytic_table())


def test_quick_accuracy_is_that_of_training_under_the_masks(trainable, images):
    import keras

    model, made = trainable, made_plan(trainable)
    assert len(made.pruned) == 2
    measured = QuickAccuracy(model, images, images, steps=5, batch_size=8, metric="loss")
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    first = measured(made)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, variables, strict=True))
    assert measured(made) == first
    assert measured.longer(5, images)(made) == first
    measured.release()
    assert all(getattr(v, "constraint", None) is None for v in model.trainable_variables)
    # The same by the callback, on the same samples in the same order.
    order = np.random.default_rng(0).permutation(40)
    unpruned = model.evaluate(*images, batch_size=256, verbose=0)[0]
    prune = Prune(made.structures(), lambda step: (step == 0, made.zeros), layers=[p.path for p in made.pruned])

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            model.optimizer.learning_rate = (1e-3, 1e-3, 1e-3, 0.8e-3, 0.4e-3)[batch]

    callbacks = [prune, Rates()]
    model.fit(images[0][order], images[1][order], batch_size=8, shuffle=False, callbacks=callbacks, verbose=0)
    assert model.evaluate(*images, batch_size=256, verbose=0)[0] == pytest.approx(first, rel=1e-4)
    assert first != pytest.approx(unpruned, rel=1e-3)


def test_masks_act_in_compiled_steps(trainable, images):
    made, found = made_plan(trainable), []
    for eagerly in (True, False):
        trainable.compile("adam", trainable.loss, run_eagerly=eagerly)
        measured = QuickAccuracy(trainable, images, images, steps=3, batch_size=8, metric="loss")
        found.append(measured(made))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_quick_accuracy_of_data_sets(trainable, images):
    import tensorflow as tf

    made = made_plan(trainable)
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    back = np.argsort(np.random.default_rng(0).permutation(40))
    found = QuickAccuracy(trainable, data, data, steps=5, metric="loss")(made)
    arrays = QuickAccuracy(trainable, (images[0][back], images[1][back]), images, steps=5, batch_size=8, metric="loss")
    assert arrays(made) == pytest.approx(found, rel=1e-4)


def test_quick_accuracy_says_what_is_missing(trainable, images):
    import keras

    with pytest.raises(ValueError, match="dict is no model of Keras 3"):
        QuickAccuracy({}, images, images)
    with pytest.raises(ValueError, match="is not compiled: compile it"):
        QuickAccuracy(keras.Sequential([keras.Input([2]), keras.layers.Dense(2)]), images, images)
    with pytest.raises(ValueError, match=r"no metric 'auc', only accuracy, loss: give one of them"):
        QuickAccuracy(trainable, images, images, steps=0, metric="auc")(made_plan(trainable))
    with pytest.raises(ValueError, match="steps must be at least 0"):
        QuickAccuracy(trainable, images, images, steps=-1)
    with pytest.raises(ValueError, match="as many inputs as targets, but has 40, 39"):
        QuickAccuracy(trainable, (images[0], images[1][1:]), images)
