"""The delegate against TensorFlow Lite's builtin kernels on the densified model, and against files that are damaged."""

import itertools
import json
from unittest import mock

import keras
import numpy as np
import pytest
import reference_reader
import sparse_matrices
from dense_models import ModelBuilder, conv_model, fully_connected_model, run, run_dense, tflite

from keras_prune.tflite import convert, densify, flatbuffer, load_delegate, planning
from keras_prune.tflite.custom_options import build
from keras_prune.tflite.encodings import ENCODINGS

EPSILON = float(np.finfo(np.float32).eps)


def sparse_interpreter(model: bytes, library, **options):
    delegate = load_delegate(library=library, **options)
    return tflite().Interpreter(model_content=model, experimental_delegates=[delegate])


def run_sparse(model: bytes, library, *inputs: np.ndarray, **options) -> list[np.ndarray]:
    return run(sparse_interpreter(model, library, **options), *inputs)


def hostile(rng: np.random.Generator, shape) -> np.ndarray:
    """Values of all magnitudes and signs whose products and sums stay finite, denormals and zeros among them."""
    values = rng.normal(size=shape).astype(np.float32)
    special = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, 1e15, -1e15, 1e-15, 1.0, -1.0], np.float32)
    return np.where(rng.random(shape) < 0.2, rng.choice(special, shape), values).astype(np.float32)


MAKERS = {
    "unaligned_block": lambda rng, rows, kernel, channels: sparse_matrices.unaligned(
        rng, rows, kernel * channels, 4 if rows >= 8 else 2, 0.75
    ),
    "aligned_block": lambda rng, rows, kernel, channels: sparse_matrices.aligned(
        rng, rows, kernel * channels, min(8, rows), 0.75
    ),
    "pattern": lambda rng, rows, kernel, channels: (
        sparse_matrices.aligned(rng, rows, kernel * channels, 1, 0.8)
        if kernel != 9
        else sparse_matrices.patterns(rng, rows, channels, 0.5)
    ),
    "block_punched": lambda rng, rows, kernel, channels: sparse_matrices.punched(
        rng, rows, channels, kernel, (4, 4), 0.75
    ),
    "block_row_column": lambda rng, rows, kernel, channels: sparse_matrices.row_column(
        rng, rows, kernel * channels, (8, 8), 0.5
    ),
}


def sparse_weights(structure: str, rng, rows: int, kernel: tuple[int, int], channels: int, values: str) -> np.ndarray:
    matrix = MAKERS[structure](rng, rows, kernel[0] * kernel[1], channels)
    kept = matrix != 0
    if not kept.any():
        kept[0, 0] = True
    weights = hostile(rng, kept.shape) if values == "hostile" else rng.normal(size=kept.shape).astype(np.float32)
    weights = np.where(weights == 0, np.float32(1e-3), weights)
    return np.where(kept, weights, np.float32(0)).reshape(rows, *kernel, channels)


def assert_close(actual: np.ndarray, expected: np.ndarray, magnitude: np.ndarray, terms: int) -> None:
    """Compare two sums of the same products in another order; `magnitude` is the sum of the products' magnitudes."""
    bound = (4 + terms) * EPSILON * np.minimum(magnitude, np.float32(3e38)) + 1e-37
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    worst = np.unravel_index(np.argmax(difference - bound), difference.shape)
    assert (difference <= bound).all(), f"at {worst}: {actual[worst]} for {expected[worst]}, bound {bound[worst]}"


def sparsified(dense: bytes, structure: str) -> bytes:
    """Converts with the structure, however little it leaves out."""

    def choose(group, *_):
        group.candidate = min(ENCODINGS[structure].detect(group.weights), key=lambda candidate: candidate.values)

    with mock.patch.object(planning, "_choose", choose):
        return convert(dense)


# Convolutions

KERNELS = [(1, 1), (3, 3), (5, 2)]
STRIDES = [(1, 1), (2, 2), (1, 3)]
DILATIONS = [(1, 1), (2, 3)]
PADDINGS = ["same", "valid"]
ACTIVATIONS = ["none", "relu", "relu_n1_to_1", "relu6"]
ROWS = [22, 5, 37, 16, 66, 7]
CHANNELS = [3, 16, 29, 1, 8]
IMAGES = [(1, 13, 17), (3, 11, 9), (1, 16, 16), (2, 12, 31)]
CONVOLUTIONS = list(itertools.product(KERNELS, STRIDES, DILATIONS, PADDINGS, list(MAKERS)))


@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
def test_convolution(number, library, levels):
    kernel, stride, dilation, padding, structure = CONVOLUTIONS[number]
    # What has no axis of its own goes round with periods that share no factor with the axes' or each other.
    rows, channels = ROWS[number % len(ROWS)], CHANNELS[(number // 7) % len(CHANNELS)]
    if structure in ("block_punched", "block_row_column"):
        channels = max(channels, 4)  # the smallest block that the converter looks for
    activation, image = ACTIVATIONS[(number // 3) % 4], IMAGES[(number // 11) % 4]
    values = ("plain", "hostile")[(number // 5) % 2]
    rng = np.random.default_rng(number)
    weights = sparse_weights(structure, rng, rows, kernel, channels, values)
    bias = rng.normal(size=rows).astype(np.float32) if number % 4 else np.zeros(rows, np.float32)
    shape = (*image, channels)
    source = hostile(rng, shape) if values == "hostile" else rng.normal(size=shape).astype(np.float32)
    geometry = (image, stride, dilation, padding)
    dense = conv_model(weights, bias, *geometry, activation)
    sparse = sparsified(conv_model(weights, bias if number % 4 else None, *geometry, activation), structure)
    (expected,) = run_dense(dense, source)
    magnitudes = conv_model(np.abs(weights), np.abs(bias), *geometry)
    (magnitude,) = run_dense(magnitudes, np.abs(source))
    for level in levels:
        results = [run_sparse(sparse, library, source, cpu=level, num_threads=threads)[0] for threads in (1, 2, 3)]
        assert_close(results[0], expected, magnitude, weights[0].size)
        for other in results[1:]:
            assert other.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("block", [2, 3, 4, 5, 8, 16, 64])
@pytest.mark.parametrize("structure", ["unaligned_block", "aligned_block"])
def test_block_sizes(structure, block, library, levels):
    """Blocks that the converter does not choose but the format allows."""
    rng = np.random.default_rng(block)
    rows, columns = 131, 23
    make = sparse_matrices.unaligned if structure == "unaligned_block" else sparse_matrices.aligned
    matrix = make(rng, rows, columns, block, 0.7)
    dense = conv_model(matrix.reshape(rows, 1, 1, columns), np.ones(rows, np.float32), (1, 9, 7))
    model = flatbuffer.read_model(sparsified(dense, "pattern"))
    positions, values, cursor = [], [], 0
    groups = -(-rows // block)
    for column in range(columns):
        row = 0
        while row < rows:
            if not matrix[row, column]:
                row += 1 if structure == "unaligned_block" else block
                continue
            position = column * rows + row if structure == "unaligned_block" else column * groups + row // block
            positions.append(position - cursor)
            cursor = position + (block if structure == "unaligned_block" else 1)
            padded = np.zeros(block, np.float32)
            part = matrix[row : row + block, column]
            padded[: part.size] = part
            values.append(padded)
            row += block
    packed = b"".join(bytes([gap & 0x7F | 0x80, gap >> 7]) if gap > 127 else bytes([gap]) for gap in positions)
    operator = model.subgraphs[0].operators[0]
    options = reference_reader.read_options(operator.customOptions.tobytes())
    options.update(structure=structure, block=block, positions=packed)
    stored = np.concatenate(values)
    np.testing.assert_array_equal(reference_reader.decode(options, stored), matrix)
    operator.customOptions = np.frombuffer(build(options), np.uint8)
    tensor = model.subgraphs[0].tensors[operator.inputs[1]]
    tensor.shape = np.array([stored.size], np.int32)
    model.buffers[tensor.buffer].data = np.frombuffer(stored.tobytes(), np.uint8)
    sparse = flatbuffer.write_model(model)
    source = rng.normal(size=(1, 9, 7, columns)).astype(np.float32)
    (expected,) = run_dense(dense, source)
    for level in levels:
        (actual,) = run_sparse(sparse, library, source, cpu=level)
        assert_close(actual, expected, np.full_like(expected, 40.0), columns)


# Fully connected layers


@pytest.mark.parametrize(("leading", "keep"), [((1,), False), ((3,), False), ((2, 3), False), ((2, 3), True)])
@pytest.mark.parametrize("structure", list(MAKERS))
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_fully_connected(structure, activation, leading, keep, library, levels):
    rng = np.random.default_rng(len(leading))
    for rows, columns in [(37, 50), (5, 131)]:
        weights = sparse_weights(structure, rng, rows, (1, 1), columns, "hostile").reshape(rows, columns)
        bias = rng.normal(size=rows).astype(np.float32) if activation == "relu" else None
        dense = fully_connected_model(weights, bias, leading, activation, keep)
        sparse = sparsified(dense, structure)
        source = hostile(rng, (*leading, columns))
        (expected,) = run_dense(dense, source)
        absolute = fully_connected_model(np.abs(weights), None if bias is None else np.abs(bias), leading, "none", keep)
        (magnitude,) = run_dense(absolute, np.abs(source))
        for level in levels:
            results = [run_sparse(sparse, library, source, cpu=level, num_threads=threads)[0] for threads in (1, 2, 3)]
            assert_close(results[0], expected, magnitude, columns)
            for other in results[1:]:
                assert other.tobytes() == results[0].tobytes()


# In the runtime


def small_model() -> tuple[bytes, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = sparse_weights("unaligned_block", rng, 22, (3, 3), 5, "plain")
    dense = conv_model(weights, np.ones(22, np.float32), (1, 9, 8))
    return sparsified(dense, "unaligned_block"), rng.normal(size=(1, 9, 8, 5)).astype(np.float32)


def test_resize_and_repeat(library):
    sparse, _ = small_model()
    dense = densify(sparse)
    rng = np.random.default_rng(1)
    interpreter = sparse_interpreter(sparse, library, num_threads=2)
    for shape in [(1, 9, 8), (4, 9, 8), (1, 20, 33), (2, 3, 3), (1, 9, 8)]:
        source = rng.normal(size=(*shape, 5)).astype(np.float32)
        (actual,) = run(interpreter, source)
        (expected,) = run_dense(dense, source)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        interpreter.invoke()
        index = interpreter.get_output_details()[0]["index"]
        assert interpreter.get_tensor(index).tobytes() == actual.tobytes()


@pytest.mark.parametrize("runtime", ["tensorflow", "ai_edge_litert"])
def test_both_runtimes(runtime, library, tmp_path):
    module = pytest.importorskip("ai_edge_litert.interpreter") if runtime == "ai_edge_litert" else tflite()
    sparse, source = small_model()
    report = tmp_path / "report.json"
    delegate = load_delegate(library=library, runtime=runtime, report_path=report)
    interpreter = module.Interpreter(model_content=sparse, experimental_delegates=[delegate])
    (actual,) = run(interpreter, source)
    np.testing.assert_allclose(actual, run_dense(densify(sparse), source)[0], rtol=1e-4, atol=1e-4)
    assert json.loads(report.read_text())


def test_shared_weights(library):
    builder = ModelBuilder()
    matrix = sparse_matrices.aligned(np.random.default_rng(0), 12, 12, 4, 0.6)
    source, first, second = (builder.tensor([2, 12]) for _ in range(3))
    weights = builder.constant(matrix)
    alias = builder.constant(matrix, buffer=builder.tensors[weights].buffer)
    third = builder.tensor([2, 12])
    builder.fully_connected(source, weights, -1, first)
    builder.fully_connected(first, weights, -1, second, "relu")
    builder.fully_connected(second, alias, -1, third)
    dense = builder.build([source], [third])
    values = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)
    (actual,) = run_sparse(sparsified(dense, "aligned_block"), library, values)
    np.testing.assert_allclose(actual, run_dense(dense, values)[0], rtol=1e-4, atol=1e-4)


def test_keras_networks(library):
    layers = keras.layers
    convolutional = keras.Sequential(
        [
            keras.Input((15, 13, 3)),
            layers.Conv2D(18, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(26, 1, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(21, 3, activation="tanh"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    recurrent = keras.Sequential([keras.Input((4, 9)), layers.LSTM(12), layers.Dense(5)])
    rng = np.random.default_rng(0)
    for model in (convolutional, recurrent):
        for weight in model.weights:
            if "kernel" in weight.path and "depthwise" not in weight.path:
                shape = tuple(weight.shape)
                matrix = sparse_matrices.unaligned(rng, shape[-1], int(np.prod(shape[:-1])), 4, 0.7)
                weight.assign(matrix.T.reshape(shape))
        sparse = convert(model, min_zeros=0.3)
        assert any(code.customCode for code in flatbuffer.read_model(sparse).operatorCodes)
        source = rng.normal(size=(1, *model.input_shape[1:])).astype(np.float32)
        (expected,) = run_dense(densify(sparse), source)
        for threads in (1, 2):
            (actual,) = run_sparse(sparse, library, source, num_threads=threads)
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_threads": "0"}, "num_threads"),
        ({"num_threads": "65"}, "num_threads"),
        ({"num_threads": "two"}, "num_threads"),
        ({"cpu": "sse"}, "cpu"),
        ({"verbose": "yes"}, "verbose"),
        ({"threads": "2"}, "threads"),
    ],
)
def test_bad_options_of_the_delegate_are_named(library, options, problem):
    with pytest.raises(ValueError, match=problem):
        tflite().experimental.load_delegate(str(library), options)


def changed_model(change: dict, structure: str = "unaligned_block", raw: bytes | None = None) -> bytes:
    rng = np.random.default_rng(3)
    weights = sparse_weights(structure, rng, 12, (3, 3), 8, "plain")
    model = flatbuffer.read_model(sparsified(conv_model(weights, np.ones(12, np.float32)), structure))
    operator = model.subgraphs[0].operators[0]
    options = reference_reader.read_options(operator.customOptions.tobytes())
    options.update({key: value(options.get(key)) if callable(value) else value for key, value in change.items()})
    packed = build({key: value for key, value in options.items() if value is not None})
    operator.customOptions = np.frombuffer(packed if raw is None else raw, np.uint8)
    return flatbuffer.write_model(model)


COMMON = [
    ({"version": 2}, "version"),
    ({"version": None}, "version"),
    ({"version": "1"}, "version"),
    ({"structure": "diagonal"}, "structure"),
    ({"structure": None}, "structure"),
    ({"rows": 0}, "rows"),
    ({"rows": -1}, "rows"),
    ({"rows": 2**31}, "rows"),
    ({"rows": 13}, "rows|positions|bias|output"),
    ({"columns": 73}, "columns"),
    ({"columns": 81}, "columns|positions|input"),
    ({"columns": b"72"}, "columns"),
    ({"kernel_height": 0}, "kernel_height"),
    ({"kernel_width": None}, "kernel_width"),
    ({"kernel_height": 9, "kernel_width": 8}, "kernel|columns|input"),
    ({"stride_height": 0}, "stride_height"),
    ({"stride_width": 2**40}, "stride_width"),
    ({"dilation_height": -2}, "dilation_height"),
    ({"dilation_width": None}, "dilation_width"),
    ({"padding": "full"}, "padding"),
    ({"padding": 1}, "padding"),
    ({"activation": "tanh"}, "activation"),
    ({"activation": None}, "activation"),
]
OF_STRUCTURE = {
    "unaligned_block": [
        ({"block": 0}, "block"),
        ({"block": 1}, "block"),
        ({"block": 13}, "block"),
        ({"block": "4"}, "block"),
        ({"block": None}, "block"),
        ({"positions": None}, "positions"),
        ({"positions": 7}, "positions"),
        ({"positions": b""}, "positions|values"),
        ({"positions": lambda old: old[:-1]}, "positions|values"),
        ({"positions": lambda old: old + b"\0"}, "positions|values"),
        ({"positions": lambda old: b"\x80" + old[1:-1] + b"\x80"}, "positions"),
        ({"positions": lambda old: b"\xff\xff\xff\xff\x7f" + old[1:]}, "positions"),
        ({"positions": lambda old: b"\xff\xff\xff\xff\x0f" + old[1:]}, "positions"),
        ({"positions": lambda old: b"\x09" + old[1:]}, "positions"),
    ],
    "aligned_block": [
        ({"block": 3}, "positions|values|block"),
        ({"positions": lambda old: b"\x7f\x7f" + old[2:]}, "positions|values"),
        ({"positions": lambda old: old[:-1] + b"\x80"}, "positions"),
    ],
    "pattern": [
        ({"patterns": b""}, "patterns"),
        ({"patterns": lambda old: b"\0\0" + old[2:]}, "patterns"),
        ({"patterns": lambda old: b"\x01\xff" + old[2:]}, "patterns"),
        ({"patterns": lambda old: old[:2] + old[:2] + old[4:]}, "patterns"),
        ({"patterns": None}, "patterns"),
        ({"filter_order": b"\0\1"}, "filter_order"),
        ({"filter_order": bytes(12)}, "filter_order"),
        ({"filter_order": bytes(range(1, 13))}, "filter_order"),
        ({"gap_bits": 32}, "gap_bits"),
        ({"gap_bits": -1}, "gap_bits"),
        ({"gaps_low": lambda old: old[:-1]}, "gaps_low"),
        ({"gaps_low": lambda old: old + b"\0"}, "gaps_low"),
        ({"gaps_high": lambda old: old + b"\0"}, "gaps_high"),
        ({"gaps_high": b""}, "gaps|values"),
        ({"gaps_high": lambda old: bytes(8) + old}, "gaps_high"),
    ],
    "block_punched": [
        ({"block": 0}, "block"),
        ({"block": 13}, "block"),
        ({"block_channels": 0}, "block_channels"),
        ({"block_channels": 9}, "block_channels"),
        ({"kept": lambda old: old[:-1]}, "kept"),
        ({"kept": lambda old: old + b"\0"}, "kept"),
        ({"kept": lambda old: bytes(len(old))}, "kept|values"),
        ({"kept": lambda old: b"\xff" * len(old)}, "kept|values"),
    ],
    "block_row_column": [
        ({"block_rows": 0}, "block_rows"),
        ({"block_rows": 13}, "block_rows"),
        ({"block_columns": 0}, "block_columns"),
        ({"block_columns": 73}, "block_columns"),
        ({"kept_rows": lambda old: old[:-1]}, "kept_rows"),
        ({"kept_rows": lambda old: bytes(len(old))}, "kept_rows|kept_columns"),
        ({"kept_columns": lambda old: old + b"\0"}, "kept_columns"),
        ({"kept_columns": lambda old: bytes(len(old))}, "kept_rows|kept_columns|values"),
    ],
}
CHANGES = [("unaligned_block", *case) for case in COMMON]
CHANGES += [(structure, *case) for structure, cases in OF_STRUCTURE.items() for case in cases]


def load(model: bytes, library) -> None:
    sparse_interpreter(model, library).allocate_tensors()


def without_address(value: object) -> str:
    return str(value).partition(" at 0x")[0][:40]


@pytest.mark.parametrize(("structure", "change", "key"), CHANGES, ids=without_address)
def test_damaged_options_are_refused_when_the_model_is_loaded(structure, change, key, library):
    with pytest.raises((ValueError, RuntimeError), match=f"BlockSparseConv2D.*({key})"):
        load(changed_model(change, structure), library)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0\0\0", b"\xff" * 100, build({"version": 1})[:-1]], ids=len)
def test_options_that_are_no_map_are_refused(raw, library):
    with pytest.raises((ValueError, RuntimeError), match="BlockSparseConv2D"):
        load(changed_model({}, raw=raw), library)


def test_tensors_that_do_not_fit_are_refused(library):
    def change(edit):
        model = flatbuffer.read_model(changed_model({}))
        edit(model, model.subgraphs[0], model.subgraphs[0].operators[0])
        return flatbuffer.write_model(model)

    def fewer_values(model, subgraph, operator):
        tensor = subgraph.tensors[operator.inputs[1]]
        data = model.buffers[tensor.buffer].data
        tensor.shape = np.array([tensor.shape[0] - 4], np.int32)
        model.buffers[tensor.buffer].data = data[:-16]

    def other_channels(model, subgraph, operator):
        subgraph.tensors[operator.inputs[0]].shape = np.array([1, 7, 9, 7], np.int32)

    def short_bias(model, subgraph, operator):
        tensor = subgraph.tensors[operator.inputs[2]]
        tensor.shape = np.array([11], np.int32)
        model.buffers[tensor.buffer].data = model.buffers[tensor.buffer].data[:-4]

    def integers(model, subgraph, operator):
        subgraph.tensors[operator.inputs[1]].type = flatbuffer.schema().TensorType.INT32

    def not_constant(model, subgraph, operator):
        subgraph.tensors[operator.inputs[1]].buffer = 0
        subgraph.inputs = np.array([0, operator.inputs[1]], np.int32)

    def no_values(model, subgraph, operator):
        operator.inputs = operator.inputs[:1]

    def flat_input(model, subgraph, operator):
        subgraph.tensors[operator.inputs[0]].shape = np.array([63, 8], np.int32)

    for edit in (fewer_values, other_channels, short_bias, integers, not_constant, no_values, flat_input):
        with pytest.raises((ValueError, RuntimeError), match="BlockSparseConv2D"):
            load(change(edit), library)


@pytest.mark.parametrize("structure", list(MAKERS))
def test_changed_bytes_crash_nothing(structure, library):
    """Whatever byte is changed, the model is refused, or it runs and gives what `densify` makes of it."""
    rng = np.random.default_rng(0)
    weights = sparse_weights(structure, rng, 9, (1, 1), 12, "plain")
    data = sparsified(conv_model(weights, np.ones(9, np.float32), (1, 3, 3)), structure)
    model = flatbuffer.read_model(data)
    operator = model.subgraphs[0].operators[0]
    options = operator.customOptions.copy()
    source = rng.normal(size=(1, 3, 3, 12)).astype(np.float32)
    accepted = 0
    for at in range(options.size):
        changed = options.copy()
        changed[at] = rng.choice([0, 1, 127, 128, 255, options[at] ^ 1, options[at] ^ 16])
        if changed[at] == options[at]:
            continue
        operator.customOptions = changed
        broken = flatbuffer.write_model(model)
        try:
            (actual,) = run_sparse(broken, library, source)
        except (ValueError, RuntimeError):
            continue
        accepted += 1
        (expected,) = run_dense(densify(broken), source)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert accepted < options.size // 2
