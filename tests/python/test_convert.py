"""Conversion: options in the file, the way back byte for byte, and what stays dense and why."""

import keras
import numpy as np
import pytest
import reference_reader
import sparse_matrices
import tensorflow as tf
from dense_models import (
    ModelBuilder,
    builtin_interpreter,
    conv_model,
    fully_connected_model,
    run,
    run_dense,
)

import keras_prune
from keras_prune.tflite import MIN_ZEROS, FormatError, convert, densify, flatbuffer, inspect
from keras_prune.tflite.custom_options import build

L = keras.layers


def sparse_operators(data: bytes) -> list:
    """(custom code, options by the FlexBuffers library, operator, subgraph, model) of each block-sparse operator."""
    model = flatbuffer.read_model(data)
    found = []
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            if code.builtinCode == flatbuffer.schema().BuiltinOperator.CUSTOM:
                options = reference_reader.read_options(operator.customOptions.tobytes())
                found.append((code.customCode.decode(), options, operator, subgraph, model))
    return found


def stored_values(operator, subgraph, model) -> np.ndarray:
    return np.frombuffer(model.buffers[subgraph.tensors[operator.inputs[1]].buffer].data.tobytes(), "<f4")


def unaligned_kernel(seed: int, rows: int, kernel: tuple[int, int], channels: int, zeros: float = 0.8) -> np.ndarray:
    matrix = sparse_matrices.unaligned(np.random.default_rng(seed), rows, kernel[0] * kernel[1] * channels, 4, zeros)
    return matrix.reshape(rows, *kernel, channels)


# The file


def test_options_of_a_convolution_and_its_values():
    weights = unaligned_kernel(0, 13, (3, 2), 5)
    bias = np.arange(13, dtype=np.float32)
    data = convert(conv_model(weights, bias, (2, 9, 8), (2, 1), (1, 3), "valid", "relu6"))
    ((code, options, operator, subgraph, model),) = sparse_operators(data)
    assert code == "BlockSparseConv2D"
    positions = options.pop("positions")
    assert options == {
        "version": 1,
        "structure": "unaligned_block",
        "rows": 13,
        "columns": 30,
        "block": 4,
        "kernel_height": 3,
        "kernel_width": 2,
        "stride_height": 2,
        "stride_width": 1,
        "dilation_height": 1,
        "dilation_width": 3,
        "padding": "valid",
        "activation": "relu6",
    }
    values = stored_values(operator, subgraph, model)
    assert values.size == 4 * len(positions)
    decoded = reference_reader.decode({**options, "positions": positions}, values)
    np.testing.assert_array_equal(decoded, weights.reshape(13, -1))
    # the values are where the dense weights were: same tensor, same name
    tensor = subgraph.tensors[operator.inputs[1]]
    assert list(tensor.shape) == [values.size]
    assert tensor.name == b"weights"
    assert list(operator.inputs) == [0, 1, 2]
    assert [c.builtinCode for c in model.operatorCodes] == [3, 32]


def test_options_of_a_fully_connected_layer():
    weights = sparse_matrices.aligned(np.random.default_rng(0), 9, 40, 4, 0.8)
    data = convert(fully_connected_model(weights, None, (2, 3), "relu", keep_num_dims=True))
    ((code, options, operator, _subgraph, _model),) = sparse_operators(data)
    assert code == "BlockSparseFullyConnected"
    options.pop("positions")
    assert options == {
        "version": 1,
        "structure": "aligned_block",
        "rows": 9,
        "columns": 40,
        "block": 4,
        "keep_num_dims": True,
        "activation": "relu",
    }
    assert list(operator.inputs) == [0, 1, -1]


def test_constants_are_aligned_to_16_bytes():
    data = convert(conv_model(unaligned_kernel(0, 12, (3, 3), 7), np.ones(12, np.float32)))
    model = flatbuffer.read_model(data)
    for buffer in model.buffers:
        if buffer.data is not None:
            assert data.index(buffer.data.tobytes()) % 16 == 0


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("activation", ["none", "relu", "relu_n1_to_1", "relu6"])
@pytest.mark.parametrize(
    ("rows", "kernel", "channels", "stride", "dilation"),
    [
        (12, (1, 1), 11, (1, 1), (1, 1)),
        (10, (3, 3), 3, (2, 2), (1, 1)),
        (7, (1, 5), 4, (1, 2), (1, 1)),
        (33, (3, 2), 6, (1, 1), (2, 3)),
    ],
)
def test_convolution_there_and_back(rows, kernel, channels, stride, dilation, activation, padding):
    weights = unaligned_kernel(rows, rows, kernel, channels)
    bias = np.linspace(-1, 1, rows, dtype=np.float32)
    dense = conv_model(weights, bias, (2, 9, 8), stride, dilation, padding, activation)
    sparse = convert(dense, min_zeros=0.3)
    assert len(sparse_operators(sparse)) == 1
    assert densify(sparse) == convert(dense, sparse=False) == dense  # made by the same writer
    source = np.random.default_rng(1).normal(size=(2, 9, 8, channels)).astype(np.float32)
    (expected,) = run_dense(dense, source)
    (actual,) = run_dense(densify(sparse), source)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("bias", ["none", "absent", "constant"])
@pytest.mark.parametrize(("leading", "keep"), [((1,), False), ((3,), False), ((2, 3), False), ((2, 3), True)])
def test_fully_connected_there_and_back(leading, keep, bias):
    weights = sparse_matrices.unaligned(np.random.default_rng(0), 18, 23, 4, 0.8)
    dense = fully_connected_model(
        weights, np.ones(18, np.float32) if bias == "constant" else None, leading, keep_num_dims=keep
    )
    if bias == "absent":
        model = flatbuffer.read_model(dense)
        model.subgraphs[0].operators[0].inputs = np.array([0, 1], np.int32)
        dense = flatbuffer.write_model(model)
    sparse = convert(dense)
    assert len(sparse_operators(sparse)) == 1
    assert densify(sparse) == dense


@pytest.mark.parametrize(
    ("structure", "matrix", "kernel"),
    [
        ("pattern", lambda rng: sparse_matrices.patterns(rng, 14, 11, 0.45), (3, 3)),
        ("pattern", lambda rng: sparse_matrices.aligned(rng, 14, 33, 1, 0.8), (1, 1)),
        ("block_punched", lambda rng: sparse_matrices.punched(rng, 21, 10, 9, (8, 4), 0.8), (3, 3)),
        ("block_row_column", lambda rng: sparse_matrices.row_column(rng, 40, 54, (8, 16), 0.4), (3, 3)),
        ("aligned_block", lambda rng: sparse_matrices.aligned(rng, 22, 18, 8, 0.8), (3, 3)),
    ],
)
def test_every_structure_there_and_back(structure, matrix, kernel):
    matrix = matrix(np.random.default_rng(7))
    weights = matrix.reshape(matrix.shape[0], *kernel, -1)
    dense = conv_model(weights, np.zeros(matrix.shape[0], np.float32))
    sparse = convert(dense, structures=[structure])
    ((_, options, operator, subgraph, model),) = sparse_operators(sparse)
    assert options["structure"] == structure
    np.testing.assert_array_equal(reference_reader.decode(options, stored_values(operator, subgraph, model)), matrix)
    assert densify(sparse) == dense


def test_negative_zeros_come_back_and_mixed_rows_become_positive():
    weights = unaligned_kernel(3, 18, (1, 1), 31)
    zero = weights == 0
    weights[2][zero[2]] = -0.0
    weights[17][zero[17]] = -0.0
    dense = conv_model(weights)
    sparse = convert(dense)
    ((_, options, operator, subgraph, model),) = sparse_operators(sparse)
    assert options["negative_zero_rows"] == bytes([0b100, 0, 0b10])
    decoded = reference_reader.decode(options, stored_values(operator, subgraph, model))
    assert decoded.tobytes() == weights.tobytes()
    assert densify(sparse) == dense

    mixed = weights.copy()
    first_zero = np.flatnonzero(zero[2])[0]
    mixed[2].reshape(-1)[first_zero] = 0.0  # row 2 now has both
    normalised = weights.copy()
    normalised[2][zero[2]] = 0.0
    assert convert(conv_model(mixed), sparse=False) == conv_model(normalised)
    assert densify(convert(conv_model(mixed))) == conv_model(normalised)
    assert convert(conv_model(mixed), sparse=False, min_zeros=0.99) == conv_model(normalised)


def test_stored_zeros_keep_their_sign():
    weights = sparse_matrices.aligned(np.random.default_rng(0), 16, 40, 16, 0.8)
    column = np.flatnonzero(weights[3])[0]
    weights[3, column] = -0.0  # inside a block, in a row whose other zeros are positive: they are mixed
    weights[4, column] = 0.0
    dense = fully_connected_model(weights)
    expected = weights.copy()
    expected[3, column] = 0.0
    assert densify(convert(dense, structures=["aligned_block"])) == fully_connected_model(expected)


def test_writing_is_stable():
    data = conv_model(unaligned_kernel(0, 12, (3, 3), 7), np.ones(12, np.float32))
    assert flatbuffer.write_model(flatbuffer.read_model(data)) == data


def test_operator_codes_of_other_versions_come_back():
    builder = ModelBuilder()
    source = builder.tensor([1, 5, 5, 8])
    middle, output = builder.tensor([1, 5, 5, 8]), builder.tensor([1, 5, 5, 8])
    for version, (a, b) in enumerate([(source, middle), (middle, output)], start=1):
        weights = builder.constant(unaligned_kernel(version, 8, (1, 1), 8))
        builder.conv(a, weights, builder.constant(np.zeros(8, np.float32)), b, version=version)
    dense = builder.build([source], [output])
    sparse = convert(dense, min_zeros=0.3)
    assert [options.get("dense_opcode") for _, options, *_ in sparse_operators(sparse)] == [None, 1]
    assert densify(sparse) == dense


# What stays dense


def reasons(data: bytes) -> list:
    return [layer.reason for layer in inspect(data)]


def test_few_zeros_and_small_blocks_stay_dense():
    rng = np.random.default_rng(0)
    weights = sparse_matrices.unaligned(rng, 32, 60, 4, 0.4)
    assert convert(fully_connected_model(weights), min_zeros=0.6) == fully_connected_model(weights)
    assert len(sparse_operators(convert(fully_connected_model(weights), min_zeros=0.2))) == 1
    # What makes a convolution faster is too little for a fully connected layer.
    weights = sparse_matrices.unaligned(rng, 32, 60, 4, 0.25)
    assert len(sparse_operators(convert(conv_model(weights.reshape(32, 1, 1, 60))))) == 1
    assert convert(fully_connected_model(weights)) == fully_connected_model(weights)
    few = np.where(rng.random((32, 60)) < 0.05, np.float32(0), np.float32(1))
    assert f"zeros; at least {MIN_ZEROS:.1%} are worth it" in reasons(convert(fully_connected_model(few)))[0]
    scattered = sparse_matrices.aligned(rng, 32, 60, 1, 0.6)
    assert sparse_operators(convert(fully_connected_model(scattered))) == []
    assert "in blocks so small that the dense layer would be faster" in reasons(fully_connected_model(scattered))[0]
    assert reasons(fully_connected_model(np.zeros((8, 8), np.float32))) == ["all weights are zero"]


def test_reason_for_other_activations_types_and_groups():
    weights = unaligned_kernel(0, 12, (1, 1), 8)
    assert "fused activation TANH" in reasons(conv_model(weights, activation="tanh"))[0]
    assert "weights are INT8" in reasons(fully_connected_model(np.zeros((8, 8), np.int8)))[0]

    builder = ModelBuilder()
    source, output = builder.tensor([1, 5, 5, 16]), builder.tensor([1, 5, 5, 12])
    builder.conv(source, builder.constant(weights), builder.constant(np.zeros(12, np.float32)), output)
    assert "grouped convolution (16 input channels, 8 a group)" in reasons(builder.build([source], [output]))[0]

    builder = ModelBuilder()
    source, output = builder.tensor([1, 8]), builder.tensor([1, 8])
    half = builder.constant(weights[:8, 0, 0].astype(np.float16))
    full = builder.tensor([8, 8])
    builder.operator("DEQUANTIZE", [half], [full])
    builder.fully_connected(source, full, -1, output)
    assert "computed by DEQUANTIZE" in reasons(builder.build([source], [output]))[0]

    builder = ModelBuilder()
    source, weights_in, output = builder.tensor([1, 8]), builder.tensor([8, 8]), builder.tensor([1, 8])
    builder.fully_connected(source, weights_in, -1, output)
    data = builder.build([source, weights_in], [output])
    assert reasons(data) == ["weights are not constant"]
    assert convert(data) == data


def shared_model(second: str) -> bytes:
    """A matrix 8 x 8 that two layers read, or a layer and somebody else."""
    builder = ModelBuilder()
    weights = sparse_matrices.aligned(np.random.default_rng(0), 8, 8, 4, 0.7)
    source, first = builder.tensor([1, 8]), builder.tensor([1, 8])
    constant = builder.constant(weights, "weights")
    builder.fully_connected(source, constant, -1, first)
    outputs = [first]
    if second in ("same tensor", "tanh"):
        outputs = [builder.tensor([1, 8])]
        builder.fully_connected(first, constant, -1, outputs[0], "tanh" if second == "tanh" else "relu")
    elif second == "same buffer":
        outputs = [builder.tensor([1, 8])]
        alias = builder.constant(weights, "alias", buffer=builder.tensors[constant].buffer)
        builder.fully_connected(first, alias, -1, outputs[0])
    elif second == "add":
        outputs.append(builder.tensor([8, 8]))
        builder.operator("ADD", [first, constant], [outputs[1]], builder.schema.AddOptionsT())
    elif second == "output":
        outputs.append(constant)
    elif second == "constant":
        builder.constant(weights, "alias", buffer=builder.tensors[constant].buffer)
    return builder.build([source], outputs)


@pytest.mark.parametrize("second", ["same tensor", "same buffer"])
def test_layers_that_share_weights_are_converted_together(second):
    dense = shared_model(second)
    sparse = convert(dense)
    assert len(sparse_operators(sparse)) == 2
    assert densify(sparse) == dense
    source = np.ones((1, 8), np.float32)
    np.testing.assert_array_equal(run_dense(densify(sparse), source), run_dense(dense, source))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("tanh", "also read by FULLY_CONNECTED"),
        ("add", "also read by ADD"),
        ("output", "an input or output of the model"),
        ("constant", "also the constant 'alias'"),
    ],
)
def test_weights_that_others_need_stay_dense(second, reason):
    dense = shared_model(second)
    assert convert(dense) == dense
    assert any(reason in (text or "") for text in reasons(dense))


# What is refused


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
@pytest.mark.parametrize("sparse", [True, False])
def test_weights_that_are_no_numbers_are_refused_by_name(value, kind, sparse):
    weights = unaligned_kernel(0, 12, (1, 1), 8)
    weights[3, 0, 0, 5] = value
    with pytest.raises(ValueError, match=f"layer 'layer/output': its weights 'weights' hold {kind} values"):
        convert(conv_model(weights), sparse=sparse)


def test_files_that_are_none_are_refused():
    dense = conv_model(unaligned_kernel(0, 12, (1, 1), 8))
    with pytest.raises(ValueError, match="not a TensorFlow Lite model"):
        convert(b"")
    with pytest.raises(ValueError, match="not a TensorFlow Lite model"):
        densify(b"x" * 100)
    with pytest.raises(ValueError, match="damaged"):
        convert(dense[:8] + b"\xff" * 200)
    with pytest.raises(ValueError, match="block-sparse already"):
        convert(convert(dense))
    with pytest.raises(TypeError, match="not the path"):
        convert("model.tflite")
    with pytest.raises(TypeError, match="expected a Keras model"):
        convert(7)


def test_truncated_files_never_do_worse_than_an_error():
    dense = conv_model(unaligned_kernel(0, 12, (1, 1), 8))
    for size in range(0, len(dense), 7):
        for data in (dense[:size], dense[:size] + b"\xff" * (len(dense) - size)):
            try:
                convert(data)
            except ValueError:
                continue


@pytest.mark.parametrize(
    "argument", [{"min_zeros": 1.0}, {"min_zeros": -0.1}, {"structures": ["none"]}, {"structures": []}]
)
def test_arguments_out_of_range(argument):
    with pytest.raises(ValueError, match="expected"):
        convert(conv_model(unaligned_kernel(0, 12, (1, 1), 8)), **argument)


def with_options(data: bytes, change: dict) -> bytes:
    """Changes the options of the only block-sparse operator; None removes a key."""
    ((_, options, operator, _, model),) = sparse_operators(data)
    options.update(change)
    kept = {key: value for key, value in options.items() if value is not None}
    operator.customOptions = np.frombuffer(build(kept), np.uint8)
    return flatbuffer.write_model(model)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "'version': is 2; expected 1 to 1"),
        ({"version": None}, "'version': is missing"),
        ({"structure": "diagonal"}, "'structure': is 'diagonal'"),
        ({"rows": 0}, "'rows': is 0"),
        ({"columns": 2**24}, "'columns': is 16777216; the input has 8 channels"),
        ({"rows": 2**24}, "'rows': is 16777216; the output has 12 channels"),
        ({"kernel_height": 3}, "'columns': is 8; expected a multiple of the 3 x 1"),
        ({"stride_width": 0}, "'stride_width': is 0"),
        ({"activation": "tanh"}, "'activation': is 'tanh'"),
        ({"padding": 1}, "'padding': is an integer"),
        ({"positions": b"\x80"}, "'positions': ends within"),
        ({"negative_zero_rows": b"\0"}, "'negative_zero_rows': has 1 bytes; expected 2"),
        ({"dense_opcode": 9}, "'dense_opcode': is 9"),
    ],
)
def test_densify_names_operator_key_and_problem(change, problem):
    sparse = convert(conv_model(unaligned_kernel(0, 12, (1, 1), 8)))
    with pytest.raises(FormatError, match=f"BlockSparseConv2D 'layer/output'.*{problem}"):
        densify(with_options(sparse, change))


def test_unknown_keys_are_ignored():
    sparse = convert(conv_model(unaligned_kernel(0, 12, (1, 1), 8)))
    assert densify(with_options(sparse, {"later": "addition"})) == densify(sparse)


# Keras models


def sparsen(model, seed: int = 0) -> None:
    """Give the layers' kernels zeros in blocks of 4, and batch normalisations factors of both signs."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if type(layer).__name__ in ("Conv2D", "Dense"):
            shape = tuple(kernel.shape)
            matrix = sparse_matrices.unaligned(rng, shape[-1], int(np.prod(shape[:-1])), 4, 0.8)
            kernel.assign(matrix.T.reshape(shape))
        if type(layer).__name__ == "BatchNormalization":
            size = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.5, 1, size) * rng.choice([-1, 1], size))
            layer.moving_mean.assign(rng.normal(size=size))


def small_network(layers):
    return [
        layers.Conv2D(10, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(6.0),
        layers.DepthwiseConv2D(3),
        layers.Conv2D(17, 1, activation="tanh"),
        layers.Flatten(),
        layers.Dense(20, activation="relu"),
    ]


def test_keras_model():
    model = keras.Sequential([keras.Input((12, 12, 3)), *small_network(L)])
    sparsen(model)
    dense, sparse = convert(model, sparse=False), convert(model)
    codes = [code for code, *_ in sparse_operators(sparse)]
    assert codes == ["BlockSparseConv2D", "BlockSparseConv2D", "BlockSparseFullyConnected"]
    assert densify(sparse) == dense
    assert "negative_zero_rows" in sparse_operators(sparse)[0][1]
    source = np.random.default_rng(0).normal(size=(1, 12, 12, 3)).astype(np.float32)
    (actual,) = run_dense(dense, source)
    np.testing.assert_allclose(actual, model(source, training=False).numpy(), rtol=1e-4, atol=1e-5)
    assert keras_prune.convert(dense) == sparse


def test_tf_keras_model():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input((12, 12, 3)), *small_network(tf_keras.layers)])
    sparsen(model)
    sparse = convert(model)
    assert len(sparse_operators(sparse)) == 3
    source = np.random.default_rng(0).normal(size=(1, 12, 12, 3)).astype(np.float32)
    (actual,) = run_dense(densify(sparse), source)
    np.testing.assert_allclose(actual, model(source, training=False).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model_batch", "argument", "expected"), [(None, 1, 1), (None, 5, 5), (None, None, -1), (3, 1, 3)]
)
def test_batch_size(model_batch, argument, expected):
    model = keras.Sequential([L.InputLayer(batch_shape=(model_batch, 6)), L.Dense(8)])
    (detail,) = builtin_interpreter(convert(model, batch_size=argument)).get_input_details()
    assert detail["shape_signature"][0] == expected


def test_names_of_several_inputs_and_outputs():
    first, second = keras.Input((4,), name="first"), keras.Input((5,), name="second")
    model = keras.Model({"first": first, "second": second}, {"a": L.Dense(3)(first), "b": L.Dense(2)(second)})
    runner = builtin_interpreter(convert(model)).get_signature_runner("serving_default")
    assert set(runner.get_input_details()) == {"first", "second"}
    inputs = {"first": np.ones((1, 4), np.float32), "second": np.ones((1, 5), np.float32)}
    expected = model(inputs)
    for name, value in runner(**inputs).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def test_recurrent_layers():
    model = keras.Sequential([keras.Input((3, 8)), L.LSTM(12)])
    rng = np.random.default_rng(0)
    cell = model.layers[0].cell
    cell.kernel.assign(sparse_matrices.unaligned(rng, 48, 8, 4, 0.8).T)
    cell.recurrent_kernel.assign(sparse_matrices.unaligned(rng, 48, 12, 4, 0.8).T)
    dense, sparse = convert(model, sparse=False), convert(model)
    assert [code for code, *_ in sparse_operators(sparse)] == ["BlockSparseLSTM"]
    assert densify(sparse) == dense
    source = rng.normal(size=(1, 3, 8)).astype(np.float32)
    np.testing.assert_allclose(run_dense(dense, source)[0], model(source).numpy(), rtol=1e-4, atol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(8)

    def call(self, inputs):
        return self.dense(inputs)


def test_models_that_do_not_know_their_inputs():
    model = Subclassed()
    with pytest.raises(ValueError, match="input_signature"):
        convert(model)
    data = convert(model, input_signature=tf.TensorSpec((None, 6), tf.float32))
    assert run(builtin_interpreter(data), np.ones((1, 6), np.float32))[0].shape == (1, 8)


def test_options_of_the_tensorflow_converter():
    def half(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    model = keras.Sequential([keras.Input((64,)), L.Dense(64)])
    sparsen(model)
    data = convert(model, configure=half)
    assert sparse_operators(data) == []
    assert "computed by DEQUANTIZE" in reasons(data)[0]


def test_bad_arguments_for_keras_models():
    model = keras.Sequential([keras.Input((6,)), L.Dense(8)])
    with pytest.raises(ValueError, match="batch_size is 0"):
        convert(model, batch_size=0)
    model.layers[0].kernel.assign(np.full((6, 8), np.nan))
    with pytest.raises(ValueError, match="NaN"):
        convert(model)
