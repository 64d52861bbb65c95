"""Stateful GRU and LSTM layers: states that go on from call to call, in variables of the file; against Keras."""

import keras
import numpy as np
from dense_models import tflite
from recurrent_models import call_by_call, operators, prune

from keras_prune.tflite import convert, densify, load_delegate

L = keras.layers


def calls(model, sparse: bytes, library, *sequences: np.ndarray) -> list[np.ndarray]:
    """The outputs of a new interpreter, which are the model's, call after call."""
    delegate = load_delegate(library=library)
    interpreter = tflite().Interpreter(model_content=sparse, experimental_delegates=[delegate])
    outputs = call_by_call(interpreter, *sequences)
    for x, output in zip(sequences, outputs, strict=True):
        np.testing.assert_allclose(output, model(x), rtol=0, atol=3e-6)
    return outputs


def test_stateful_layers(library):
    """On one another, in both directions, beside one that is not stateful."""
    layers = [
        L.LSTM(9, stateful=True, return_sequences=True),
        L.Bidirectional(L.GRU(8, stateful=True, return_sequences=True)),
        L.GRU(12),
    ]
    model = keras.Sequential([keras.Input((4, 9), batch_size=2), *layers])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert sum(name.startswith("BlockSparse") for name in operators(sparse)) == 4
    assert "WHILE" not in operators(sparse)
    assert operators(sparse).count("READ_VARIABLE") == 4
    assert densify(sparse) == dense
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 9)).astype(np.float32)
    again = calls(model, sparse, library, x, x, x)
    assert np.abs(again[1] - again[0]).max() > 1e-2
    # A file begins with the states that the model has.
    calls(model, convert(model, min_zeros=0.1), library, x)
    for layer in layers:
        if getattr(layer, "stateful", False):
            layer.reset_states()
    calls(model, sparse, library, x)


def test_a_stateful_masked_layer(library):
    layer = L.LSTM(12, stateful=True, return_sequences=True)
    model = keras.Sequential([keras.Input((4, 9), batch_size=2), L.Masking(0.0), layer])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert "BlockSparseLSTM" in operators(sparse)
    assert densify(sparse) == dense
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 9)).astype(np.float32)
    x[1, 0, :2] = x[2, :, 1:3] = x[2, 1] = 0
    calls(model, sparse, library, *x)


def test_a_stateful_layer_of_tf_keras(tf_keras, library):
    model = tf_keras.Sequential([tf_keras.Input((4, 9), batch_size=2), tf_keras.layers.LSTM(12, stateful=True)])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert "BlockSparseLSTM" in operators(sparse)
    assert densify(sparse) == dense
    calls(model, sparse, library, *np.random.default_rng(0).normal(size=(3, 2, 4, 9)).astype(np.float32))
