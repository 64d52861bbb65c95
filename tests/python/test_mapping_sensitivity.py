"""How much a layer suffers from zeros."""

from __future__ import annotations

import numpy as np
import pytest
from latency_tables import mapped_network

from keras_prune import mapping
from keras_prune.mapping.options import RATES
from keras_prune.mapping.sensitivity import interpolate, lost_energy
from keras_prune.structures import AlignedBlock, UnalignedBlock


@pytest.fixture
def network():
    return mapped_network()


def test_lost_energy():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(32, 48)).astype(np.float32)
    mask = AlignedBlock(4).mask(matrix, 0.75)
    assert lost_energy(matrix, (1, 1), AlignedBlock(4), 0.75) == pytest.approx(
        1 - (matrix[mask] ** 2).sum() / (matrix**2).sum(), rel=1e-5
    )
    by_rate = [lost_energy(matrix, (1, 1), UnalignedBlock(4), zeros) for zeros in RATES]
    assert by_rate == sorted(by_rate) and 0 < by_rate[0] < by_rate[-1] < 1
    assert lost_energy(np.zeros((8, 8), np.float32), (1, 1), UnalignedBlock(4), 0.5) == 0.0
    # Of a large matrix a part stands for the whole.
    large = rng.normal(size=(300, 9 * 70)).astype(np.float32)
    energy = np.square(large)[AlignedBlock(4).mask(large, 0.8)].sum() / np.square(large).sum()
    assert lost_energy(large, (3, 3), AlignedBlock(4), 0.8) == pytest.approx(1 - energy, abs=0.05)


def test_measured_losses_are_interpolated():
    by_rate = {0.5: 0.01, 0.8: 0.0, 0.9: 0.2}
    assert [interpolate(by_rate, z) for z in (0.0, 0.25, 0.5, 0.8, 0.85, 0.9)] == pytest.approx(
        [0.0, 0.005, 0.01, 0.01, 0.105, 0.2]
    )
    assert interpolate(by_rate, 0.95) == pytest.approx(0.6)


def test_scan_restores_the_weights_and_keeps_results(network, tmp_path):
    before = network.get_weights()
    asked = []

    def evaluate(model):
        asked.append(model)
        return float(np.mean(model.get_layer("one").get_weights()[0] != 0))

    lost = mapping.scan(network, evaluate, rates=(0.5, 0.75), path=tmp_path / "scan.json", layers=["one", "hidden"])
    assert lost == {"one": {0.5: pytest.approx(0.5), 0.75: pytest.approx(0.75)}, "hidden": {0.5: 0.0, 0.75: 0.0}}
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    count = len(asked)
    assert mapping.scan(network, evaluate, None, (0.5, 0.75), tmp_path / "scan.json", ["one", "hidden"]) == lost
    assert len(asked) == count
    network.get_layer("one").kernel.assign(2 * network.get_layer("one").kernel)
    mapping.scan(network, evaluate, None, (0.5, 0.75), tmp_path / "scan.json", ["one", "hidden"])
    assert len(asked) > count
