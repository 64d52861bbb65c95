"""Unrolled GRU and LSTM layers: chains whose first step lacks what zeros make zero."""

import copy

import keras
import numpy as np
import pytest
from recurrent_models import changed, flat, operators, prune, sparse_runner

from keras_prune.tflite import convert, densify, flatbuffer, inspect
from keras_prune.tflite.custom_options import FormatError
from keras_prune.tflite.recurrent_forms import find_recurrent

L = keras.layers


def check_unrolled(model, batch: int, library) -> None:
    prune(model)
    dense = convert(model, sparse=False)
    sparse = convert(dense, min_zeros=0.1)
    assert not {"FULLY_CONNECTED", "BlockSparseFullyConnected", "UNPACK", "TANH"} & {*operators(sparse)}
    assert densify(sparse) == dense
    runner = sparse_runner(sparse, library)
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
