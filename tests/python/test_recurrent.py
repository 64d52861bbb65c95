"""GRU and LSTM layers: recognised in the file, run by the delegate, turned back; against Keras and against NumPy."""

import copy

import keras
import numpy as np
import pytest
import reference_reader
import sparse_matrices
from dense_models import run, tflite

from keras_prune.tflite import convert, densify, flatbuffer, inspect, load_delegate
from keras_prune.tflite.custom_options import FormatError, build
from keras_prune.tflite.recurrent_forms import find_recurrent

L = keras.layers


def run_sparse(model: bytes, library, *inputs: np.ndarray, **options) -> list[np.ndarray]:
    delegate = load_delegate(library=library, **options)
    return run(tflite().Interpreter(model_content=model, experimental_delegates=[delegate]), *inputs)


def prune(model, zeros: float = 0.7, structure: str = "unaligned") -> None:
    """Random weights of about unit gain with a structure's zeros, and biases without any."""
    rng = np.random.default_rng(8)
    for weight in model.trainable_weights:
        shape = tuple(weight.shape)
        if weight.name.split(":")[0].endswith("kernel"):
            rows, columns = shape[1], shape[0]
            if structure == "unaligned":
                matrix = sparse_matrices.unaligned(rng, rows, columns, 4, zeros)
            else:
                matrix = sparse_matrices.row_column(rng, rows, columns, (8, 8), 0.5)
            weight.assign(matrix.T * np.float32((columns * (1 - zeros)) ** -0.5 * 1.5))
        else:
            weight.assign(sparse_matrices.values(rng, shape))


def operators(model: bytes) -> list[str]:
    parsed = flatbuffer.read_model(model)
    return [flatbuffer.operator_name(parsed, o) for subgraph in parsed.subgraphs for o in subgraph.operators or []]


def sparse_outputs(model: bytes, library, *inputs: np.ndarray, **options) -> list[np.ndarray]:
    """Outputs in the Keras model's order; the file has them in another."""
    delegate = load_delegate(library=library, **options)
    runner = tflite().Interpreter(model_content=model, experimental_delegates=[delegate]).get_signature_runner()
    outputs = runner(**dict(zip(sorted(runner.get_input_details()), inputs, strict=True)))
    return [outputs[f"output_{i}"] for i in range(len(outputs))]


# (layer, units, arguments, steps, features, batch); all in one network, so that one conversion does for all.
BRANCHES = [
    (L.GRU, 24, {}),
    (L.GRU, 21, {"return_sequences": True}),
    (L.GRU, 5, {"reset_after": False, "return_sequences": True}),
    (L.GRU, 17, {"reset_after": False, "use_bias": False}),
    (L.GRU, 12, {"use_bias": False, "go_backwards": True, "return_sequences": True}),
    (L.GRU, 33, {"go_backwards": True}),
    (L.LSTM, 24, {}),
    (L.LSTM, 19, {"return_sequences": True}),
    (L.LSTM, 8, {"use_bias": False, "go_backwards": True, "return_sequences": True}),
    (L.LSTM, 7, {"unit_forget_bias": False}),
]


def branching(steps: int, features: int, batch: int, every: int) -> keras.Model:
    source = keras.Input((steps, features), batch_size=batch)
    outputs = [layer(units, **arguments)(source) for layer, units, arguments in BRANCHES[::every]]
    gru = L.GRU(9, return_state=True)(source)
    lstm = L.LSTM(10, return_state=True, return_sequences=True)(source)
    return keras.Model(source, [*outputs, *gru, *lstm])


@pytest.mark.parametrize(("steps", "features", "batch", "every"), [(7, 16, 1, 1), (5, 9, 3, 3), (1, 6, 1, 5)])
def test_options_against_keras(steps, features, batch, every, library, levels):
    model = branching(steps, features, batch, every)
    prune(model, structure="row_column" if steps == 5 else "unaligned")
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert operators(sparse).count("BlockSparseGRU") == sum(layer is L.GRU for layer, *_ in BRANCHES[::every]) + 1
    assert sum(name.startswith("BlockSparse") for name in operators(sparse)) == len(BRANCHES[::every]) + 2
    assert "WHILE" not in operators(sparse)
    assert densify(sparse) == dense
    assert len(sparse) < len(dense)
    source = np.random.default_rng(0).normal(size=(batch, steps, features)).astype(np.float32)
    expected = [np.asarray(value) for value in model(source)]
    for level in levels:
        results = []
        for threads in (1, 2) if level == levels[-1] else (1,):
            results.append(sparse_outputs(sparse, library, source, cpu=level, num_threads=threads))
        for actual, wanted in zip(results[0], expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=2e-6)
        for other in results[1:]:
            assert [value.tobytes() for value in other] == [value.tobytes() for value in results[0]]


def test_states_as_inputs_carried_over_calls(library):
    source = keras.Input((6, 11), batch_size=2)
    states = [keras.Input((units,), batch_size=2) for units in (13, 18, 18)]
    gru = L.GRU(13, return_sequences=True, return_state=True)(source, initial_state=states[:1])
    lstm = L.LSTM(18, return_sequences=True, return_state=True)(source, initial_state=states[1:])
    model = keras.Model([source, *states], [*gru, *lstm])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert densify(sparse) == dense
    interpreter = tflite().Interpreter(
        model_content=sparse, experimental_delegates=[load_delegate(library=library, num_threads=2)]
    )
    runner = interpreter.get_signature_runner()
    names = sorted(runner.get_input_details(), key=lambda name: list(runner.get_input_details()).index(name))
    shapes = {name: tuple(runner.get_input_details()[name]["shape"]) for name in names}
    x_name = next(name for name in names if len(shapes[name]) == 3)
    order = [tensor.name for tensor in model.inputs]
    rng = np.random.default_rng(1)
    sequence = rng.normal(size=(2, 18, 11)).astype(np.float32)
    kept = {name: rng.normal(size=shapes[name]).astype(np.float32) * 0.5 for name in names if name != x_name}
    wanted = [kept[name] for name in order[1:]]
    for part in range(3):
        x = sequence[:, 6 * part : 6 * part + 6]
        actual = runner(**{x_name: x}, **kept)
        result = [actual[f"output_{i}"] for i in range(5)]
        expected = [np.asarray(value) for value in model([x, *wanted])]
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=3e-6)
        kept = dict(zip(order[1:], [result[1], *result[3:]], strict=True))
        wanted = [expected[1], *expected[3:]]


def logistic(v):
    return 1 / (1 + np.exp(-v))


def exact_gru(x: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """All states `[steps, units]` of a GRU in double precision, as Cho et al. and `reset_after` define it."""
    units = recurrent.shape[0]
    state, states = np.zeros(units), []
    for row in x.astype(np.float64):
        a, b = row @ kernel + bias[0], state @ recurrent + bias[1]
        z, r = logistic(a[:units] + b[:units]), logistic(a[units : 2 * units] + b[units : 2 * units])
        state = z * state + (1 - z) * np.tanh(a[2 * units :] + r * b[2 * units :])
        states.append(state)
    return np.array(states)


def exact_lstm(x: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> np.ndarray:
    units = recurrent.shape[0]
    state, cell, states = np.zeros(units), np.zeros(units), []
    for row in x.astype(np.float64):
        i, f, g, o = np.split(row @ kernel + state @ recurrent + bias, 4)
        cell = logistic(f) * cell + logistic(i) * np.tanh(g)
        state = logistic(o) * np.tanh(cell)
        states.append(state)
    return np.array(states)


def test_a_thousand_steps_do_not_let_the_error_grow(library, levels):
    """The gates forget: after 1,000 steps the error is what it was after 100, of the order of float32's precision."""
    source = keras.Input((1000, 12), batch_size=1)
    outputs = [L.GRU(32, return_sequences=True)(source), L.LSTM(28, return_sequences=True)(source)]
    model = keras.Model(source, outputs)
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense)
    assert densify(sparse) == dense
    assert len(sparse) < len(dense) - 4 * 1000 * (32 + 28)  # the zeros in which the loops keep their outputs
    x = np.random.default_rng(2).normal(size=(1, 1000, 12)).astype(np.float32)
    exact = [
        reference(x[0], *(np.asarray(w, np.float64) for w in layer.weights))
        for reference, layer in ((exact_gru, model.layers[1]), (exact_lstm, model.layers[2]))
    ]
    for level in levels:
        actual = sparse_outputs(sparse, library, x, cpu=level)
        for value, wanted in zip(actual, exact, strict=True):
            error = np.abs(value[0] - wanted).max(axis=1)
            assert error.max() < 3e-6
            assert error[-100:].max() < 4 * error[:100].max()


def test_stacked_and_bidirectional(library):
    model = keras.Sequential(
        [
            keras.Input((6, 10)),
            L.Bidirectional(L.GRU(20, return_sequences=True)),
            L.LSTM(16, return_sequences=True),
            L.GRU(24),
            L.Dense(5),
        ]
    )
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense)
    assert densify(sparse) == dense
    assert operators(sparse).count("BlockSparseGRU") == 3
    x = np.random.default_rng(3).normal(size=(1, 6, 10)).astype(np.float32)
    np.testing.assert_allclose(run_sparse(sparse, library, x)[0], model(x), rtol=0, atol=3e-6)


def test_a_dense_matrix_beside_a_sparse_one(library):
    model = keras.Sequential([keras.Input((6, 10)), L.GRU(20, reset_after=False)])
    prune(model)
    model.layers[0].cell.kernel.assign(np.random.default_rng(0).normal(size=(10, 60)))
    dense = convert(model, sparse=False)
    sparse = convert(dense)
    assert densify(sparse) == dense
    assert [layer.structure for layer in inspect(sparse)] == [None, "unaligned_block", "unaligned_block"]
    assert inspect(sparse)[0].reason == "dense matrix"
    x = np.random.default_rng(3).normal(size=(1, 6, 10)).astype(np.float32)
    np.testing.assert_allclose(run_sparse(sparse, library, x)[0], model(x), rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: L.LSTM(12, recurrent_activation="hard_sigmoid"), "operands of different widths"),
        (lambda: L.GRU(12, activation="relu"), "fused activation"),
        (lambda: L.SimpleRNN(12), "the next state is not"),
    ],
)
def test_other_loops_stay_loops_and_say_why(layer, reason, library):
    model = keras.Sequential([keras.Input((5, 8)), layer()])
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense)
    assert "WHILE" in operators(sparse)
    assert "BlockSparseFullyConnected" in operators(sparse)
    assert densify(sparse) == dense
    (loop,) = [entry for entry in inspect(sparse) if entry.kind == "WHILE"]
    assert loop.reason.startswith("loop is not recognised as a GRU or LSTM: ")
    assert reason in loop.reason
    x = np.random.default_rng(3).normal(size=(1, 5, 8)).astype(np.float32)
    np.testing.assert_allclose(run_sparse(sparse, library, x)[0], model(x), rtol=0, atol=3e-6)


# tf_keras: LSTMs are fused by the converter, with a gate's matrices apart and states that outlive an invocation


@pytest.fixture(scope="module")
def tf_keras():
    return pytest.importorskip("tf_keras")


def flat(outputs) -> list[np.ndarray]:
    if isinstance(outputs, (list, tuple)):
        return [value for part in outputs for value in flat(part)]
    return [np.asarray(outputs)]


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
    runner = (
        tflite()
        .Interpreter(model_content=sparse, experimental_delegates=[load_delegate(library=library)])
        .get_signature_runner()
    )
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
    interpreter = tflite().Interpreter(model_content=model)
    interpreter.allocate_tensors()
    results = []
    for value in calls:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
        if reset:
            interpreter.reset_all_variables()
    return results


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
    runner = (
        tflite()
        .Interpreter(model_content=sparse, experimental_delegates=[load_delegate(library=library)])
        .get_signature_runner()
    )
    rng = np.random.default_rng(1)
    for _ in range(2):
        values = [rng.normal(size=(1, *shape)).astype(np.float32) for shape in ((5, 9), (12,), (12,))]
        actual = runner(**dict(zip("xhc", values, strict=True)))["output_0"]
        np.testing.assert_allclose(actual, model(values), rtol=0, atol=2e-6)


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
    runner = (
        tflite()
        .Interpreter(model_content=sparse, experimental_delegates=[load_delegate(library=library)])
        .get_signature_runner()
    )
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


# Unrolled chains, whose first step lacks what zeros make zero


def check_unrolled(model, batch: int, library) -> None:
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert not {"FULLY_CONNECTED", "BlockSparseFullyConnected", "UNPACK", "TANH"} & {*operators(sparse)}
    assert densify(sparse) == dense
    runner = (
        tflite()
        .Interpreter(model_content=sparse, experimental_delegates=[load_delegate(library=library)])
        .get_signature_runner()
    )
    rng = np.random.default_rng(0)
    details = runner.get_input_details()
    for _ in range(2):
        x = {tensor.name: rng.normal(size=(batch, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs}
        actual = runner(**x if len(x) > 1 else {next(iter(details)): next(iter(x.values()))})
        wanted = flat(model(list(x.values())))
        assert len(actual) == len(wanted)
        for i, value in enumerate(wanted):
            np.testing.assert_allclose(actual[f"output_{i}"], value, rtol=0, atol=2e-6)


def test_unrolled_layers(library):
    layers = [
        L.LSTM(12, unroll=True),
        L.LSTM(9, unroll=True, use_bias=False, return_sequences=True, return_state=True),
        L.GRU(13, unroll=True, return_sequences=True, return_state=True),
        L.GRU(8, unroll=True, reset_after=False),
        L.GRU(7, unroll=True, use_bias=False, return_sequences=True),
    ]
    inputs = [keras.Input((2 + i, 10), batch_size=2, name=f"x{i}") for i in range(5)]
    outputs = [layer(source) for layer, source in zip(layers, inputs, strict=True)]
    check_unrolled(keras.Model(inputs, outputs), 2, library)


def test_unrolled_layers_on_one_another(tf_keras, library):
    layers = tf_keras.layers
    stack = [layers.LSTM(9, unroll=True, return_sequences=True), layers.LSTM(8, return_sequences=True)]
    model = tf_keras.Sequential([tf_keras.Input((3, 10)), *stack, layers.GRU(7, unroll=True)])
    check_unrolled(model, 1, library)


@pytest.fixture(scope="module", params=["GRU", "LSTM"])
def unrolled(request):
    """A chain of three steps: its dense and sparse file."""
    model = keras.Sequential([keras.Input((3, 8)), getattr(L, request.param)(12, unroll=True, return_sequences=True)])
    prune(model)
    dense = convert(model, sparse=False)
    return dense, convert(dense, min_zeros=0.1)


def test_a_changed_chain_is_not_recognised(unrolled):
    """Whatever step an operator is changed in, and whatever bias a step has of its own."""
    model = flatbuffer.read_model(unrolled[0])
    assert len(find_recurrent(model)[0]) == 1
    (subgraph,) = model.subgraphs
    codes = {flatbuffer.operator_name(model, o): o.opcodeIndex for o in subgraph.operators}
    swaps = {"TANH": "LOGISTIC", "LOGISTIC": "TANH", "MUL": "ADD", "ADD": "MUL", "SUB": "MUL", "PACK": "ADD"}
    tried = 0
    for operator in subgraph.operators:
        name = flatbuffer.operator_name(model, operator)
        inputs = operator.inputs
        if name in swaps:
            before, operator.opcodeIndex = operator.opcodeIndex, codes[swaps[name]]
            assert find_recurrent(model)[0] == []
            operator.opcodeIndex = before
            tried += 1
        for slot, tensor in enumerate(inputs):
            constant = tensor >= 0 and flatbuffer.constant_data(model, subgraph.tensors[tensor]) is not None
            if not constant or subgraph.tensors[tensor].type != 0 or name == "SUB":
                continue
            subgraph.tensors.append(copy.copy(subgraph.tensors[tensor]))
            data = flatbuffer.constant_data(model, subgraph.tensors[tensor]).view("<f4") + 1
            subgraph.tensors[-1].buffer = flatbuffer.add_buffer(model, flatbuffer.float_bytes(data))
            operator.inputs = inputs.copy()
            operator.inputs[slot] = len(subgraph.tensors) - 1
            assert find_recurrent(model)[0] == []
            operator.inputs = inputs
            tried += 1
    assert tried > 30
    assert len(find_recurrent(model)[0]) == 1


def read_inside(model) -> None:
    """The state after the first step is an output too."""
    subgraph = model.subgraphs[0]
    pack = next(o for o in subgraph.operators if flatbuffer.operator_name(model, o) == "PACK")
    subgraph.outputs = np.array([*subgraph.outputs, pack.inputs[0]], np.int32)


def other_order(model) -> None:
    subgraph = model.subgraphs[0]
    pack = next(o for o in subgraph.operators if flatbuffer.operator_name(model, o) == "PACK")
    pack.inputs = pack.inputs[::-1].copy()


def backwards(model) -> None:
    subgraph = model.subgraphs[0]
    unpack = next(o for o in subgraph.operators if flatbuffer.operator_name(model, o) == "UNPACK")
    unpack.outputs = unpack.outputs[::-1].copy()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (read_inside, "what it computes on the way is read by others"),
        (other_order, "its states are put together in another way"),
        (backwards, "its body has UNPACK"),
    ],
)
def test_other_chains_stay_chains_and_say_why(change, reason, unrolled):
    model = flatbuffer.read_model(unrolled[0])
    change(model)
    dense = flatbuffer.write_model(model)
    sparse = convert(dense, min_zeros=0.1)
    assert operators(sparse).count("BlockSparseFullyConnected") == 5
    assert densify(sparse) == dense
    (chain,) = [layer for layer in inspect(sparse) if layer.kind == "UNPACK"]
    assert chain.reason == f"unrolled chain is not recognised as a GRU or LSTM: {reason}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": None}, "'positions'"),
        ({"positions": b"\x01"}, "'positions': has 1 bytes"),
        ({"positions": b"\x01\x00\x00\x00"}, "do not fit their positions"),
        ({"loop_inputs": b"\x00" * 4}, "'loop_inputs': has 4 bytes; expected 8"),
        ({"return_sequences": False}, "stand among other tensors"),
    ],
)
def test_densify_names_what_is_wrong_with_a_chain(change, message, unrolled):
    with pytest.raises(FormatError) as error:
        densify(changed(unrolled[1], change))
    assert message in str(error.value)


# What is refused


@pytest.fixture(scope="module")
def small():
    """A GRU's dense and sparse file."""
    model = keras.Sequential([keras.Input((4, 9)), L.GRU(12)])
    prune(model)
    dense = convert(model, sparse=False)
    return dense, convert(dense)


def test_weights_that_are_not_sparse_stay_in_their_loop(small):
    data = convert(small[0], min_zeros=0.95)
    assert data == small[0]
    assert "WHILE" in operators(data)


def changed(sparse: bytes, change: dict, matrix: dict | None = None) -> bytes:
    """The file with other options; None removes a key."""
    model = flatbuffer.read_model(sparse)
    names = ("BlockSparseGRU", "BlockSparseLSTM")
    (operator,) = [o for o in model.subgraphs[0].operators if flatbuffer.operator_name(model, o) in names]
    options = reference_reader.read_options(operator.customOptions.tobytes())
    if matrix is not None:
        own = reference_reader.read_options(options["recurrent_kernel"])
        own.update(matrix)
        options["recurrent_kernel"] = build({key: value for key, value in own.items() if value is not None})
    options.update(change)
    data = build({key: value for key, value in options.items() if value is not None})
    operator.customOptions = np.frombuffer(data, np.uint8)
    return flatbuffer.write_model(model)


BAD_OPTIONS = [
    ({"version": 2}, None, 'key "version" is 2'),
    ({"units": None}, None, 'key "units" is missing'),
    ({"units": 0}, None, 'key "units" is 0'),
    ({"units": 13}, None, 'key "kernel": the matrix is 36 x 9; expected 39 x 9'),
    ({"units": 2**30}, None, 'key "units" is 1073741824'),
    ({"reset_after": False}, None, 'key "recurrent_kernel": the matrix is 36 x 12; expected 24 x 12'),
    ({"reset_after": None}, None, 'key "reset_after" is missing'),
    ({"return_sequences": 1}, None, 'key "return_sequences" is an integer'),
    ({"kernel": None}, None, 'key "kernel" is missing, and its tensor is no dense matrix'),
    ({"kernel": b""}, None, 'key "kernel" is empty'),
    ({"kernel": b"\x00\x01\x02\x03"}, None, 'key "kernel": custom options'),
    ({"kernel": 3}, None, 'key "kernel" is an integer'),
    ({"candidate_kernel": b"\x01"}, None, 'key "candidate_kernel" stands beside'),
    ({"loop_inputs": b"\x01"}, None, 'key "loop_inputs" has 1 bytes'),
    ({"body_subgraph": -1}, None, 'key "body_subgraph" is -1'),
    ({}, {"rows": 40}, 'key "recurrent_kernel": key "positions" starts block'),
    ({}, {"columns": 13}, 'key "recurrent_kernel": the matrix is 36 x 13; expected 36 x 12'),
    ({}, {"columns": 11}, 'key "recurrent_kernel": key "positions"'),
    ({}, {"activation": "relu"}, 'key "recurrent_kernel": key "activation"'),
    ({}, {"structure": "checkers"}, 'key "recurrent_kernel": key "structure"'),
    ({}, {"block": 0}, 'key "recurrent_kernel": key "block"'),
]


@pytest.mark.parametrize(("change", "matrix", "message"), BAD_OPTIONS)
def test_bad_options_are_refused_by_name(change, matrix, message, small, library):
    delegate = load_delegate(library=library)
    with pytest.raises((ValueError, RuntimeError)) as error:
        tflite().Interpreter(
            model_content=changed(small[1], change, matrix), experimental_delegates=[delegate]
        ).allocate_tensors()
    assert "BlockSparseGRU" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "'version'"),
        ({"units": None}, "'units'"),
        ({"loop_inputs": None}, "'loop_inputs'"),
        ({"loop_inputs": b"\x00\x00\x00\x00"}, "'loop_inputs': has 4 bytes; expected 20"),
        ({"loop_outputs": b"\xff\xff\xff\x7f" * 5}, "'loop_outputs': names a missing tensor"),
        ({"condition_subgraph": 7}, "'condition_subgraph'"),
        ({"dense_opcode": 0}, "'dense_opcode'"),
        ({"kernel": b"xyz"}, "kernel: custom options"),
    ],
)
def test_densify_names_what_is_wrong(change, message, small):
    with pytest.raises(FormatError) as error:
        densify(changed(small[1], change))
    assert message in str(error.value)


def test_densify_without_the_loops(small):
    model = flatbuffer.read_model(small[1])
    model.metadata = [entry for entry in model.metadata if b"keras_prune" not in entry.name]
    with pytest.raises(FormatError, match="from which the loops are restored"):
        densify(flatbuffer.write_model(model))


def test_a_changed_loop_is_not_recognised(small):
    """One operator at a time is made another one: nothing but the whole layer is taken for it."""
    model = flatbuffer.read_model(small[0])
    loops, _ = find_recurrent(model)
    assert len(loops) == 1
    operators_of = model.subgraphs[loops[0].home].operators
    codes = {flatbuffer.operator_name(model, o): o.opcodeIndex for s in model.subgraphs for o in s.operators}
    swaps = {"TANH": "LOGISTIC", "LOGISTIC": "TANH", "MUL": "SUB", "ADD": "MUL", "SUB": "MUL", "GATHER": "RESHAPE"}
    tried = 0
    for operator in operators_of:
        name = flatbuffer.operator_name(model, operator)
        if name not in swaps:
            continue
        before, operator.opcodeIndex = operator.opcodeIndex, codes[swaps[name]]
        found, others = find_recurrent(model)
        assert found == []
        assert len(others) == 1
        operator.opcodeIndex = before
        tried += 1
    assert tried > 10
    assert len(find_recurrent(model)[0]) == 1
