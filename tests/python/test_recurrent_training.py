"""Recurrent networks pruned while they train, to their block-sparse file."""

import keras
import numpy as np
import pytest
from recurrent_models import operators, sparse_outputs

from keras_prune import Admm, ConstantSparsity, Magnitude, PerGate, Prune, Reweighted, UnalignedBlock
from keras_prune.tflite import convert, densify

L = keras.layers


def test_masked_stateful_and_bidirectional_layers_are_pruned_and_converted(library):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((5,), batch_size=4, dtype="int32"),
            L.Embedding(9, 8, mask_zero=True),
            L.Bidirectional(L.LSTM(8, return_sequences=True, stateful=True), name="both"),
            L.GRU(12, stateful=True, name="gru"),
            L.Dense(8, name="dense"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    rng = np.random.default_rng(0)
    words = rng.integers(1, 9, (16, 5)).astype(np.int32)
    words[rng.random((16, 1)) * 5 < np.arange(5)] = 0
    prune = Prune(UnalignedBlock(4), ConstantSparsity(0.75, 2, 8, 2), Reweighted(1e-4), layers=["both", "gru", "dense"])
    model.fit(words, rng.normal(size=(16, 8)), batch_size=4, epochs=4, shuffle=False, verbose=0, callbacks=[prune])
    for layer in (*model.layers[1:3],):
        layer.reset_states()
    kernels = [weight for weight in model.trainable_weights if weight.name.endswith("kernel")]
    assert len(kernels) == 7
    for kernel in kernels:
        assert abs(np.mean(np.asarray(kernel) == 0) - 0.75) < 0.06
    dense = convert(model, sparse=False)
    sparse = convert(model)
    assert densify(sparse) == dense
    assert not {"WHILE", "FULLY_CONNECTED"} & {*operators(sparse)}
    np.testing.assert_allclose(sparse_outputs(sparse, library, words[:4])[0], model(words[:4]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("make_method", [Magnitude, lambda: Admm([1e-3, 1e-2]), lambda: Reweighted(1e-4)])
@pytest.mark.parametrize("version", ["keras", "tf_keras"])
def test_every_method_prunes_each_gate(make_method, version, request, library):
    method = make_method()
    library_of_layers = keras if version == "keras" else request.getfixturevalue("tf_keras")
    layers = library_of_layers.layers
    library_of_layers.utils.set_random_seed(5)
    model = library_of_layers.Sequential(
        [
            layers.InputLayer(batch_input_shape=(1, 4, 6))
            if version == "tf_keras"
            else keras.Input((4, 6), batch_size=1),
            layers.LSTM(8, return_sequences=True, name="lstm"),
            layers.GRU(12, name="gru"),
        ]
    )
    model.compile("adam", "mse")
    gates = {"lstm": 4, "gru": 3}
    structures = {name: PerGate(UnalignedBlock(4), count) for name, count in gates.items()}
    prune = Prune(structures, ConstantSparsity(0.75, 2, 8, 2), method, layers=list(gates))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4, 6)).astype(np.float32)
    model.fit(x, rng.normal(size=(12, 12)), batch_size=1, epochs=2, verbose=0, callbacks=[prune])
    for name, count in gates.items():
        cell = model.get_layer(name).cell
        for kernel in (cell.kernel, cell.recurrent_kernel):
            of_gates = np.split(np.asarray(kernel), count, axis=1)
            zeros = [np.mean(gate == 0) for gate in of_gates]
            assert max(zeros) - min(zeros) < 0.01 or method.name == "reweighted"
            assert min(zeros) > 0.5
    sparse = convert(model)
    assert not {"WHILE", "FULLY_CONNECTED"} & {*operators(sparse)}
    np.testing.assert_allclose(sparse_outputs(sparse, library, x[:1])[0], model(x[:1]), rtol=0, atol=2e-6)
