"""A structure in each gate by itself: masks gate by gate, states on disk, and what it says of sizes that do not fit."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_prune import BlockPunched, ConstantSparsity, Pattern, PerGate, Prune, UnalignedBlock, sparsify


@pytest.mark.parametrize(("gates", "units"), [(2, 2), (3, 7), (4, 9)])
@pytest.mark.parametrize("zeros", [0.3, 0.75])
def test_every_gate_has_its_zeros_and_no_block_lies_in_two(gates: int, units: int, zeros: float) -> None:
    random = np.random.default_rng(gates)
    # The gates' sizes differ so much that one budget for all would leave the last ones nothing.
    kernel = np.concatenate([random.normal(size=(units, 11)) * 100.0**-g for g in range(gates)])
    size = 2
    mask = PerGate(UnalignedBlock(size), gates).mask(kernel, zeros)
    assert mask.shape == kernel.shape
    for gate in np.split(mask, gates):
        kept = np.count_nonzero(gate)
        assert kept <= (1 - zeros) * gate.size + 1e-6
        assert kept >= min((1 - zeros) * gate.size - size, units // size * size * 11) - 1e-6
        for column in gate.T:
            runs = "".join("x" if entry else " " for entry in column).split()
            assert all(len(run) >= size for run in runs)
    together = UnalignedBlock(size).mask(kernel, zeros)
    assert np.count_nonzero(np.split(together, gates)[-1]) < np.count_nonzero(np.split(mask, gates)[-1])


def test_several_matrices_share_a_budget_gate_by_gate() -> None:
    small, large = np.full((4, 3), 0.1), np.full((4, 3), 2.0)
    first, second = PerGate(UnalignedBlock(2), 2).masks([small, large], 0.5)
    assert not first.any()
    assert second.all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((UnalignedBlock(4), 1), ValueError, "at least 2"),
        ((UnalignedBlock(4), True), ValueError, "at least 2"),
        ((UnalignedBlock(4), 2.0), ValueError, "at least 2"),
        ((PerGate(UnalignedBlock(4), 2), 2), ValueError, "per gate already"),
        (("UnalignedBlock", 4), TypeError, "UnalignedBlock"),
    ],
)
def test_what_is_no_structure_per_gate_is_refused(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        PerGate(*arguments)


@pytest.mark.parametrize(
    ("units", "gates", "message"), [(8, 3, "not 3 gates of one size"), (3, 4, "3 output channels")]
)
def test_a_kernel_that_does_not_fit_is_named(units: int, gates: int, message: str) -> None:
    model = keras.Sequential([keras.Input((2, 8)), keras.layers.LSTM(units, name="memory")])
    with pytest.raises(ValueError, match=message):
        sparsify(model, PerGate(UnalignedBlock(4), gates), 0.5, layers="memory")


@pytest.mark.parametrize("inner", [UnalignedBlock(4), Pattern(4)])
def test_a_state_brings_it_back(inner, tmp_path: Path) -> None:
    """Also what the structure within took from the weights."""

    def model() -> keras.Model:
        keras.utils.set_random_seed(0)
        made = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Conv2D(16, 3, name="made")])
        made.compile("sgd", "mse")
        return made

    x, y = np.ones((8, 6, 6, 4), np.float32), np.ones((8, 4, 4, 16), np.float32)
    state = tmp_path / "state.npz"

    def train(structure, epochs: int, begin: int = 0) -> Prune:
        prune = Prune(structure, ConstantSparsity(0.6, 0, 4, 2), layers="made", state=state)
        trained = model() if begin == 0 else keras.models.load_model(tmp_path / "model.keras")
        trained.fit(x, y, batch_size=4, epochs=epochs, initial_epoch=begin, callbacks=[prune], verbose=0)
        trained.save(tmp_path / "model.keras")
        return prune

    train(PerGate(inner, 2), 2)
    masks = (np.asarray(keras.models.load_model(tmp_path / "model.keras").layers[0].kernel) != 0).sum()
    resumed = train(PerGate(inner, 2), 3, begin=2)
    assert (np.asarray(resumed.model.layers[0].kernel) != 0).sum() == masks
    for other in (inner, PerGate(inner, 4), PerGate(UnalignedBlock(2), 2), PerGate(BlockPunched(4, 2), 2)):
        with pytest.raises(ValueError, match="another structure"):
            train(other, 4, begin=3)
