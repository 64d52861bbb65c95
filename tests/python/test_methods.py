"""The methods: penalties against loops and finite differences, ADMM against its definition, and both in training."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prune import (
    Admm,
    AlignedBlock,
    BlockPunched,
    BlockRowColumn,
    ConstantSparsity,
    Magnitude,
    Pattern,
    PolynomialDecay,
    Prune,
    Reweighted,
    Structure,
    UnalignedBlock,
    Unstructured,
)
from keras_prune.methods import METHODS
from keras_prune.pruning import Pruner
from keras_prune.structures import STRUCTURES

SCHEDULE = ConstantSparsity(0.6, begin_step=0, end_step=8, frequency=2)
KINDS: list[Structure] = [
    UnalignedBlock(4),
    AlignedBlock(3),
    Pattern(4),
    BlockPunched(4, 3),
    BlockRowColumn(4, 6),
    Unstructured(),
]
every_kind = pytest.mark.parametrize("structure", KINDS, ids=lambda kind: kind.name)


def conv_model(dtype: str = "float64", regularizer: Any = None) -> Any:
    """Two convolutions, of 3x3 and of 1x1, whose sizes are not multiples of the blocks'."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([5, 5, 5]),
            layers.Conv2D(7, 3, dtype=dtype, name="spatial", kernel_regularizer=regularizer),
            layers.Conv2D(6, 1, dtype=dtype, name="pointwise"),
        ]
    )


def started(method: Any, structure: Structure, dtype: str = "float64") -> Pruner:
    pruner = Pruner(conv_model(dtype), structure, layers="*")
    pruner.prepare()
    method.start(pruner.targets, SCHEDULE)
    return pruner


def group_indices(
    structure: Structure, rows: int, kernel: int, channels: int
) -> list[list[list[tuple[int, int, int]]]]:
    """The divisions into groups, as lists of groups of (row, kernel position, channel), by loops."""

    def division(group_of: Any) -> list[list[tuple[int, int, int]]]:
        found: dict[Any, list[tuple[int, int, int]]] = {}
        for entry in itertools.product(range(rows), range(kernel), range(channels)):
            found.setdefault(group_of(*entry), []).append(entry)
        return list(found.values())

    if isinstance(structure, UnalignedBlock):
        size = structure.size
        return [division(lambda r, k, c, o=o: ((r + o) // size, k, c)) for o in range(size)]
    if isinstance(structure, AlignedBlock):
        return [division(lambda r, k, c: (r // structure.size, k, c))]
    if isinstance(structure, Pattern):
        return [division(lambda r, k, c: (r, c))]
    if isinstance(structure, BlockPunched):
        return [division(lambda r, k, c: (r // structure.filters, k, c // structure.channels))]
    if isinstance(structure, BlockRowColumn):
        p, q = structure.rows, structure.columns
        return [
            division(lambda r, k, c: (r, (k * channels + c) // q)),
            division(lambda r, k, c: (r // p, k, c)),
        ]
    return [division(lambda r, k, c: (r, k, c))]


def test_every_structure_and_method_is_tested() -> None:
    assert {kind.name for kind in KINDS} == set(STRUCTURES)
    assert set(METHODS) == {"magnitude", "admm", "reweighted"}


@every_kind
@pytest.mark.parametrize("squared", [True, False])
def test_the_reweighted_penalty_by_loops_and_finite_differences(
    structure: Structure, squared: bool, rng: np.random.Generator
) -> None:
    method = Reweighted(strength=0.3, eps=0.02, squared=squared)
    pruner = started(method, structure)
    for target in pruner.targets:
        assert float(method.penalty(target)(target.variable)) == 0  # type: ignore[misc]
    # Factors are of the weights at the refresh, in float32 as they are kept.
    old = [target.values().astype(np.float64) for target in pruner.targets]
    method.update(pruner.targets, 0.6, pruner.project, 0.25)
    for target, before in zip(pruner.targets, old, strict=True):
        height, width, channels, rows = target.shape
        now = rng.standard_normal(target.shape)
        now[..., 0] = 0  # groups without any weight
        penalty = method.penalty(target)
        assert penalty is not None
        expected = 0.0
        divisions = group_indices(target.structure, rows, height * width, channels)
        for division in divisions:
            for group in division:
                places = [(*np.unravel_index(k, (height, width)), c, r) for r, k, c in group]
                norm_before = sum(before[p] ** 2 for p in places)
                norm_now = sum(now[p] ** 2 for p in places)
                if not squared:
                    norm_before, norm_now = norm_before**0.5, norm_now**0.5
                expected += norm_now / (norm_before + 0.02)
        np.testing.assert_allclose(penalty(tf.constant(now)), 0.3 * expected / len(divisions), rtol=1e-5)
        assert_gradient(penalty, now, rng)


@every_kind
def test_the_admm_penalty_by_finite_differences(structure: Structure, rng: np.random.Generator) -> None:
    method = Admm(rho=[0.7])
    pruner = started(method, structure)
    method.update(pruner.targets, 0.6, pruner.project, 0.0)
    for target in pruner.targets:
        penalty = method.penalty(target)
        assert penalty is not None
        assert_gradient(penalty, rng.standard_normal(target.shape), rng)


def assert_gradient(penalty: Any, at: np.ndarray, rng: np.random.Generator) -> None:
    """Compare the gradient with central differences, at entries that are not 0, where a norm has a kink."""
    weights = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = penalty(weights)
    gradient = tape.gradient(value, weights).numpy()
    assert np.isfinite(gradient).all()
    places = np.argwhere(at != 0)
    for place in places[rng.choice(len(places), 12, replace=False)]:
        step = np.zeros(at.shape)
        step[tuple(place)] = 1e-6
        difference = (penalty(tf.constant(at + step)) - penalty(tf.constant(at - step))) / 2e-6
        np.testing.assert_allclose(gradient[tuple(place)], difference, rtol=1e-4, atol=1e-7)


@every_kind
def test_admm_is_as_defined(structure: Structure, rng: np.random.Generator) -> None:
    """Z = P(W + U) and U += W - Z, a pair a constraint, with multipliers rho U that stay as rho changes."""
    method = Admm(rho=[0.01, 0.1])
    pruner = started(method, structure, "float32")
    duals = {(t.name, i): np.zeros(t.shape) for t in pruner.targets for i in range(2)}
    for progress, rho, scale in [(0.0, 0.01, 1.0), (0.4, 0.01, 1.0), (0.5, 0.1, 0.1), (0.9, 0.1, 1.0)]:
        for target in pruner.targets:
            target.variable.assign(rng.standard_normal(target.shape).astype(np.float32))
        method.update(pruner.targets, 0.7, pruner.project, progress)
        for target in pruner.targets:
            weights, expected = target.values().astype(np.float64), 0.0
            for i, part in enumerate(target.structure.parts(target.kernel)):
                dual = duals[target.name, i] * scale
                total = (weights + dual).astype(np.float32)
                mask = part.mask(target.view.to_matrix(total), 0.7, target.kernel)
                auxiliary = np.where(target.view.from_matrix(mask, target.shape), total, 0)
                duals[target.name, i] = dual = dual + weights - auxiliary
                expected += rho / 2 * np.sum((weights - auxiliary + dual) ** 2)
            penalty = method.penalty(target)
            assert penalty is not None
            assert float(penalty(target.variable)) == pytest.approx(expected, rel=1e-4)
    spatial = pruner.targets[0]
    assert len(spatial.structure.parts(spatial.kernel)) == (2 if isinstance(structure, Pattern) else 1)


def regression(width: int = 24, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((64, 10)).astype(np.float32)
    return x, x @ generator.standard_normal((10, 3)).astype(np.float32)


def dense_model(optimizer: Any, regularizer: Any = None, **arguments: Any) -> Any:
    keras.utils.set_random_seed(11)
    dense = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input([10]),
            dense(24, activation="tanh", name="first", kernel_regularizer=regularizer),
            dense(18, name="second"),
            dense(3, name="last"),
        ]
    )
    model.compile(optimizer, "mse", **arguments)
    return model


class Notes(keras.callbacks.Callback):
    """The kernels' fractions of zeros after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        kernels = [self.model.get_layer(name).get_weights()[0] for name in ("first", "second")]
        self.zeros.append(float(np.mean(np.concatenate([k.ravel() for k in kernels]) == 0)))


@pytest.mark.parametrize("method", [Admm([0.3]), Reweighted(0.02, squared=False)], ids=["admm", "reweighted"])
def test_the_logged_loss_contains_the_penalty(method: Any) -> None:
    x, y = regression()
    model = dense_model(keras.optimizers.SGD(0.0), regularizer=keras.regularizers.L2(0.1))
    model.fit(x, y, batch_size=64, epochs=1, verbose=0)  # compiles a step that knows nothing of the penalty
    own = 0.1 * float(np.sum(np.square(model.get_layer("first").get_weights()[0])))
    plain = float(np.mean(np.square(model.predict(x, verbose=0) - y))) + own
    prune = Prune(AlignedBlock(4), ConstantSparsity(0.5, 1, 3, frequency=1), method)
    history = model.fit(x, y, batch_size=64, epochs=4, callbacks=[prune], verbose=0).history["loss"]
    targets = prune._require().targets
    # The weights do not move, so the first epoch is without a penalty, and the next ones have it.
    assert history[0] == pytest.approx(plain, rel=1e-5)
    assert history[1] > 1.01 * plain
    assert not isinstance(model.get_layer("first").kernel.regularizer, keras.regularizers.L2)
    own_after = 0.1 * float(np.sum(np.square(model.get_layer("first").get_weights()[0])))
    pruned = float(np.mean(np.square(model.predict(x, verbose=0) - y))) + own_after
    assert history[3] == pytest.approx(pruned, rel=1e-5)
    assert sum(float(method.penalty(target)(target.variable)) for target in targets) == 0
    prune.release()
    assert isinstance(model.get_layer("first").kernel.regularizer, keras.regularizers.L2)
    assert model.get_layer("second").kernel.regularizer is None


@pytest.mark.parametrize(
    ("method", "structure"), [(Admm(), Pattern(4)), (Reweighted(), BlockRowColumn(4, 6))], ids=["admm", "reweighted"]
)
def test_weights_are_pruned_at_the_end_and_stay_so(method: Any, structure: Structure) -> None:
    x, y = regression()
    model, notes = dense_model("adam"), Notes()
    prune = Prune(structure, ConstantSparsity(0.7, 2, 10, frequency=4), method)
    before = model.get_layer("second").get_weights()[0]
    model.fit(x, y, batch_size=16, epochs=4, callbacks=[prune, notes], verbose=0, shuffle=False)
    assert notes.zeros[:9] == [0.0] * 9
    assert notes.zeros[9:] == [pytest.approx(prune.sparsity)] * 7
    assert prune.sparsity == pytest.approx(0.7, abs=0.02)
    after = model.get_layer("second").get_weights()[0]
    assert (after[after != 0] != before[after != 0]).all()


def test_a_training_too_short_to_prune_is_told_and_another_callback_takes_over() -> None:
    x, y = regression()
    model = dense_model("sgd")
    with pytest.warns(UserWarning, match=r"nothing is pruned yet: training ended after 2 steps.* to step 8"):
        model.fit(x, y, callbacks=[Prune(AlignedBlock(4), SCHEDULE, Admm())], verbose=0)
    assert model.get_layer("first").kernel.regularizer is not None
    second = Prune(AlignedBlock(4), ConstantSparsity(0.5, 0), Magnitude())
    model.fit(x, y, callbacks=[second], verbose=0)
    assert model.get_layer("first").kernel.regularizer is None
    assert second.sparsity == pytest.approx(0.5, abs=0.02)


def lost_share(method: Any, zeros: float) -> float:
    """Share of energy that pruning would take after a training whose schedule goes on past it, so nothing is masked."""
    x, y = regression()
    model = dense_model(keras.optimizers.Adam(0.01))
    prune = Prune(AlignedBlock(3), ConstantSparsity(zeros, 0, 201, frequency=20), method)
    model.fit(np.tile(x, (50, 1)), np.tile(y, (50, 1)), batch_size=16, callbacks=[prune], verbose=0, shuffle=False)
    matrix = model.get_layer("second").get_weights()[0].T
    mask = AlignedBlock(3).mask(matrix, 0.6)
    return float(np.sum(matrix[~mask] ** 2) / np.sum(matrix**2))


@pytest.fixture(scope="module")
def lost_without_penalty() -> float:
    return lost_share(Magnitude(), 0.0)


@pytest.mark.filterwarnings("ignore:nothing is pruned yet")
@pytest.mark.parametrize("method", [Admm([1e-2, 1e-1, 1.0]), Reweighted(3e-3)], ids=["admm", "reweighted"])
def test_penalties_draw_weights_towards_the_structure(method: Any, lost_without_penalty: float) -> None:
    assert lost_share(method, 0.6) < 0.5 * lost_without_penalty


def test_rates_emerge_by_themselves(rng: np.random.Generator) -> None:
    model = dense_model(keras.optimizers.SGD(0.0))
    scales = {"first": np.array([1.0] * 12 + [1e-4] * 12), "second": np.array([1e-4] * 15 + [1.0] * 3)}
    for name, scale in scales.items():
        kernel = model.get_layer(name).kernel
        kernel.assign((rng.choice([-1.0, 1.0], kernel.shape) * scale).astype(np.float32))
    prune = Prune(AlignedBlock(3), ConstantSparsity(0.0, 0, 2, frequency=1), Reweighted(threshold=1e-3))
    x, y = regression()
    model.fit(x, y, batch_size=16, callbacks=[prune], verbose=0)
    assert prune.report()["first"].zeros == pytest.approx(12 / 24, abs=0.02)
    assert prune.report()["second"].zeros == pytest.approx(15 / 18, abs=0.02)


@pytest.mark.parametrize("method", [Admm(), Reweighted()], ids=repr)
def test_a_schedule_without_an_end_is_refused(method: Any) -> None:
    x, y = regression()
    with pytest.raises(ValueError, match=r"prunes at the schedule's end_step, but ConstantSparsity.* has none"):
        dense_model("sgd").fit(x, y, callbacks=[Prune(AlignedBlock(4), ConstantSparsity(0.5, 0), method)], verbose=0)


def test_bad_arguments_are_refused() -> None:
    for rho in ((), (0.0,), (1e-3, -1.0), (float("nan"),)):
        with pytest.raises(ValueError, match="rho must be"):
            Admm(rho)
    for arguments in ({"strength": 0}, {"eps": -1}, {"threshold": 0}, {"threshold": 1}, {"eps": float("nan")}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
            Reweighted(**arguments)  # type: ignore[arg-type]


def test_progress() -> None:
    schedule = PolynomialDecay(0.0, 0.5, begin_step=10, end_step=30)
    assert [schedule.progress(step) for step in (0, 10, 15, 30, 99)] == [0, 0, 0.25, 1, 1]
    assert ConstantSparsity(0.5, 3).progress(10**6) == 0
    assert [ConstantSparsity(0.5, 3, 3).progress(step) for step in (2, 3)] == [0, 1]
