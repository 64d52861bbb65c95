"""Masked GRU and LSTM layers: what follows Masking or Embedding(mask_zero=True), against Keras."""

import keras
import numpy as np
import pytest
from dense_models import tflite
from recurrent_models import changed, flat, operators, prune, sparse_outputs, sparse_runner

from keras_prune.tflite import convert, densify, flatbuffer, inspect, load_delegate
from keras_prune.tflite.custom_options import FormatError
from keras_prune.tflite.recurrent_forms import find_recurrent

OPTIONS = [
    ("GRU", {}),
    ("LSTM", {"return_sequences": True, "return_state": True}),
    ("GRU", {"return_sequences": True, "return_state": True}),
    ("LSTM", {"go_backwards": True, "use_bias": False}),
    ("GRU", {"zero_output_for_mask": True, "reset_after": False, "return_sequences": True}),
    ("LSTM", {"zero_output_for_mask": True}),
]


def branches(layers, source, options):
    """Outputs of several layers behind one Masking, so that one conversion does for all."""
    masked = layers.Masking(0.0)(source)
    outputs = [getattr(layers, kind)(12 + i, **arguments)(masked) for i, (kind, arguments) in enumerate(options)]
    return [value for part in outputs for value in (part if isinstance(part, (list, tuple)) else [part])]


def padded(rng, batch: int, steps: int, features: int) -> list[np.ndarray]:
    """Sequences with masked steps at random, at their end, at their beginning, and nothing but those."""
    found = []
    for kind in range(4):
        x = rng.normal(size=(batch, steps, features)).astype(np.float32)
        mask = [rng.random((batch, steps)) < 0.5, np.arange(steps) > 2, np.arange(steps) < 3, True][kind]
        x[np.broadcast_to(mask, (batch, steps))] = 0
        found.append(x)
    return found


@pytest.mark.parametrize(("batch", "steps", "every"), [(3, 7, 1), (1, 5, 3)])
def test_masked_layers(batch, steps, every, library):
    source = keras.Input((steps, 9), batch_size=batch)
    model = keras.Model(source, branches(keras.layers, source, OPTIONS[::every]))
    check(model, len(OPTIONS[::every]), padded(np.random.default_rng(0), batch, steps, 9), library)


def test_masked_layers_of_tf_keras(tf_keras, library):
    source = tf_keras.Input((5, 9), batch_size=2)
    model = tf_keras.Model(source, branches(tf_keras.layers, source, OPTIONS[1:2]))
    check(model, 1, padded(np.random.default_rng(0), 2, 5, 9), library)


def check(model, count, sequences, library) -> None:
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert densify(sparse) == dense
    assert "WHILE" not in operators(sparse)
    assert sum(name.startswith("BlockSparse") for name in operators(sparse)) == count
    runner = sparse_runner(sparse, library, num_threads=2)
    (name,) = runner.get_input_details()
    for x in sequences:
        actual, wanted = runner(**{name: x}), flat(model(x))
        assert len(actual) == len(wanted)
        for i, value in enumerate(wanted):
            np.testing.assert_allclose(actual[f"output_{i}"], value, rtol=0, atol=2e-6)


def test_words_of_sentences(library):
    """Stacked and bidirectional layers, whose masks are handed on; the words that mask are number 0."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,), batch_size=2, dtype="int32"),
            layers.Embedding(11, 8, mask_zero=True),
            layers.Bidirectional(layers.LSTM(9, return_sequences=True)),
            layers.GRU(12, return_sequences=True),
            layers.GRU(10),
        ]
    )
    prune(model)
    model.layers[0].embeddings.assign(np.random.default_rng(1).normal(size=(11, 8)))
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert densify(sparse) == dense
    assert operators(sparse).count("BlockSparseGRU") == operators(sparse).count("BlockSparseLSTM") == 2
    for words in ([[1, 2, 3, 0, 0, 0], [9, 8, 7, 6, 5, 4]], [[0, 0, 2, 0, 3, 0], [0, 0, 0, 0, 0, 0]]):
        x = np.array(words, np.int32)
        np.testing.assert_allclose(sparse_outputs(sparse, library, x)[0], model(x), rtol=0, atol=2e-6)


def test_a_masked_beginning_is_zero_whatever_the_state(library):
    """Keras puts out zero until a step counts, but keeps the state that it was given."""
    source, state = keras.Input((5, 9), batch_size=2, name="x"), keras.Input((12,), batch_size=2, name="h")
    mask = keras.layers.Masking(0.0).compute_mask(source)  # which Keras leaves out beside a state, unless it is given
    layer = keras.layers.GRU(12, return_sequences=True, return_state=True)
    model = keras.Model([source, state], layer(source, initial_state=state, mask=mask))
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert densify(sparse) == dense
    assert "BlockSparseGRU" in operators(sparse)
    rng = np.random.default_rng(2)
    runner = sparse_runner(sparse, library)
    for x in padded(rng, 2, 5, 9):
        h = rng.normal(size=(2, 12)).astype(np.float32)
        actual, wanted = runner(x=x, h=h), model([x, h])
        for i in range(2):
            np.testing.assert_allclose(actual[f"output_{i}"], wanted[i], rtol=0, atol=2e-6)
    assert not actual["output_0"].any()
    assert np.array_equal(actual["output_1"], h)


@pytest.fixture(scope="module", params=["GRU", "LSTM"])
def masked(request):
    """The dense and sparse file of a masked layer, in which the CAST is the last operator but one."""
    layers = keras.layers
    layer = getattr(layers, request.param)(12, return_sequences=True)
    model = keras.Sequential([keras.Input((4, 9)), layers.Masking(0.0), layer])
    prune(model)
    dense = convert(model, sparse=False)
    return dense, convert(dense, min_zeros=0.1)


def test_a_changed_masked_loop_is_not_recognised(masked):
    """Neither with another operator in its body, nor with the operands of a choice the other way round."""
    model = flatbuffer.read_model(masked[0])
    (layer,), _ = find_recurrent(model)
    body = model.subgraphs[layer.home]
    codes = {flatbuffer.operator_name(model, o): o.opcodeIndex for s in model.subgraphs for o in s.operators}
    swaps = {"TANH": "LOGISTIC", "LOGISTIC": "TANH", "MUL": "ADD", "ADD": "MUL", "GATHER": "RESHAPE"}
    swaps["SELECT_V2"] = "CONCATENATION"
    tried = 0
    for operator in body.operators:
        name = flatbuffer.operator_name(model, operator)
        if name in swaps:
            before, operator.opcodeIndex = operator.opcodeIndex, codes[swaps[name]]
            assert find_recurrent(model)[0] == []
            operator.opcodeIndex = before
            tried += 1
        if name == "SELECT_V2":
            before = operator.inputs
            for order in ([0, 2, 1], [1, 0, 2], [0, 1, 1]):
                operator.inputs = before[order]
                assert find_recurrent(model)[0] == []
            operator.inputs = before
            tried += 1
    assert tried > 10
    assert len(find_recurrent(model)[0]) == 1


@pytest.mark.parametrize(
    ("layer", "kind", "reason"),
    [
        (lambda: keras.layers.SimpleRNN(12), "WHILE", "the next state is not"),
        (lambda: keras.layers.GRU(12, unroll=True), "UNPACK", "it has SELECT_V2"),
    ],
)
def test_other_masked_layers_stay_as_they_are_and_say_why(layer, kind, reason, library):
    model = keras.Sequential([keras.Input((4, 9)), keras.layers.Masking(0.0), layer()])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert densify(sparse) == dense
    assert "BlockSparseFullyConnected" in operators(sparse)
    (loop,) = [entry for entry in inspect(sparse) if entry.kind == kind]
    assert reason in loop.reason
    for x in padded(np.random.default_rng(0), 1, 4, 9):
        np.testing.assert_allclose(sparse_outputs(sparse, library, x)[0], model(x), rtol=0, atol=2e-6)


def test_densify_without_the_cast(masked):
    model = flatbuffer.read_model(masked[1])
    place = next(i for i, o in enumerate(model.subgraphs[0].operators) if flatbuffer.operator_name(model, o) == "CAST")
    model.subgraphs[0].operators.pop(place)
    with pytest.raises(FormatError, match="no CAST stands ahead of it"):
        densify(flatbuffer.write_model(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense_operator": "UNPACK"}, "'dense_operator': is 'UNPACK', which has no mask"),
        ({"loop_inputs": b"\x00" * 20}, "'loop_inputs': has 20 bytes; expected "),
    ],
)
def test_densify_names_what_is_wrong_with_a_masked_layer(change, message, masked):
    with pytest.raises(FormatError) as error:
        densify(changed(masked[1], change))
    assert message in str(error.value)


def test_a_bad_option_is_refused_by_name(masked, library):
    with pytest.raises((ValueError, RuntimeError), match='key "zero_output_for_mask" is an integer'):
        tflite().Interpreter(
            model_content=changed(masked[1], {"zero_output_for_mask": 1}),
            experimental_delegates=[load_delegate(library=library)],
        ).allocate_tensors()
