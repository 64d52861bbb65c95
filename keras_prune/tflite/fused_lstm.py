"""UNIDIRECTIONAL_SEQUENCE_LSTM: what TensorFlow's converter makes of a tf_keras LSTM, read as a recurrent layer.

The operator has each gate's matrices and bias apart, and keeps its states in variable tensors from one invocation to
the next. Keras's layer does not: it starts from its initial state in every call, and so does what replaces it here.
"""

from __future__ import annotations

import math
from typing import Any

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.operators import LSTM, MAX_ELEMENTS, MAX_EXTENT
from keras_prune.tflite.recurrent_layer import Matrix, RecurrentLayer, carried_options, require

NAME = "UNIDIRECTIONAL_SEQUENCE_LSTM"
PROBLEM = f"{NAME} is not an LSTM as Keras has it"

# The operator's inputs: the gates stand in the order input, forget, cell, output, as in Keras's own matrices.
INPUT = 0
_MATRICES = {"kernel": (1, 2, 3, 4), "recurrent_kernel": (5, 6, 7, 8)}
_PEEPHOLES = range(9, 12)
_BIASES = (12, 13, 14, 15)
PARTS = {**_MATRICES, "bias": _BIASES}
_PROJECTION = range(16, 18)
_STATES = (18, 19)
_NORMALISATION = range(20, 24)
INPUT_COUNTS = (20, 24)

# TensorFlow's converter writes 10 for every tf_keras layer, none of which clips its cell; nor does what replaces it.
# Only the dense file differs from Keras, where a cell passes 10.
CELL_CLIPS = (0, 10)


def holds_matrices(model: Any, subgraph: Any, operator: Any) -> bool:
    """Whether the operator has weights: always."""
    return True


def read(model: Any, s: int, i: int) -> RecurrentLayer:
    """Read an operator.

    Raises:
        UnknownLayerError: it computes something else than an LSTM layer of Keras.
    """
    subgraph = model.subgraphs[s]
    operator = subgraph.operators[i]
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    require(len(inputs) in INPUT_COUNTS and len(outputs) == 1 and outputs[0] >= 0, "unusual inputs or outputs")
    require(all(inputs[slot] < 0 for slot in _PEEPHOLES), "it has peepholes")
    require(all(inputs[slot] < 0 for slot in _PROJECTION), "it has a projection")
    require(all(index < 0 for index in inputs[_NORMALISATION.start :]), "it normalises its gates")
    require(min(inputs[slot] for slot in (INPUT, *range(1, 9), *_BIASES, *_STATES)) >= 0, "it lacks a gate or a state")
    clip, time_major = _read_options(model, operator)

    shapes = [flatbuffer.ints(subgraph.tensors[index].shape) for index in (inputs[INPUT], outputs[0])]
    require(all(len(shape) == 3 and min(shape) > 0 for shape in shapes), "its input or output is not [., ., .]")
    require(shapes[0][:2] == shapes[1][:2], "its output has other steps than its input")
    units = shapes[1][2]
    batch = shapes[0][1 if time_major else 0]
    for index in (inputs[INPUT], outputs[0]):
        _require_float(subgraph.tensors[index])
    for name, slots in _MATRICES.items():
        for slot in slots:
            columns = shapes[0][2] if name == "kernel" else units
            _require_constant(model, subgraph.tensors[inputs[slot]], [units, columns])
    for slot in _BIASES:
        _require_constant(model, subgraph.tensors[inputs[slot]], [units])
    _check_states(model, s, i, [inputs[slot] for slot in _STATES], [batch, units])
    return RecurrentLayer(
        custom_code=LSTM,
        subgraph=s,
        operator=operator,
        units=units,
        return_sequences=True,
        matrices={name: Matrix(s, i, slots) for name, slots in _MATRICES.items()},
        home=s,
        biases={"bias": tuple(inputs[slot] for slot in _BIASES)},
        source=inputs[INPUT],
        states=tuple(inputs[slot] for slot in _STATES),
        sequence=outputs[0],
        batch_major=not time_major,
        dense={
            **carried_options(model, operator),
            "dense_operator": NAME,
            "batch_major": not time_major,
            "cell_clip": clip,
        },
    )


def _read_options(model: Any, operator: Any) -> tuple[int, bool]:
    """Return the bound of the cell and whether the steps come first."""
    options = flatbuffer.options(model, operator)
    tanh = flatbuffer.schema().ActivationFunctionType.TANH
    require(options is not None and options.fusedActivationFunction == tanh, "its activation is not tanh")
    require(options.cellClip in CELL_CLIPS, f"it clips its cell at {options.cellClip:g}")
    unusual = (
        options.projClip
        or options.asymmetricQuantizeInputs
        or getattr(options, "diagonalRecurrentTensors", False)
        or flatbuffer.ints(operator.intermediates)
        or operator.mutatingVariableInputs is not None
        or operator.customOptions is not None
    )
    require(not unusual, "it has unusual options")
    return int(options.cellClip), bool(options.timeMajor)


def restore_options(operator: Any, clip: int, batch_major: bool) -> None:
    """Give an operator the options from which `read` took these."""
    schema = flatbuffer.schema()
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    options.cellClip, options.timeMajor = float(clip), not batch_major
    operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    operator.builtinOptions = options


def _require_float(tensor: Any) -> None:
    require(tensor.type == flatbuffer.schema().TensorType.FLOAT32, "it is not FLOAT32")
    require(not flatbuffer.ints(tensor.shapeSignature), "its sizes are not fixed")


def _require_constant(model: Any, tensor: Any, shape: list[int]) -> None:
    _require_float(tensor)
    data = flatbuffer.constant_data(model, tensor)
    require(data is not None and not tensor.isVariable and tensor.sparsity is None, "its weights are not constant")
    assert data is not None
    size = math.prod(shape)
    require(flatbuffer.ints(tensor.shape) == shape and len(data) == 4 * size, "its weights are of another size")
    small = max(4 * shape[0], shape[-1]) <= MAX_EXTENT and 4 * size <= MAX_ELEMENTS
    require(small, "its weights are larger than the format allows")


def _check_states(model: Any, s: int, i: int, states: list[int], shape: list[int]) -> None:
    """The states are zero, or what the model is given or computes; no other operator counts on their being kept."""
    subgraph = model.subgraphs[s]
    for index in states:
        tensor = subgraph.tensors[index]
        _require_float(tensor)
        require(flatbuffer.ints(tensor.shape) == shape, "a state of another size")
        if index in flatbuffer.ints(subgraph.inputs):
            continue
        readers = [n for n, o in enumerate(subgraph.operators) if index in flatbuffer.ints(o.inputs)]
        computed = any(index in flatbuffer.ints(o.outputs) for o in subgraph.operators)
        kept = readers != [i] or index in flatbuffer.ints(subgraph.outputs) or states.count(index) > 1
        require(computed or (tensor.isVariable and not kept), "its state is also another operator's")
