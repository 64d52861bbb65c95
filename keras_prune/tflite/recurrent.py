"""The block-sparse recurrent operators: from loops to them, reading them, and back.

A loop's subgraphs go out of the runtime's sight, into a part of the file's metadata, so that `densify` can restore them
as they were. `docs/format.md` specifies all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_prune.tflite import custom_options, flatbuffer
from keras_prune.tflite.custom_options import CustomOptions, FormatError
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.loop_body import FIRST_STATE, SEQUENCE
from keras_prune.tflite.loops import Loop, find_loops
from keras_prune.tflite.operators import (
    FULLY_CONNECTED,
    GRU,
    LSTM,
    MAX_ELEMENTS,
    RECURRENT_CODES,
    VERSION,
    WEIGHTS,
    SparseLayer,
    custom_code,
    custom_opcode,
    layer_name,
    read_matrix,
    values_of,
)
from keras_prune.tflite.planning import Site

# Inputs: the steps' input, the matrices, the biases, the states. The cell is an LSTM's alone.
INPUT, KERNEL, RECURRENT_KERNEL, CANDIDATE_KERNEL, BIAS, RECURRENT_BIAS, STATE, CELL = range(8)
MATRICES = {"kernel": KERNEL, "recurrent_kernel": RECURRENT_KERNEL, "candidate_kernel": CANDIDATE_KERNEL}

_METADATA = "keras_prune.subgraphs"


def is_recurrent(model: Any, operator: Any) -> bool:
    """Whether this is one of the block-sparse recurrent operators."""
    return custom_code(model, operator) in RECURRENT_CODES


class Replacement:
    """Replaces the loops of which at least one matrix becomes block-sparse.

    Args:
        model: a schema `ModelT`; `replace` changes it.
        sparse: the operators that become block-sparse.
    """

    def __init__(self, model: Any, sparse: Sequence[Site]) -> None:
        self._model = model
        wanted = {(site.subgraph, site.index) for site in sparse}
        self._loops = [
            loop
            for loop in find_loops(model)[0]
            if any((loop.body, index) in wanted for index in loop.matrices.values())
        ]
        self._options: dict[tuple[int, int], bytes] = {}

    @property
    def bodies(self) -> set[int]:
        """Bodies of the loops that are replaced; they keep their dense operators."""
        return {loop.body for loop in self._loops}

    def take(self, site: Site, options: dict[str, custom_options.Value]) -> bool:
        """Take over a matrix's options if its operator stands in one of the loops."""
        if site.subgraph not in self.bodies:
            return False
        self._options[site.subgraph, site.index] = custom_options.build(options)
        return True

    def replace(self) -> None:
        """Put the operators in the loops' places; the matrices' buffers hold their values by now."""
        for loop in self._loops:
            self._replace_loop(loop)
        hidden = sorted({index for loop in self._loops for index in (loop.condition, loop.body)})
        if hidden:
            _hide(self._model, hidden)

    def _replace_loop(self, loop: Loop) -> None:
        main, body = self._model.subgraphs[loop.subgraph], self._model.subgraphs[loop.body]
        operator = loop.operator
        before, after = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
        states = slice(FIRST_STATE, -1)
        inputs = [before[-1], -1, -1, -1, -1, -1, *before[states]]
        options: dict[str, custom_options.Value] = {
            "version": VERSION,
            "units": loop.units,
            "return_sequences": loop.return_sequences,
            "condition_subgraph": loop.condition,
            "body_subgraph": loop.body,
            "loop_inputs": np.array(before, "<i4").tobytes(),
            "loop_outputs": np.array(after, "<i4").tobytes(),
        }
        if loop.custom_code == GRU:
            options["reset_after"] = loop.reset_after
        for name, index in loop.matrices.items():
            tensor = body.tensors[flatbuffer.ints(body.operators[index].inputs)[WEIGHTS]]
            shape = flatbuffer.ints(tensor.shape)
            if (loop.body, index) in self._options:
                options[name] = self._options[loop.body, index]
                shape = [len(self._model.buffers[tensor.buffer].data) // 4]
            inputs[MATRICES[name]] = _add_tensor(main, tensor, shape)
        for slot, bias in ((BIAS, loop.bias), (RECURRENT_BIAS, loop.recurrent_bias)):
            if bias is not None:
                inputs[slot] = _add_tensor(main, body.tensors[bias], flatbuffer.ints(body.tensors[bias].shape))
        if operator.opcodeIndex != _first_while(self._model):
            options["dense_opcode"] = int(operator.opcodeIndex)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([after[SEQUENCE], *after[states]], np.int32)
        if self._empty_sequence(main, before[SEQUENCE]):
            options["zero_sequence"] = True
        operator.opcodeIndex = custom_opcode(self._model, loop.custom_code)
        operator.builtinOptionsType = flatbuffer.schema().BuiltinOptions.NONE
        operator.builtinOptions = None
        operator.customOptions = np.frombuffer(custom_options.build(options), np.uint8)

    def _empty_sequence(self, main: Any, index: int) -> bool:
        """Take zeros that the loop overwrites, as large as its outputs, out of the file; whether they are out."""
        buffer = main.tensors[index].buffer
        holder = self._model.buffers[buffer]
        readers = {
            (s, t)
            for s, subgraph in enumerate(self._model.subgraphs)
            for t, tensor in enumerate(subgraph.tensors or [])
            if tensor.buffer == buffer
        }
        size = 4 * math.prod(flatbuffer.ints(main.tensors[index].shape))
        read = [i for o in main.operators for i in flatbuffer.ints(o.inputs)] + flatbuffer.ints(main.outputs)
        if buffer == 0 or len(readers) > 1 or index in read:
            return False
        if holder.data is None:
            return True  # by another loop
        if len(holder.data) != size or np.any(holder.data):
            return False
        holder.data = None
        return True


def _first_while(model: Any) -> int:
    code = flatbuffer.schema().BuiltinOperator.WHILE
    return next((i for i, opcode in enumerate(model.operatorCodes) if flatbuffer.builtin_code(opcode) == code), -1)


def _add_tensor(subgraph: Any, like: Any, shape: list[int]) -> int:
    tensor = flatbuffer.schema().TensorT()
    tensor.shape = np.array(shape, np.int32)
    tensor.type, tensor.buffer, tensor.name = like.type, like.buffer, like.name
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _hide(model: Any, subgraphs: list[int]) -> None:
    """Move subgraphs into the metadata; empty ones stay in their places, so that all others keep their numbers."""
    schema = flatbuffer.schema()
    aside = schema.ModelT()
    aside.version = model.version
    aside.buffers = []
    aside.subgraphs = [_empty_subgraph(None) for _ in model.subgraphs]
    for index in subgraphs:
        aside.subgraphs[index] = model.subgraphs[index]
        model.subgraphs[index] = _empty_subgraph(model.subgraphs[index].name)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(flatbuffer.write_model(aside), np.uint8)
    model.buffers.append(buffer)
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = _METADATA.encode(), len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), metadata]


def _empty_subgraph(name: Any) -> Any:
    subgraph = flatbuffer.schema().SubGraphT()
    subgraph.tensors, subgraph.operators, subgraph.name = [], [], name
    subgraph.inputs = subgraph.outputs = np.array([], np.int32)
    return subgraph


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
    lstm = code == LSTM
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    if len(inputs) != 7 + lstm or len(outputs) != 2 + lstm or min([*inputs[:CANDIDATE_KERNEL], *inputs[STATE:]]) < 0:
        raise FormatError(f"{where}: expected {7 + lstm} inputs and {2 + lstm} outputs")
    return options


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
            yield name, tensor, None
            continue
        yield name, tensor, _sparse_matrix(model, options, name, subgraph.tensors[tensor])


def _sparse_matrix(model: Any, options: CustomOptions, name: str, tensor: Any) -> SparseLayer:
    own = CustomOptions(options.blob(name), f"{options.operator}, {name}")
    return read_matrix(own, FULLY_CONNECTED, list(ENCODINGS), lambda _: values_of(model, tensor, own.operator))


def restore(model: Any) -> None:
    """Turn recurrent operators back into the loops that they were, dense; their codes stay for the caller to remove.

    Raises:
        FormatError: the file does not hold what that takes, or it is not as specified.
    """
    found = [
        (subgraph, operator)
        for subgraph in model.subgraphs
        for operator in subgraph.operators or []
        if is_recurrent(model, operator)
    ]
    if not found:
        return
    dense: dict[int, np.ndarray] = {}
    added: dict[int, set[int]] = {}
    for subgraph, operator in found:
        own = added.setdefault(id(subgraph), set())
        for _, tensor, layer in matrices(model, subgraph, operator):
            own.add(tensor)
            if layer is not None:
                _keep_dense(dense, int(subgraph.tensors[tensor].buffer), layer)
        inputs = flatbuffer.ints(operator.inputs)
        own |= {inputs[slot] for slot in (BIAS, RECURRENT_BIAS)} - {-1}
    empty = [_restore_loop(model, subgraph, operator) for subgraph, operator in found]
    for subgraph, _ in found:
        _remove_tensors(subgraph, added.pop(id(subgraph), set()))
    _show(model)
    for buffer, data in dense.items():
        model.buffers[buffer].data = data
    for subgraph, tensor in (pair for pair in empty if pair is not None):
        size = math.prod(flatbuffer.ints(subgraph.tensors[tensor].shape))
        if not 0 < 4 * size <= flatbuffer.MAX_FILE_BYTES:
            raise FormatError("a recurrent operator's zeros are larger than a .tflite file can hold")
        model.buffers[subgraph.tensors[tensor].buffer].data = np.zeros(4 * size, np.uint8)
    _check_sizes(model, set(dense))


def _keep_dense(dense: dict[int, np.ndarray], buffer: int, layer: SparseLayer) -> None:
    matrix = ENCODINGS[layer.structure].decode(layer.options, layer.shape, layer.values, layer.negative_zero_rows)
    data = np.frombuffer(np.ascontiguousarray(matrix, "<f4").tobytes(), np.uint8)
    if not np.array_equal(dense.setdefault(buffer, data), data):
        raise FormatError(f"{layer.options.operator}: shares its values with an operator of another structure")


def _restore_loop(model: Any, subgraph: Any, operator: Any) -> tuple[Any, int] | None:
    """Make an operator a WHILE again; returns where its zeros are missing."""
    options = read_options(model, subgraph, operator)
    schema = flatbuffer.schema()
    loop = schema.WhileOptionsT()
    loop.condSubgraphIndex = options.integer("condition_subgraph", 1, len(model.subgraphs) - 1)
    loop.bodySubgraphIndex = options.integer("body_subgraph", 1, len(model.subgraphs) - 1)
    states = len(flatbuffer.ints(operator.outputs)) - 1
    carried = {}
    for key in ("loop_inputs", "loop_outputs"):
        blob = options.blob(key)
        if len(blob) != 4 * (4 + states):
            raise options.fail(key, f"has {len(blob)} bytes; expected {4 * (4 + states)}")
        carried[key] = np.frombuffer(blob, "<i4").astype(np.int32)
        if carried[key].min() < 0 or carried[key].max() >= len(subgraph.tensors):
            raise options.fail(key, "names a missing tensor")
    opcode = options.integer("dense_opcode", 0, MAX_ELEMENTS) if "dense_opcode" in options else _first_while(model)
    codes = model.operatorCodes
    if not 0 <= opcode < len(codes) or flatbuffer.builtin_code(codes[opcode]) != schema.BuiltinOperator.WHILE:
        raise options.fail("dense_opcode", "is not the code of a WHILE, or there is none in the file")
    operator.inputs, operator.outputs = carried["loop_inputs"], carried["loop_outputs"]
    operator.opcodeIndex = opcode
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.WhileOptions, loop
    operator.customOptions = None
    empty = options.flag("zero_sequence") if "zero_sequence" in options else False
    return (subgraph, int(carried["loop_inputs"][SEQUENCE])) if empty else None


def _remove_tensors(subgraph: Any, added: set[int]) -> None:
    first = len(subgraph.tensors) - len(added)
    used = {i for operator in subgraph.operators for i in (*flatbuffer.ints(operator.inputs),)}
    if any(tensor < first for tensor in added) or added & {*used, *flatbuffer.ints(subgraph.outputs)}:
        raise FormatError("the matrices of a recurrent operator are also read by others, or stand among other tensors")
    del subgraph.tensors[first:]


def _show(model: Any) -> None:
    """Put the subgraphs of the metadata back into their places."""
    entries = [entry for entry in model.metadata or [] if flatbuffer.text(entry.name) == _METADATA]
    if len(entries) != 1 or not 0 < entries[0].buffer < len(model.buffers):
        raise FormatError(f"the metadata {_METADATA!r}, from which the loops are restored, is missing or damaged")
    data = model.buffers[entries[0].buffer].data
    aside = flatbuffer.read_model(b"" if data is None else np.asarray(data, np.uint8).tobytes(), check=False)
    if len(aside.subgraphs or []) != len(model.subgraphs):
        raise FormatError(f"the metadata {_METADATA!r} does not belong to this file")
    for i, subgraph in enumerate(aside.subgraphs):
        if subgraph.tensors:
            model.subgraphs[i] = subgraph
    model.metadata = [entry for entry in model.metadata if entry is not entries[0]] or None
    if entries[0].buffer == len(model.buffers) - 1:
        model.buffers.pop()
    flatbuffer.check_references(model)


def _check_sizes(model: Any, buffers: set[int]) -> None:
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors or []:
            if tensor.buffer not in buffers:
                continue
            if 4 * math.prod(flatbuffer.ints(tensor.shape)) != len(model.buffers[tensor.buffer].data):
                raise FormatError(f"the matrix of tensor {flatbuffer.text(tensor.name)!r} has another size")
