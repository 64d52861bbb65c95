"""From recurrent layers in a dense `.tflite` file to block-sparse operators.

A loop's subgraphs go out of the runtime's sight, into a part of the file's metadata, so that `densify` can restore them
as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_prune.tflite import custom_options, flatbuffer
from keras_prune.tflite.operators import GRU, LSTM, VERSION, custom_opcode, first_opcode
from keras_prune.tflite.planning import Site
from keras_prune.tflite.recurrent_forms import find_recurrent
from keras_prune.tflite.recurrent_layer import Matrix, RecurrentLayer
from keras_prune.tflite.recurrent_operators import BIAS, MATRICES, METADATA, RECURRENT_BIAS, dense_code


class Replacement:
    """Replaces the recurrent layers of which at least one matrix becomes block-sparse.

    Args:
        model: a schema `ModelT`; `replace` changes it.
        sparse: the operators that become block-sparse.
    """

    def __init__(self, model: Any, sparse: Sequence[Site]) -> None:
        self._model = model
        wanted = {(site.subgraph, *site.weights) for site in sparse}
        self._layers = [
            layer
            for layer in find_recurrent(model)[0]
            if any((layer.home, *self._weights(matrix)) in wanted for matrix in layer.matrices.values())
        ]
        self._hidden = {index for layer in self._layers for index in layer.hidden}
        self._own = {(layer.subgraph, i) for layer in self._layers for i in layer.removed}
        self._own |= {(m.subgraph, m.operator) for layer in self._layers for m in layer.matrices.values()}
        self._sparse: dict[tuple[int, ...], tuple[bytes, np.ndarray]] = {}
        self._joined: dict[tuple[int, ...], int] = {}
        self._parts: set[tuple[int, int]] = set()

    def take(self, site: Site, options: dict[str, custom_options.Value], values: np.ndarray) -> bool:
        """Take over a matrix's options and values if it is one of the layers'."""
        if (site.subgraph, site.index) not in self._own and site.subgraph not in self._hidden:
            return False
        key = (site.subgraph, *site.weights)
        self._sparse[key] = custom_options.build(options), values
        return True

    def replace(self) -> None:
        """Put the operators in the layers' places."""
        removed: dict[int, dict[int, Any]] = {}
        for layer in self._layers:
            main = self._model.subgraphs[layer.subgraph]
            removed.setdefault(layer.subgraph, {}).update({i: main.operators[i] for i in layer.removed})
            self._replace_layer(layer)
        joints = self._joints()
        for layer in self._layers:  # which moves operators, whose places the layers name
            if layer.removed:
                self._take_out(layer, [removed[layer.subgraph][i] for i in layer.removed])
            if layer.batch_major:
                self._swap_axes(layer, joints)
            if layer.mask is not None:
                self._cast_mask(layer, layer.mask)
        chains = {s: [operators[i] for i in sorted(operators)] for s, operators in removed.items() if operators}
        if self._hidden or chains:
            _hide(self._model, sorted(self._hidden), chains)
        self._drop_parts()

    def _weights(self, matrix: Matrix) -> list[int]:
        inputs = flatbuffer.ints(self._model.subgraphs[matrix.subgraph].operators[matrix.operator].inputs)
        return [inputs[slot] for slot in matrix.slots]

    def _replace_layer(self, layer: RecurrentLayer) -> None:
        main, home = self._model.subgraphs[layer.subgraph], self._model.subgraphs[layer.home]
        operator = layer.operator
        steps = flatbuffer.ints(main.tensors[layer.source].shape)
        state = [steps[0 if layer.batch_major else 1], layer.units]
        like = main.tensors[layer.source]
        zeros = np.zeros(4 * math.prod(state), np.uint8)
        states = layer.states or [
            _add_tensor(main, like, state, self._constant(zeros)) for _ in range(1 + (layer.custom_code == LSTM))
        ]
        inputs = [layer.source, -1, -1, -1, -1, -1, *states]
        options: dict[str, custom_options.Value] = {
            "version": VERSION,
            "units": layer.units,
            "return_sequences": layer.return_sequences,
            **layer.dense,
        }
        if layer.custom_code == GRU:
            options["reset_after"] = layer.reset_after
        if layer.zero_output_for_mask:
            options["zero_output_for_mask"] = True
        for name, matrix in layer.matrices.items():
            tensors = self._weights(matrix)
            key = (layer.home, *tensors)
            if key in self._sparse:
                options[name], values = self._sparse[key]
                buffer = self._store(layer, tensors, values)
                inputs[MATRICES[name]] = _add_tensor(main, home.tensors[tensors[0]], [values.size], buffer)
            else:
                inputs[MATRICES[name]] = self._join(main, layer.home, tensors)
        for slot, name in ((BIAS, "bias"), (RECURRENT_BIAS, "recurrent_bias")):
            if name in layer.biases:
                inputs[slot] = self._join(main, layer.home, layer.biases[name])
        sequence = _add_tensor(main, like, [1, *state]) if layer.sequence is None else layer.sequence
        last = layer.last_states or [_add_tensor(main, like, state) for _ in states]
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([sequence, *last], np.int32)
        if layer.zeros is not None and self._empty_sequence(main, layer.zeros):
            options["zero_sequence"] = True
        operator.opcodeIndex = custom_opcode(self._model, layer.custom_code)
        operator.builtinOptionsType = flatbuffer.schema().BuiltinOptions.NONE
        operator.builtinOptions = None
        operator.customOptions = np.frombuffer(custom_options.build(options), np.uint8)

    def _take_out(self, layer: RecurrentLayer, removed: list[Any]) -> None:
        """Put the operator in the place of the first of these, and take all of them out."""
        main = self._model.subgraphs[layer.subgraph]
        gone = {id(operator) for operator in removed[1:]}
        main.operators = [
            layer.operator if operator is removed[0] else operator
            for operator in main.operators
            if id(operator) not in gone
        ]

    def _constant(self, data: np.ndarray) -> int:
        return flatbuffer.add_buffer(self._model, data)

    def _store(self, layer: RecurrentLayer, tensors: Sequence[int], values: np.ndarray) -> int:
        """Keep values where their matrix was, if that is out of the runtime's sight, or else in a new buffer."""
        buffers = tuple(int(self._model.subgraphs[layer.home].tensors[tensor].buffer) for tensor in tensors)
        data = flatbuffer.float_bytes(values)
        if layer.hidden:
            (buffer,) = buffers
            self._model.buffers[buffer].data = data
            return buffer
        self._parts |= {(layer.home, tensor) for tensor in tensors}
        if buffers not in self._joined:
            self._joined[buffers] = self._constant(data)
        return self._joined[buffers]

    def _join(self, main: Any, home: int, tensors: Sequence[int]) -> int:
        """Add a tensor of constants one below another; returns its index."""
        constants = [self._model.subgraphs[home].tensors[tensor] for tensor in tensors]
        buffers = tuple(int(tensor.buffer) for tensor in constants)
        shape = flatbuffer.ints(constants[0].shape)
        if len(buffers) == 1:
            return _add_tensor(main, constants[0], shape, buffers[0])
        self._parts |= {(home, tensor) for tensor in tensors}
        if buffers not in self._joined:
            data = [np.asarray(self._model.buffers[buffer].data, np.uint8) for buffer in buffers]
            self._joined[buffers] = self._constant(np.concatenate(data))
        return _add_tensor(main, constants[0], [len(buffers) * shape[0], *shape[1:]], self._joined[buffers])

    def _drop_parts(self) -> None:
        """Take out of the file what has been stored anew, unless others read it."""
        model = self._model
        buffers = {model.subgraphs[s].tensors[tensor].buffer for s, tensor in self._parts}
        others = {
            tensor.buffer
            for s, subgraph in enumerate(model.subgraphs)
            for t, tensor in enumerate(subgraph.tensors or [])
            if (s, t) not in self._parts
        }
        for buffer in buffers - others - {metadata.buffer for metadata in model.metadata or []}:
            model.buffers[buffer].data = None

    def _joints(self) -> dict[tuple[int, int], int]:
        """Find what stands between batch-major layers alone, where one's swap of axes would undo the other's.

        Returns the tensors by subgraph and index, each with one that has its steps first.
        """
        majors = [layer for layer in self._layers if layer.batch_major]
        found = {}
        for layer in majors:
            main, sequence = self._model.subgraphs[layer.subgraph], layer.sequence
            assert sequence is not None
            readers = [operator for operator in main.operators if sequence in flatbuffer.ints(operator.inputs)]
            sources = [other for other in majors if (other.subgraph, other.source) == (layer.subgraph, sequence)]
            only = {id(reader) for reader in readers} == {id(other.operator) for other in sources}
            once = all(flatbuffer.ints(reader.inputs).count(sequence) == 1 for reader in readers)
            if readers and only and once and sequence not in flatbuffer.ints(main.outputs):
                found[layer.subgraph, sequence] = _add_swapped(main, sequence)
        return found

    def _swap_axes(self, layer: RecurrentLayer, joints: dict[tuple[int, int], int]) -> None:
        """Let the operator have its steps first, between two operators that swap steps and batch."""
        main, operator = self._model.subgraphs[layer.subgraph], layer.operator
        assert layer.sequence is not None
        operators = [operator]
        source, sequence = (joints.get((layer.subgraph, tensor)) for tensor in (layer.source, layer.sequence))
        if source is None:
            source = _add_swapped(main, layer.source)
            operators.insert(0, self._swap(main, layer.source, source))
        if sequence is None:
            sequence = _add_swapped(main, layer.sequence)
            operators.append(self._swap(main, sequence, layer.sequence))
        operator.inputs[0], operator.outputs[0] = source, sequence
        place = next(i for i, other in enumerate(main.operators) if other is operator)
        main.operators[place : place + 1] = operators

    def _cast_mask(self, layer: RecurrentLayer, mask: int) -> None:
        """Give the operator its mask as floats, by an operator ahead of it: the delegate reads nothing else."""
        main, schema = self._model.subgraphs[layer.subgraph], flatbuffer.schema()
        floats = _add_tensor(main, main.tensors[layer.source], flatbuffer.ints(main.tensors[mask].shape))
        cast = schema.OperatorT()
        cast.opcodeIndex = _builtin_opcode(self._model, dense_code("CAST"))
        cast.builtinOptionsType, cast.builtinOptions = schema.BuiltinOptions.CastOptions, schema.CastOptionsT()
        cast.builtinOptions.inDataType = schema.TensorType.BOOL
        cast.builtinOptions.outDataType = schema.TensorType.FLOAT32
        cast.inputs, cast.outputs = np.array([mask], np.int32), np.array([floats], np.int32)
        layer.operator.inputs = np.array([*layer.operator.inputs, floats], np.int32)
        main.operators.insert(next(i for i, other in enumerate(main.operators) if other is layer.operator), cast)

    def _swap(self, main: Any, source: int, target: int) -> Any:
        """Make an operator that swaps the first two axes; where one is 1 nothing moves, and it is a RESHAPE."""
        shape = flatbuffer.ints(main.tensors[target].shape)
        moves = min(shape[:2]) > 1
        operator = flatbuffer.schema().OperatorT()
        operator.opcodeIndex = _builtin_opcode(self._model, dense_code("TRANSPOSE" if moves else "RESHAPE"))
        data = np.array([1, 0, 2] if moves else shape, "<i4")
        buffer = self._constant(np.frombuffer(data.tobytes(), np.uint8))
        argument = _add_tensor(main, main.tensors[target], [3], buffer)
        main.tensors[argument].type = flatbuffer.schema().TensorType.INT32
        operator.inputs = np.array([source, argument], np.int32)
        operator.outputs = np.array([target], np.int32)
        return operator

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


def _builtin_opcode(model: Any, builtin: int) -> int:
    """Return the index of a builtin operator's code, appended where it is missing so that all others keep theirs."""
    found = first_opcode(model, builtin)
    if found >= 0:
        return found
    opcode = flatbuffer.schema().OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = builtin
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def _add_tensor(subgraph: Any, like: Any, shape: list[int], buffer: int = 0) -> int:
    tensor = flatbuffer.schema().TensorT()
    tensor.shape = np.array(shape, np.int32)
    tensor.type, tensor.buffer, tensor.name = like.type, buffer, like.name
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _add_swapped(subgraph: Any, index: int) -> int:
    """Add a tensor as another one with its first two axes swapped; returns its index."""
    like = subgraph.tensors[index]
    first, second, width = flatbuffer.ints(like.shape)
    return _add_tensor(subgraph, like, [second, first, width])


def _hide(model: Any, subgraphs: list[int], chains: dict[int, list[Any]]) -> None:
    """Move subgraphs, and chains that are out of theirs, into the metadata.

    Empty subgraphs stay in the places of those moved, so that all others keep their numbers.
    """
    schema = flatbuffer.schema()
    aside = schema.ModelT()
    aside.version = model.version
    aside.buffers = []
    aside.subgraphs = [_empty_subgraph(None) for _ in model.subgraphs]
    for index, operators in chains.items():
        aside.subgraphs[index].operators = operators
    for index in subgraphs:
        aside.subgraphs[index] = model.subgraphs[index]
        model.subgraphs[index] = _empty_subgraph(model.subgraphs[index].name)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(flatbuffer.write_model(aside), np.uint8)
    model.buffers.append(buffer)
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = METADATA.encode(), len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), metadata]


def _empty_subgraph(name: Any) -> Any:
    subgraph = flatbuffer.schema().SubGraphT()
    subgraph.tensors, subgraph.operators, subgraph.name = [], [], name
    subgraph.inputs = subgraph.outputs = np.array([], np.int32)
    return subgraph
