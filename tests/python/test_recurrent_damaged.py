"""Damaged files with recurrent layers: refused by the package itself with a ValueError, or read all the same."""

import traceback

import keras
import numpy as np
import pytest
import reference_reader
from recurrent_models import prune

from keras_prune.tflite import convert, densify, flatbuffer, inspect
from keras_prune.tflite.custom_options import build
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.planning import make_plan
from keras_prune.tflite.recurrent_forms import find_recurrent

L = keras.layers
RECURRENT = ("BlockSparseGRU", "BlockSparseLSTM")


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def indices(rng, vector, count: int) -> np.ndarray:
    """Another list of indices into `count` elements: longer, shorter, in another order, out of range."""
    values = flatbuffer.ints(vector)
    if not values or rng.random() < 0.2:
        values.append(int(rng.integers(-1, count)))
        return np.array(values, np.int32)
    place = int(rng.integers(len(values)))
    kind = rng.integers(4)
    if kind == 0:
        del values[place]
    elif kind == 1:
        values.reverse()
    else:
        values[place] = int(pick(rng, [-1, 0, count - 1, count, 2**31 - 1, -(2**31), rng.integers(count)]))
    return np.array(values, np.int32)


def data(rng, model, subgraph, operator, tensor) -> None:
    buffer = model.buffers[tensor.buffer]
    if buffer.data is None or len(buffer.data) == 0:
        tensor.buffer = int(rng.integers(len(model.buffers)))
    else:
        size = pick(rng, [0, 1, len(buffer.data) - 1, len(buffer.data) - 4])
        buffer.data = None if size < 1 else np.asarray(buffer.data)[:size]


def builtin_options(rng, model, subgraph, operator, tensor) -> None:
    options = operator.builtinOptions
    names = [] if options is None else [name for name, value in vars(options).items() if isinstance(value, int)]
    if not names:
        operator.builtinOptions = None
        return
    name = pick(rng, names)
    value = getattr(options, name)
    setattr(options, name, not value if isinstance(value, bool) else pick(rng, [0, 1, 2, 3, 100]))


def custom_options(rng, model, subgraph, operator, tensor) -> None:
    own = [o for o in subgraph.operators if flatbuffer.operator_name(model, o) in RECURRENT]
    if not own:
        return
    operator = pick(rng, own)
    options = reference_reader.read_options(operator.customOptions.tobytes())
    key = pick(rng, sorted(options))
    value = options.pop(key)
    if isinstance(value, bytes):
        parts = np.frombuffer(value[: len(value) // 4 * 4], np.int32)
        options[key] = pick(rng, [b"", value[1:], value + value, indices(rng, parts, 40).tobytes(), 1])
    elif rng.random() < 0.8:
        options[key] = pick(rng, [0, -1, 7, 2**31, 2**62, True, False, "UNPACK", "UNIDIRECTIONAL_SEQUENCE_LSTM"])
    operator.customOptions = np.frombuffer(build(options), np.uint8)


def lost_operator(rng, model, subgraph, operator, tensor) -> None:
    subgraph.operators.remove(operator)
    if rng.random() < 0.5:
        subgraph.operators.insert(int(rng.integers(len(subgraph.operators) + 1)), operator)


def references(rng, model, subgraph, operator, tensor) -> None:
    count = len(subgraph.tensors)
    holder = pick(rng, [operator, operator, operator, subgraph])
    name = pick(rng, ["inputs", "outputs"])
    setattr(holder, name, indices(rng, getattr(holder, name), count))


def kind_of_operator(rng, model, subgraph, operator, tensor) -> None:
    operator.opcodeIndex = int(rng.integers(len(model.operatorCodes)))


def kind_of_tensor(rng, model, subgraph, operator, tensor) -> None:
    if rng.random() < 0.7:
        tensor.shape = indices(rng, tensor.shape, 8)
    else:
        tensor.type = int(rng.integers(16))


CHANGES = [references, data, builtin_options, custom_options, lost_operator, kind_of_operator, kind_of_tensor]


def damaged(file: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    model = flatbuffer.read_model(file)
    for _ in range(int(rng.integers(1, 3))):
        subgraph = pick(rng, [s for s in model.subgraphs if s.operators])
        tensor, operator = pick(rng, subgraph.tensors), pick(rng, subgraph.operators)
        pick(rng, CHANGES)(rng, model, subgraph, operator, tensor)
    return flatbuffer.write_model(model)


def attempt(function, file: bytes):
    """The result, or None if the file is refused by a `raise` of the package."""
    try:
        return function(file)
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert "keras_prune" in last.filename
        assert last.line.startswith("raise "), last.line
        return None


@pytest.fixture(scope="module", params=["loop", "masked", "unrolled", "fused"])
def files(request):
    """The dense and the sparse file of a layer in each form."""
    if request.param == "fused":
        k = pytest.importorskip("tf_keras")
        model = k.Sequential([k.Input((3, 8), batch_size=2), *(k.layers.LSTM(8, return_sequences=True) for _ in "ab")])
    else:
        layers = {
            "loop": [L.GRU(8, reset_after=False)],
            "masked": [L.Masking(), L.LSTM(8, return_sequences=True)],
            "unrolled": [L.GRU(8, unroll=True, return_sequences=True)],
        }
        model = keras.Sequential([keras.Input((3, 8)), *layers[request.param]])
    prune(model)
    dense = convert(model, sparse=False)
    return dense, convert(dense, min_zeros=0.1)


def test_damaged_dense_files(files):
    """What can be converted comes back as it was."""
    for seed in range(20):
        file = damaged(files[0], seed)
        attempt(inspect, file)
        sparse = attempt(lambda data: convert(data, min_zeros=0.1), file)
        restored = None if sparse is None else attempt(densify, sparse)
        assert restored is None or restored == convert(file, sparse=False), seed


def test_damaged_sparse_files(files):
    for seed in range(30):
        file = damaged(files[1], seed)
        attempt(inspect, file)
        attempt(densify, file)


def test_operators_of_another_kind(files):
    """With the options of the one that each was, whatever it is now: read without fail, and not as the same layer."""
    model = flatbuffer.read_model(files[0])
    layers, _ = find_recurrent(model)
    operators = model.subgraphs[layers[0].home].operators
    for operator in operators if len(operators) < 40 else operators[::4]:
        before = operator.opcodeIndex
        for code in {*range(len(model.operatorCodes))} - {before}:
            operator.opcodeIndex = code
            found, _ = find_recurrent(model)
            assert len(found) < len(layers) or layers[0].home == layers[0].subgraph
            make_plan(model, 0.1, list(ENCODINGS))
        operator.opcodeIndex = before
