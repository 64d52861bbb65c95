"""Recurrent networks pruned while they train, to their block-sparse file."""

import keras
import numpy as np
from recurrent_models import operators, sparse_outputs

from keras_prune import ConstantSparsity, Prune, Reweighted, UnalignedBlock
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
