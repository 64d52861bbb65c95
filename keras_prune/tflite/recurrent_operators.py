"""The block-sparse recurrent operators: their inputs, options and matrices, as `docs/format.md` specifies them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.custom_options import CustomOptions, FormatError
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.operators import (
    FULLY_CONNECTED,
    GRU,
    LSTM,
    MAX_ELEMENTS,
    RECURRENT_CODES,
    VERSION,
    SparseLayer,
    custom_code,
    layer_name,
    read_matrix,
    values_of,
)

# Inputs: the steps' input, the matrices, the biases, the states, a masked layer's mask. The cell is an LSTM's alone.
INPUT, KERNEL, RECURRENT_KERNEL, CANDIDATE_KERNEL, BIAS, RECURRENT_BIAS, STATE, CELL = range(8)
MATRICES = {"kernel": KERNEL, "recurrent_kernel": RECURRENT_KERNEL, "candidate_kernel": CANDIDATE_KERNEL}

# The part of the file's metadata that holds what has been taken out of the runtime's sight.
METADATA = "keras_prune.subgraphs"


def is_recurrent(model: Any, operator: Any) -> bool:
    """Whether this is one of the block-sparse recurrent operators."""
    return custom_code(model, operator) in RECURRENT_CODES


def dense_code(name: Any) -> int:
    """Return a builtin operator's number."""
    return int(getattr(flatbuffer.schema().BuiltinOperator, name))


def swap_codes() -> tuple[int, ...]:
    """Return the numbers of the operators that may stand on both sides of a batch-major layer's operator."""
    return dense_code("RESHAPE"), dense_code("TRANSPOSE")


def added_codes() -> tuple[int, ...]:
    """Return the numbers of the operators that may have been added beside a layer's operator."""
    return (*swap_codes(), dense_code("CAST"))


def read_options(model: Any, subgraph: Any, operator: Any) -> CustomOptions:
    """Read a recurrent operator's options, checked but for the matrices' own and what `restore` needs.

    Raises:
        FormatError: they, or the number of inputs and outputs, are not as specified.
    """
    code = custom_code(model, operator)
    where = f"{code} {layer_name(subgraph, operator)!r}"
    data = b"" if operator.customOptions is None else np.asarray(operator.customOptions, np.uint8).tobytes()
    options = CustomOptions(data, where)
    options.integer("version", VERSION, VERSION)
    options.integer("units", 1, MAX_ELEMENTS)
    options.flag("return_sequences")
    if code == GRU:
        options.flag("reset_after")
    states = 2 if code == LSTM else 1
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    known = len(inputs) in (STATE + states, STATE + states + 1) and len(outputs) == 1 + states
    if not known or min([*inputs[:CANDIDATE_KERNEL], *inputs[STATE:], *outputs]) < 0:
        raise FormatError(f"{where}: expected {STATE + states} inputs, or a mask behind them, and {1 + states} outputs")
    return options


def mask_of(operator: Any) -> int | None:
    """Return the tensor of an operator's mask."""
    inputs, states = flatbuffer.ints(operator.inputs), len(flatbuffer.ints(operator.outputs)) - 1
    return inputs[-1] if len(inputs) > STATE + states else None


def matrices(model: Any, subgraph: Any, operator: Any) -> Iterator[tuple[str, int, SparseLayer | None]]:
    """Yield a recurrent operator's matrices: name, tensor, and the matrix's options where it is block-sparse.

    Raises:
        FormatError: an option or a values tensor is not as specified.
    """
    options = read_options(model, subgraph, operator)
    for name, slot in MATRICES.items():
        tensor = flatbuffer.ints(operator.inputs)[slot]
        if tensor < 0:
            continue
        if name not in options:
            _check_dense(model, subgraph.tensors[tensor], f"{options.operator}, {name}")
            yield name, tensor, None
            continue
        yield name, tensor, _sparse_matrix(model, options, name, subgraph.tensors[tensor])


def _check_dense(model: Any, tensor: Any, where: str) -> None:
    shape, data = flatbuffer.ints(tensor.shape), flatbuffer.constant_data(model, tensor)
    if len(shape) != 2 or data is None or len(data) != 4 * math.prod(shape):
        raise FormatError(f"{where}: its options are missing, and its tensor is no dense matrix")


def _sparse_matrix(model: Any, options: CustomOptions, name: str, tensor: Any) -> SparseLayer:
    own = CustomOptions(options.blob(name), f"{options.operator}, {name}")
    return read_matrix(own, FULLY_CONNECTED, list(ENCODINGS), lambda _: values_of(model, tensor, own.operator))
