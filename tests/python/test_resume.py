"""A training that is killed and resumed ends as one that is not."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from keras_prune import Admm, AlignedBlock, ConstantSparsity, Magnitude, Pattern, PolynomialDecay, Prune
from keras_prune.state import StateFile

# Eight batches an epoch; masks change in the epoch that is interrupted, and at the end.
EPOCHS, BATCH = 4, 4
RECIPES: dict[str, tuple[Any, Any, Any]] = {
    "magnitude": (AlignedBlock(4), PolynomialDecay(0.1, 0.7, 3, 27, frequency=3), Magnitude()),
    "admm": (Pattern(4), ConstantSparsity(0.7, 3, 25, frequency=3), Admm([1e-2, 1e-1])),
}


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    return generator.standard_normal((32, 6, 6, 2)).astype(np.float32), generator.integers(0, 3, 32)


def make() -> Any:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([6, 6, 2]),
            layers.Conv2D(5, 3, name="stem"),
            layers.Conv2D(9, 3, name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="last"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def train(model: Any, recipe: str, folder: pathlib.Path, *further: Any, **options: Any) -> Prune:
    """Train with everything that can be interrupted; further callbacks come last."""
    prune = Prune(*RECIPES[recipe], state=folder / "state" / "prune.npz")
    backup = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
    options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0, **options}
    model.fit(*data(), callbacks=[prune, backup, *further], **options)
    return prune


class Kill(keras.callbacks.Callback):
    """Dies in the middle of an epoch, by a signal that nobody can handle."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == (2, 4):
            os.kill(os.getpid(), signal.SIGKILL)


class Count(keras.callbacks.Callback):
    """Counts batches."""

    batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1


def assert_same(unbroken: Any, expected: Prune, resumed: Any, actual: Prune) -> None:
    assert actual.step == expected.step == 32
    assert expected.sparsity == actual.sparsity >= 0.7
    for a, b in zip(unbroken.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for before, after in zip(expected._require().targets, actual._require().targets, strict=True):
        assert before.structure == after.structure
        np.testing.assert_array_equal(before.mask_variable.numpy(), after.mask_variable.numpy())


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: pathlib.Path) -> None:
    unbroken, resumed = make(), make()
    expected = train(unbroken, "admm", tmp_path / "unbroken")
    paths = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    run = "import pathlib, test_resume as t; t.train(t.make(), 'admm', pathlib.Path('killed'), t.Kill())"
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    count = Count()
    actual = train(resumed, "admm", tmp_path / "killed", count)
    assert count.batches == 16  # from the beginning of the interrupted epoch on
    assert_same(unbroken, expected, resumed, actual)


def test_a_saved_model_goes_on_as_though_it_had_never_been(tmp_path: pathlib.Path) -> None:
    unbroken, first = make(), make()
    expected = train(unbroken, "magnitude", tmp_path / "unbroken")
    train(first, "magnitude", tmp_path, epochs=2)
    first.save(tmp_path / "model.keras")
    shutil.rmtree(tmp_path / "backup")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    actual = train(resumed, "magnitude", tmp_path, initial_epoch=2)
    assert_same(unbroken, expected, resumed, actual)


class Steps(keras.callbacks.Callback):
    """Notes what files there are and of which step after each batch."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.path = path
        self.seen: list[list[int]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        found = [path for path in (self.path, self.path.with_suffix(".previous.npz")) if path.exists()]
        self.seen.append([step_of(path) for path in found])


def step_of(path: pathlib.Path) -> int:
    with np.load(path) as file:
        return int(json.loads(file["meta"].tobytes())["step"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, pathlib.Path]:
    """A trained model and the state beside it, saved every five batches."""
    path = tmp_path_factory.mktemp("saved") / "made" / "prune.npz"
    model, steps = make(), Steps(path)
    prune = Prune(AlignedBlock(4), ConstantSparsity(0.5, 0), state=path, save_freq=5)
    model.fit(*data(), batch_size=BATCH, epochs=2, verbose=0, callbacks=[prune, steps])
    assert steps.seen == [[]] * 4 + [[5]] * 5 + [[10, 5]] * 5 + [[15, 10]] * 2
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["prune.npz", "prune.previous.npz"]
    return model, path


def begun(model: Any, path: pathlib.Path, iterations: int, *arguments: Any, epoch: int = 0) -> Prune:
    """What fit does until the first batch, without compiling a step."""
    model.optimizer._iterations.assign(iterations)
    prune = Prune(*(arguments or (AlignedBlock(4), ConstantSparsity(0.5, 0))), state=path)
    prune.set_model(model)
    prune.set_params({"steps": 8})
    prune.on_train_begin()
    prune.on_epoch_begin(epoch)
    return prune


@pytest.mark.parametrize(("iterations", "step"), [(15, 15), (10, 10), (0, 0)])
def test_the_state_that_belongs_to_the_weights_is_taken(saved: Any, iterations: int, step: int) -> None:
    assert begun(*saved, iterations).step == step


@pytest.mark.parametrize(
    ("iterations", "arguments", "message"),
    [
        (12, (), r"after 15 and 10 steps of the optimizer, but the model's has done 12. Load the weights"),
        (15, (AlignedBlock(3), ConstantSparsity(0.5, 0)), "another structure for 'conv/kernel' than AlignedBlock"),
        (15, (Pattern(4), ConstantSparsity(0.5, 0)), "another structure for 'conv/kernel' than Pattern"),
        (15, (AlignedBlock(4), ConstantSparsity(0.5, 0, 9), Admm()), "is of the method 'magnitude', not of Admm"),
    ],
)
def test_a_state_that_does_not_belong_is_refused(saved: Any, iterations: int, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        begun(*saved, iterations, *arguments)


def test_other_layers_and_other_files_are_refused(saved: Any, tmp_path: pathlib.Path) -> None:
    model, path = saved
    dense = keras.layers.Dense
    other = keras.Sequential([keras.Input([8]), dense(16, name="one"), dense(2)])
    other.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"is of other layers: \['conv/kernel'\]"):
        begun(other, path, 15)
    for content in (b"", b"PK", b"no archive", path.read_bytes()[:-100]):
        broken = tmp_path / "broken.npz"
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken.npz is no pruning state"):
            begun(model, broken, 15)


def test_a_death_between_two_renames_leaves_the_state_before(saved: Any, tmp_path: pathlib.Path) -> None:
    model, path = saved
    (tmp_path / "prune.previous.npz").write_bytes(path.read_bytes())
    assert begun(model, tmp_path / "prune.npz", 15).step == 15


def test_the_same_step_twice_is_one_state(saved: Any, tmp_path: pathlib.Path) -> None:
    prune = begun(saved[0], tmp_path / "prune.npz", 3)
    for _ in range(2):
        prune._save()
    assert not StateFile(tmp_path / "prune.npz").previous.exists()


def test_initial_epoch_counts_as_done(saved: Any, tmp_path: pathlib.Path) -> None:
    schedule = PolynomialDecay(0.0, 0.8, 0, 40, frequency=8)
    prune = begun(saved[0], tmp_path / "none.npz", 0, AlignedBlock(4), schedule, epoch=3)
    assert prune.step == 24
    assert prune.sparsity == pytest.approx(schedule.sparsity(24), abs=0.02)
    prune.on_train_begin()
    prune.on_epoch_begin(5)
    assert prune.step == 24  # counts its own steps from then on


@pytest.mark.parametrize("save_freq", [0, -1, "batch", 2.5, True])
def test_bad_frequencies_are_refused(save_freq: Any) -> None:
    with pytest.raises(ValueError, match="save_freq must be"):
        Prune(AlignedBlock(4), ConstantSparsity(0.5, 0), save_freq=save_freq)
