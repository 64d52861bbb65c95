"""tf_keras's LSTMs, fused by the converter: a gate's matrices apart, states that outlive an invocation."""

import numpy as np
import pytest
from dense_models import tflite
from recurrent_models import call_by_call, changed, flat, operators, prune, run_sparse, sparse_runner

from keras_prune.tflite import convert, densify, flatbuffer, inspect, load_delegate
from keras_prune.tflite.custom_options import FormatError


def test_tf_keras_layers(tf_keras, library):
    layers = tf_keras.layers
    source = tf_keras.Input((4, 10), batch_size=3)
    branches = [
        layers.LSTM(9, return_sequences=True),
        layers.LSTM(8, go_backwards=True, unit_forget_bias=False),
        layers.LSTM(11, time_major=True, return_sequences=True),
        layers.LSTM(10, use_bias=False),
        layers.LSTM(7, return_state=True),
        layers.GRU(13, return_sequences=True),
        layers.GRU(6, reset_after=False),
    ]
    stacked = layers.LSTM(8)(layers.Bidirectional(layers.LSTM(5, return_sequences=True))(source))
    model = tf_keras.Model(source, [*(layer(source) for layer in branches), stacked])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert operators(dense).count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 6
    assert sum(name.startswith("BlockSparse") for name in operators(sparse)) == len(branches) + 3
    assert not {"UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE"} & {*operators(sparse)}
    assert densify(sparse) == dense
    assert len(sparse) < len(dense)
    rng = np.random.default_rng(0)
    runner = sparse_runner(sparse, library)
    (name,) = runner.get_input_details()
    for _ in range(2):
        x = rng.normal(size=(3, 4, 10)).astype(np.float32)
        actual = runner(**{name: x})
        for i, wanted in enumerate(flat(model(x))):
            np.testing.assert_allclose(actual[f"output_{i}"], wanted, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def fused(tf_keras):
    """A tf_keras model of one LSTM of 12 units, and its dense and sparse file."""
    model = tf_keras.Sequential([tf_keras.Input((4, 12)), tf_keras.layers.LSTM(12, return_sequences=True)])
    prune(model)
    dense = convert(model, sparse=False)
    return model, dense, convert(dense, min_zeros=0.1)


def dense_calls(model: bytes, *calls: np.ndarray, reset: bool) -> list[np.ndarray]:
    """The output of each call of TensorFlow Lite's own operators."""
    return call_by_call(tflite().Interpreter(model_content=model), *calls, reset=reset)


def test_every_call_starts_from_zero_as_in_keras(fused, library):
    """TensorFlow Lite's operator goes on from the last call's state, unless its variables are reset."""
    model, dense, sparse = fused
    rng = np.random.default_rng(4)
    x = [rng.normal(size=(1, 4, 12)).astype(np.float32) for _ in range(2)]
    expected = [np.asarray(model(value)) for value in x]
    interpreter = tflite().Interpreter(model_content=sparse, experimental_delegates=[load_delegate(library=library)])
    interpreter.allocate_tensors()
    for call in range(4):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[call % 2])
        interpreter.invoke()
        actual = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(actual, expected[call % 2], rtol=0, atol=2e-6)
        if call == 2:
            interpreter.reset_all_variables()
    kept, reset = (dense_calls(dense, *x, reset=reset) for reset in (False, True))
    np.testing.assert_allclose(kept[0], expected[0], rtol=0, atol=2e-6)
    assert np.abs(kept[1] - expected[1]).max() > 1e-2
    np.testing.assert_allclose(reset[1], expected[1], rtol=0, atol=2e-6)


def test_cells_beyond_the_converters_bound(tf_keras, library):
    """The converter has TensorFlow Lite clip cells at 10, which Keras does not; nor does the block-sparse operator."""
    model = tf_keras.Sequential([tf_keras.Input((40, 4)), tf_keras.layers.LSTM(8, return_sequences=True)])
    prune(model)
    kernel, recurrent, bias = model.weights
    kernel.assign(np.zeros((4, 32)) + np.repeat([[0, 0, 3, 0]], 8, axis=1) * [[1], [0], [0], [0]])
    recurrent.assign(recurrent * 1e-3)
    bias.assign(np.repeat([8.0, 9, 0, 8], 8))
    dense = convert(model, sparse=False)
    x = np.zeros((1, 40, 4), np.float32)
    x[0, :, 0] = np.repeat([1.0, -1.0], 20)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(run_sparse(convert(dense), library, x)[0], expected, rtol=0, atol=1e-4)
    assert np.abs(dense_calls(dense, x, reset=False)[0] - expected).max() > 0.1


def test_tf_keras_states_as_inputs(tf_keras, library):
    source, *states = (tf_keras.Input(shape, name=name) for name, shape in (("x", (5, 9)), ("h", (12,)), ("c", (12,))))
    model = tf_keras.Model([source, *states], tf_keras.layers.LSTM(12)(source, initial_state=states))
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert "BlockSparseLSTM" in operators(sparse)
    assert densify(sparse) == dense
    runner = sparse_runner(sparse, library)
    rng = np.random.default_rng(1)
    for _ in range(2):
        values = [rng.normal(size=(1, *shape)).astype(np.float32) for shape in ((5, 9), (12,), (12,))]
        actual = runner(**dict(zip("xhc", values, strict=True)))["output_0"]
        np.testing.assert_allclose(actual, model(values), rtol=0, atol=2e-6)


def test_stacked_layers_hand_on_their_steps_as_they_are(tf_keras, library):
    """Between them nothing swaps steps and batch, unless something else reads their output too."""
    layers = tf_keras.layers
    source = tf_keras.Input((4, 9), batch_size=3)
    first = layers.LSTM(8, return_sequences=True)(source)
    second = [layers.LSTM(8, return_sequences=True)(first) for _ in range(2)]
    third = layers.LSTM(9, return_sequences=True)(second[0])
    model = tf_keras.Model(source, [second[1], third, layers.LSTM(12)(third)])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert operators(sparse).count("BlockSparseLSTM") == 5
    assert operators(sparse).count("TRANSPOSE") == 5
    assert densify(sparse) == dense
    x = np.random.default_rng(0).normal(size=(3, 4, 9)).astype(np.float32)
    runner = sparse_runner(sparse, library)
    (name,) = runner.get_input_details()
    actual = runner(**{name: x})
    for i, wanted in enumerate(model(x)):
        np.testing.assert_allclose(actual[f"output_{i}"], wanted, rtol=0, atol=2e-6)


def test_weights_of_fused_gates(tf_keras, library):
    """Zeros of both signs, a dense kernel, gates alike, gates of zeros that are one constant, a layer used twice."""
    layers = [tf_keras.layers.LSTM(12 + i) for i in range(5)]
    first, second = tf_keras.Input((4, 15)), tf_keras.Input((4, 15))
    outputs = [layer(first) for layer in layers]
    model = tf_keras.Model([first, second], [*outputs, layers[4](second)])
    prune(model)
    signs, dense_kernel, alike, zeros, _ = (layer.cell for layer in layers)
    kernel = np.asarray(signs.kernel)
    signs.kernel.assign(np.where(kernel == 0, np.where(np.arange(48) % 3, 0.0, -0.0), kernel))
    dense_kernel.kernel.assign(np.random.default_rng(0).normal(size=(15, 52)) / 4)
    alike.kernel.assign(np.tile(np.asarray(alike.kernel)[:, :28], (1, 2)))
    for weight in (zeros.kernel, zeros.recurrent_kernel):
        weight.assign(np.where(np.arange(60) // 15 == 1, 0.0, np.asarray(weight)))
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert densify(sparse) == dense
    found = {layer.rows: [] for layer in inspect(sparse)}
    for layer in inspect(sparse):
        found[layer.rows].append(layer.structure)
    block = "unaligned_block"
    assert found == {48: [block] * 2, 52: [None, block], 56: [block] * 2, 60: [None] * 2, 64: [block] * 4}
    parsed = flatbuffer.read_model(sparse)
    kept = [layer.value_bytes for layer in inspect(sparse) if layer.rows == 64]
    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in parsed.buffers]
    assert [sizes.count(size) for size in kept] == [1] * 4
    runner = sparse_runner(sparse, library)
    rng = np.random.default_rng(3)
    x = [rng.normal(size=(1, 4, 15)).astype(np.float32) for _ in range(2)]
    actual = runner(**dict(zip((tensor.name for tensor in model.inputs), x, strict=True)))
    for i, wanted in enumerate(model(x)):
        np.testing.assert_allclose(actual[f"output_{i}"], wanted, rtol=0, atol=2e-6)


def with_options(**values):
    def change(model, operator) -> None:
        for name, value in values.items():
            setattr(operator.builtinOptions, name, value)

    return change


def with_inputs(*slots: int, like: int | None = None):
    """Other inputs at these places: absent, or another input's tensor."""

    def change(model, operator) -> None:
        inputs = operator.inputs.copy()
        inputs[list(slots)] = -1 if like is None else inputs[like]
        operator.inputs = inputs

    return change


def open_batch(model, operator) -> None:
    model.subgraphs[0].tensors[operator.inputs[0]].shapeSignature = np.array([-1, 4, 12], np.int32)


def read_state(model, operator) -> None:
    model.subgraphs[0].outputs = np.array([*model.subgraphs[0].outputs, operator.inputs[19]], np.int32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_inputs(9, 10, 11, like=13), "it has peepholes"),
        (with_inputs(16, like=5), "it has a projection"),
        (with_inputs(20, 21, 22, 23, like=13), "it normalises its gates"),
        (with_inputs(1, 5, 12), "it lacks a gate or a state"),
        (with_inputs(2, like=13), "its weights are of another size"),
        (with_inputs(18, like=19), "its state is also another operator's"),
        (with_options(cellClip=3.0), "it clips its cell at 3"),
        (with_options(projClip=1.0), "it has unusual options"),
        (with_options(fusedActivationFunction=1), "its activation is not tanh"),
        (with_options(asymmetricQuantizeInputs=True), "it has unusual options"),
        (open_batch, "its sizes are not fixed"),
        (read_state, "its state is also another operator's"),
    ],
)
def test_other_fused_layers_stay_dense_and_say_why(change, reason, fused):
    model = flatbuffer.read_model(fused[1])
    change(model, model.subgraphs[0].operators[0])
    dense = flatbuffer.write_model(model)
    assert convert(dense) == dense
    (layer,) = inspect(dense)
    assert layer.reason == f"UNIDIRECTIONAL_SEQUENCE_LSTM is not an LSTM as Keras has it: {reason}"


def test_layers_of_a_dense_file_with_a_fused_one(fused):
    assert [(layer.kind, layer.rows, layer.columns) for layer in inspect(fused[1])] == [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", 48, 12)
    ] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense_operator": "SVDF"}, "'dense_operator': is 'SVDF'"),
        ({"cell_clip": 11}, "'cell_clip': is 11"),
        ({"cell_clip": None}, "'cell_clip'"),
        ({"batch_major": None}, "'batch_major'"),
        ({"batch_major": False}, "stand among other tensors"),
        ({"loop_inputs": b"\x00" * 84}, "'loop_inputs': has 84 bytes; expected 80 or 96"),
        ({"loop_inputs": b"\xff" * 96}, "'loop_inputs': does not fit the operator's kernel"),
        ({"loop_inputs": b"\x7f" * 96}, "'loop_inputs': names a missing tensor"),
        ({"loop_outputs": b"\xff" * 4}, "'loop_outputs': names a missing tensor"),
        ({"dense_opcode": 3}, "'dense_opcode': is not the code of a UNIDIRECTIONAL_SEQUENCE_LSTM"),
    ],
)
def test_densify_names_what_is_wrong_with_a_fused_layer(change, message, fused):
    with pytest.raises(FormatError) as error:
        densify(changed(fused[2], change))
    assert message in str(error.value)


def test_densify_without_the_operators_beside_a_fused_layer(fused):
    model = flatbuffer.read_model(fused[2])
    model.subgraphs[0].operators.pop(0)
    with pytest.raises(FormatError, match="no operators on both sides swap steps and batch"):
        densify(flatbuffer.write_model(model))
