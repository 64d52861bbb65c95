"""Back from a block-sparse `.tflite` file to builtin operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer, recurrent_operators, recurrent_restore
from keras_prune.tflite.custom_options import FormatError
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.operators import (
    CUSTOM_CODES,
    WEIGHTS,
    SparseLayer,
    builtin_options,
    custom_code,
    read_sparse,
    replaced_code,
)


def densify(data: bytes) -> bytes:
    """Turn block-sparse operators back into builtin ones.

    Args:
        data: the bytes of a `.tflite` file, block-sparse or not.

    Returns:
        A `.tflite` file that any runtime runs without a delegate. `densify(convert(model))` is
        `convert(model, sparse=False)`, byte for byte.

    Raises:
        ValueError: the file is damaged, or an operator's options are not as `docs/format.md` says; the message names
            the operator and the key.

    Example:
        >>> import keras, keras_prune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> keras_prune.densify(keras_prune.convert(model)) == keras_prune.convert(model, sparse=False)
        True
    """
    model = flatbuffer.read_model(data)
    recurrent_restore.restore(model)
    restored: dict[int, np.ndarray] = {}
    shapes: dict[tuple[int, int], list[int]] = {}
    replaced: list[tuple[Any, SparseLayer]] = []
    for s, subgraph in enumerate(model.subgraphs):
        for operator in subgraph.operators or []:
            if custom_code(model, operator) is None:
                continue
            layer = read_sparse(model, subgraph, operator, list(ENCODINGS))
            tensor = flatbuffer.ints(operator.inputs)[WEIGHTS]
            buffer = int(subgraph.tensors[tensor].buffer)
            dense = _dense_bytes(layer)
            if not np.array_equal(restored.setdefault(buffer, dense), dense):
                raise FormatError(f"{layer.options.operator}: shares its values with an operator of another structure")
            shapes[s, tensor] = layer.weight_shape
            operator.builtinOptionsType, operator.builtinOptions = builtin_options(layer)
            operator.customOptions = None
            replaced.append((operator, layer))
    _refuse_other_readers(model, set(restored), set(shapes))
    for buffer, dense in restored.items():
        model.buffers[buffer].data = dense
    for (s, tensor), shape in shapes.items():
        model.subgraphs[s].tensors[tensor].shape = np.array(shape, np.int32)
    _restore_opcodes(model, replaced)
    return flatbuffer.write_model(model)


def _dense_bytes(layer: SparseLayer) -> np.ndarray:
    encoding = ENCODINGS[layer.structure]
    matrix = encoding.decode(layer.options, layer.shape, layer.values, layer.negative_zero_rows)
    return np.frombuffer(np.ascontiguousarray(matrix, "<f4").tobytes(), np.uint8)


def _refuse_other_readers(model: Any, buffers: set[int], tensors: set[tuple[int, int]]) -> None:
    for s, subgraph in enumerate(model.subgraphs):
        for t, tensor in enumerate(subgraph.tensors or []):
            if tensor.buffer in buffers and (s, t) not in tensors:
                raise FormatError(
                    f"the values of a block-sparse operator are also tensor {flatbuffer.text(tensor.name)!r}"
                )
        for operator in subgraph.operators or []:
            sparse = custom_code(model, operator) is not None
            for slot, t in enumerate(flatbuffer.ints(operator.inputs)):
                if (s, t) in tensors and not (sparse and slot == WEIGHTS):
                    name = flatbuffer.operator_name(model, operator)
                    raise FormatError(f"the values of a block-sparse operator are also read by {name}")


def _restore_opcodes(model: Any, replaced: list[tuple[Any, SparseLayer]]) -> None:
    """Remove the codes that `convert` has added and move every operator to its code's new place."""
    sparse = {id(operator) for operator, _ in replaced}
    others = [o for subgraph in model.subgraphs for o in subgraph.operators or [] if id(o) not in sparse]
    used = {operator.opcodeIndex for operator in others}
    builtin_custom = flatbuffer.schema().BuiltinOperator.CUSTOM
    kept: list[Any] = []
    moved: dict[int, int] = {}
    for i, opcode in enumerate(model.operatorCodes):
        if flatbuffer.builtin_code(opcode) == builtin_custom and flatbuffer.text(opcode.customCode) in CUSTOM_CODES:
            continue
        if len(kept) < i and i not in used and flatbuffer.builtin_code(opcode) in recurrent_operators.added_codes():
            continue  # behind a block-sparse code: added for an operator beside one
        moved[i] = len(kept)
        kept.append(opcode)
    for operator in others:
        operator.opcodeIndex = moved[operator.opcodeIndex]
    model.operatorCodes = kept
    for operator, layer in replaced:
        operator.opcodeIndex = _dense_opcode(kept, layer)


def _dense_opcode(opcodes: list[Any], layer: SparseLayer) -> int:
    code = replaced_code(layer.custom_code)
    if layer.dense_opcode is not None:
        index = layer.dense_opcode
        if index >= len(opcodes) or flatbuffer.builtin_code(opcodes[index]) != code:
            raise layer.options.fail("dense_opcode", f"is {index}, which is not the operator that this one replaces")
        return index
    for i, opcode in enumerate(opcodes):
        if flatbuffer.builtin_code(opcode) == code:
            return i
    opcode = flatbuffer.schema().OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = code
    opcodes.append(opcode)
    return len(opcodes) - 1
