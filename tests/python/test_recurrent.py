"""GRU and LSTM layers as loops: recognised in the file, run by the delegate, turned back; against Keras and NumPy."""

import keras
import numpy as np
import pytest
from dense_models import tflite
from recurrent_models import changed, operators, prune, run_sparse, sparse_outputs, sparse_runner

from keras_prune.tflite import convert, densify, flatbuffer, inspect, load_delegate
from keras_prune.tflite.custom_options import FormatError
from keras_prune.tflite.recurrent_forms import find_recurrent

L = keras.layers


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
    runner = sparse_runner(sparse, library, num_threads=2)
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
