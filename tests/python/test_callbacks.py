"""The callback in real training: weights are sparse after every batch, whatever else goes on in ``fit``."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prune import AlignedBlock, ConstantSparsity, PolynomialDecay, Prune, UnalignedBlock
from keras_prune.layers import CONV_2D

Make = Callable[..., Any]
Data = tuple[np.ndarray, np.ndarray]

PRUNED = ("pointwise", "conv", "hidden")


def zeros_of(model: Any, name: str) -> float:
    return float(np.mean(model.get_layer(name).get_weights()[0] == 0))


class Watch(keras.callbacks.Callback):
    """Notes after every batch the fraction of zeros, and that all zeros are +0.0 and in whole blocks."""

    def __init__(self, prune: Prune, size: int = 4) -> None:
        super().__init__()
        self.prune = prune
        self.size = size
        self.zeros: list[float] = []
        self.logged: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        kernels = [self.model.get_layer(name).get_weights()[0] for name in PRUNED]
        for kernel in kernels:
            assert not np.signbit(kernel[kernel == 0]).any()
            matrix = CONV_2D.to_matrix(kernel) if kernel.ndim == 4 else kernel.T
            edges = np.diff(np.pad(matrix != 0, ((1, 1), (0, 0))).astype(int), axis=0)
            for column in edges.T if (matrix == 0).mean() > 0.1 else []:
                runs = np.flatnonzero(column == -1) - np.flatnonzero(column == 1)
                assert (runs % self.size == 0).all()
        self.zeros.append(sum(int((k == 0).sum()) for k in kernels) / sum(k.size for k in kernels))
        assert logs is not None
        self.logged.append(logs["sparsity"])


def fit(model: Any, data: Data, callbacks: list[Any], epochs: int = 2, **arguments: Any) -> Any:
    options = {"batch_size": 4, "epochs": epochs, "verbose": 0, "shuffle": False, **arguments}
    return model.fit(*data, callbacks=callbacks, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"jit_compile": True}, {"optimizer": keras.optimizers.SGD(0.01, momentum=0.9)}],
    ids=["graph", "eager", "jit", "momentum"],
)
def test_weights_are_sparse_after_every_batch(small_cnn: Make, images: Data, options: dict[str, Any]) -> None:
    model = small_cnn(**options)
    schedule = PolynomialDecay(0.2, 0.8, begin_step=3, end_step=15, frequency=4)
    prune = Prune(UnalignedBlock(4), schedule)
    watch = Watch(prune)
    history = fit(model, images, [prune, watch])
    for step, (zeros, logged) in enumerate(zip(watch.zeros, watch.logged, strict=True), start=1):
        last_update = max((s for s in range(step + 1) if schedule(s)[0]), default=None)
        expected = 0.0 if last_update is None else schedule.sparsity(last_update)
        assert expected <= zeros + 1e-7 < expected + 0.05, step
        assert logged == pytest.approx(zeros)
    assert watch.zeros[-1] == pytest.approx(0.8, abs=0.01)
    assert history.history["sparsity"] == [watch.zeros[9], watch.zeros[19]]


@pytest.mark.parametrize("structure", [UnalignedBlock(4, "optimal"), AlignedBlock(3)])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_are_the_structures_own(small_cnn: Make, images: Data, structure: Any, scope: str) -> None:
    # At a learning rate of 0 the weights stay what they were, so that the masks can be told from the outside.
    model = small_cnn(optimizer=keras.optimizers.SGD(0.0))
    kernels = [model.get_layer(name).get_weights()[0] for name in PRUNED]
    matrices = [CONV_2D.to_matrix(k) if k.ndim == 4 else k.T for k in kernels]
    fit(model, images, [Prune(structure, ConstantSparsity(0.7, begin_step=2), scope=scope)], epochs=1)
    apart, together = [structure.mask(m, 0.7) for m in matrices], structure.masks(matrices, 0.7)
    masks = apart if scope == "layer" else together
    for name, matrix, mask in zip(PRUNED, matrices, masks, strict=True):
        kernel = model.get_layer(name).get_weights()[0]
        after = CONV_2D.to_matrix(kernel) if kernel.ndim == 4 else kernel.T
        np.testing.assert_array_equal(after, np.where(mask, matrix, 0))


def test_training_goes_on_under_the_mask(small_cnn: Make, images: Data) -> None:
    model = small_cnn()
    before = model.get_layer("conv").get_weights()[0]
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0, end_step=0))
    fit(model, images, [prune])
    after = model.get_layer("conv").get_weights()[0]
    assert np.mean(after == 0) == pytest.approx(prune.report()["conv"].zeros)
    assert np.all(after[after != 0] != before[after != 0])


def test_without_pruning_yet_training_is_as_without_the_callback(small_cnn: Make, images: Data) -> None:
    plain, pruned = small_cnn(), small_cnn()
    fit(plain, images, [])
    fit(pruned, images, [Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=1000))])
    for a, b in zip(plain.get_weights(), pruned.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_last_fraction_is_reached_off_the_beat(small_cnn: Make, images: Data) -> None:
    schedule = PolynomialDecay(0.0, 0.75, begin_step=0, end_step=17, frequency=5)
    prune = Prune(UnalignedBlock(4), schedule)
    watch = Watch(prune)
    fit(small_cnn(), images, [prune, watch])
    assert watch.zeros[15] < watch.zeros[16] == pytest.approx(0.75, abs=0.01)


def test_a_schedule_that_ends_with_training_is_finished(small_cnn: Make, images: Data) -> None:
    prune = Prune(UnalignedBlock(4), PolynomialDecay(0.0, 0.75, begin_step=0, end_step=20, frequency=10))
    fit(small_cnn(), images, [prune])
    assert prune.step == 20
    assert prune.sparsity == pytest.approx(0.75, abs=0.01)


def test_several_fits_go_on_counting(small_cnn: Make, images: Data) -> None:
    model = small_cnn()
    prune = Prune(UnalignedBlock(4), PolynomialDecay(0.0, 0.8, begin_step=0, end_step=30, frequency=10))
    sparsities = []
    for _ in range(4):
        fit(model, images, [prune], epochs=1)
        sparsities.append(prune.sparsity)
    assert prune.step == 40
    expected = [prune.schedule.sparsity(step) for step in (10, 20, 30, 30)]
    assert sparsities == [pytest.approx(e, abs=0.01) for e in expected]


def test_steps_per_execution_are_counted_one_by_one(small_cnn: Make, images: Data) -> None:
    model = small_cnn(steps_per_execution=4)
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.6, begin_step=6, end_step=6))
    dataset = tf.data.Dataset.from_tensor_slices(images).repeat(2).batch(5)
    model.fit(dataset, epochs=1, callbacks=[prune], verbose=0)
    assert prune.step == 16
    assert zeros_of(model, "conv") == pytest.approx(0.6, abs=0.01)


def test_sparsity_outlives_the_callback_until_released(small_cnn: Make, images: Data) -> None:
    model = small_cnn()
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0))
    fit(model, images, [prune])
    pattern = model.get_layer("conv").get_weights()[0] == 0
    fit(model, images, [])
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0] == 0, pattern)
    prune.release()
    fit(model, images, [])
    assert zeros_of(model, "conv") < 0.01


def test_a_second_callback_takes_over(small_cnn: Make, images: Data) -> None:
    model = small_cnn()
    fit(model, images, [Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0))])
    second = Prune(UnalignedBlock(4), ConstantSparsity(0.8, begin_step=5))
    fit(model, images, [second])
    assert zeros_of(model, "conv") == pytest.approx(0.8, abs=0.01)
    second.release()
    assert model.get_layer("conv").kernel.constraint is None


def test_a_constraint_of_the_users_own_still_holds(images: Data) -> None:
    model = keras.Sequential(
        [
            keras.Input([9, 9, 2]),
            keras.layers.Flatten(),
            keras.layers.Dense(16, name="bounded", kernel_constraint=keras.constraints.MaxNorm(0.1)),
            keras.layers.Dense(5),
        ]
    )
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0))
    fit(model, images, [prune])
    kernel = model.get_layer("bounded").get_weights()[0]
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01)
    assert np.linalg.norm(kernel, axis=0).max() <= 0.1 + 1e-5
    prune.release()
    assert isinstance(model.get_layer("bounded").kernel.constraint, keras.constraints.MaxNorm)


def test_every_checkpoint_is_sparse_and_plain(small_cnn: Make, images: Data, tmp_path: pathlib.Path) -> None:
    model = small_cnn()
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.7, begin_step=0, frequency=3))
    save = keras.callbacks.ModelCheckpoint(str(tmp_path / "{batch:03d}.keras"), save_freq=1)
    fit(model, images, [save, prune], epochs=1)
    names = [layer.name for layer in model.layers]
    assert len(list(tmp_path.iterdir())) == 10
    for batch in (2, 10):
        loaded = keras.models.load_model(tmp_path / f"{batch:03d}.keras")
        assert [layer.name for layer in loaded.layers] == names
        assert len(loaded.weights) == len(model.weights)
        for name in PRUNED:
            assert zeros_of(loaded, name) == pytest.approx(0.7, abs=0.03)
    np.testing.assert_array_equal(loaded.predict(images[0], verbose=0), model.predict(images[0], verbose=0))


@pytest.mark.parametrize("overwrite", [None, 3])
def test_moving_averages_are_sparse_too(small_cnn: Make, images: Data, overwrite: int | None) -> None:
    optimizer = keras.optimizers.Adam(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=overwrite)
    model = small_cnn(optimizer=optimizer)
    seen: list[float] = []

    class Swapped(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            index = optimizer._get_variable_index(model.get_layer("conv").kernel)
            seen.append(float(np.mean(optimizer._model_variables_moving_average[index].numpy() == 0)))

    fit(model, images, [Prune(UnalignedBlock(4), ConstantSparsity(0.7, begin_step=2, end_step=2)), Swapped()])
    assert seen[0] < 0.01
    assert seen[1:] == [pytest.approx(0.7, abs=0.01)] * 19
    assert zeros_of(model, "conv") == pytest.approx(0.7, abs=0.01)


def test_a_training_step_past_the_optimizer_is_masked_too(images: Data) -> None:
    class Manual(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            for variable, gradient in zip(
                self.trainable_variables, tape.gradient(loss, self.trainable_variables), strict=True
            ):
                variable.assign(variable - 0.1 * gradient)
            return {"loss": loss}

    inputs = keras.Input([9, 9, 2])
    hidden = keras.layers.Dense(16, name="hidden")(keras.layers.Flatten()(inputs))
    model = Manual(inputs, keras.layers.Dense(5)(hidden))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    zeros = []

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            zeros.append(zeros_of(model, "hidden"))

    fit(model, images, [Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=2, end_step=2)), Note()])
    assert zeros[1:] == [pytest.approx(0.5, abs=0.01)] * 19


def test_tfmot_schedules_are_taken_as_they_are(small_cnn: Make, images: Data) -> None:
    tfmot = pytest.importorskip("tensorflow_model_optimization").sparsity.keras
    prune = Prune(UnalignedBlock(4), tfmot.ConstantSparsity(0.5, begin_step=0, frequency=10))
    fit(small_cnn(), images, [prune], epochs=1)
    assert prune.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused_by_name(small_cnn: Make, images: Data, bad: float) -> None:
    model = small_cnn(optimizer=keras.optimizers.SGD(0.0))
    kernel = np.array(model.get_layer("conv").get_weights()[0])
    kernel[1, 2, 3, 4] = bad
    model.get_layer("conv").kernel.assign(kernel)
    with pytest.raises(ValueError, match="kernel of layer 'conv' holds NaN or infinity"):
        fit(model, images, [Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0))])


def test_masked_entries_that_become_nan_are_zero_again(small_cnn: Make, images: Data) -> None:
    model = small_cnn(optimizer=keras.optimizers.SGD(float("nan")))
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0, end_step=0))
    fit(model, images, [prune], epochs=1)
    assert zeros_of(model, "conv") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "bed"}, "structure must be a structure such as"),
        ({"structure": UnalignedBlock}, "structure must be a structure such as"),
        ({"structure": None}, "structure must be a structure such as"),
        ({"schedule": 0.8}, "schedule must be"),
        ({"scope": "model"}, "scope must be"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    good = {"structure": UnalignedBlock(4), "schedule": ConstantSparsity(0.5, 0)}
    with pytest.raises(ValueError, match=message):
        Prune(**{**good, **arguments})


def test_unknown_layers_are_refused_before_training(small_cnn: Make, images: Data) -> None:
    model = small_cnn()
    before = model.get_weights()
    with pytest.raises(ValueError, match="'konv'"):
        fit(model, images, [Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0), layers="konv")])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_report_before_and_after(small_cnn: Make, images: Data, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_cnn()
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.5, begin_step=0), exclude="hidden", verbose=1)
    with pytest.raises(ValueError, match=r"give report\(\) the model"):
        prune.report()
    planned = prune.report(model)
    assert [line.layer for line in planned.pruned] == ["pointwise", "conv"]
    assert planned.zeros == 0
    fit(model, images, [prune], epochs=1)
    assert prune.report()["conv"].zeros == pytest.approx(zeros_of(model, "conv"))
    assert prune.report(model).zeros == pytest.approx(0.5, abs=0.01)
    printed = capsys.readouterr().out
    assert printed.count("the first convolution stays dense unless named") == 2
    assert f"{prune.sparsity:.2%} of 1,183 entries are zero" in printed


def test_repr() -> None:
    prune = Prune(AlignedBlock(8), ConstantSparsity(0.5, 0), layers="conv*", scope="global")
    assert repr(prune) == (
        "Prune(AlignedBlock(size=8), ConstantSparsity(target_sparsity=0.5, begin_step=0, end_step=-1, frequency=100), "
        "layers='conv*', scope='global')"
    )
