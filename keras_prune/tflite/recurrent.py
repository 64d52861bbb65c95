"""The block-sparse recurrent operators: from dense layers to them, reading them, and back.

A loop's subgraphs go out of the runtime's sight, into a part of the file's metadata, so that `densify` can restore them
as they were. `docs/format.md` specifies all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_prune.tflite import custom_options, flatbuffer, fused_lstm, unrolled
from keras_prune.tflite.custom_options import CustomOptions, FormatError
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.loop_body import SEQUENCE
from keras_prune.tflite.operators import (
    FULLY_CONNECTED,
    GRU,
    LSTM,
    MAX_ELEMENTS,
    RECURRENT_CODES,
    VERSION,
    SparseLayer,
    custom_code,
    custom_opcode,
    first_opcode,
    layer_name,
    read_matrix,
    values_of,
)
from keras_prune.tflite.planning import Site
from keras_prune.tflite.recurrent_forms import find_recurrent
from keras_prune.tflite.recurrent_layer import Matrix, RecurrentLayer

# Inputs: the steps' input, the matrices, the biases, the states, a masked layer's mask. The cell is an LSTM's alone.
INPUT, KERNEL, RECURRENT_KERNEL, CANDIDATE_KERNEL, BIAS, RECURRENT_BIAS, STATE, CELL = range(8)
MATRICES = {"kernel": KERNEL, "recurrent_kernel": RECURRENT_KERNEL, "candidate_kernel": CANDIDATE_KERNEL}

_METADATA = "keras_prune.subgraphs"


def is_recurrent(model: Any, operator: Any) -> bool:
    """Whether this is one of the block-sparse recurrent operators."""
    return custom_code(model, operator) in RECURRENT_CODES


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
        cast.opcodeIndex = _builtin_opcode(self._model, _dense_code("CAST"))
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
        operator.opcodeIndex = _builtin_opcode(self._model, _dense_code("TRANSPOSE" if moves else "RESHAPE"))
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


def _dense_code(name: Any) -> int:
    return int(getattr(flatbuffer.schema().BuiltinOperator, name))


def _builtin_opcode(model: Any, builtin: int) -> int:
    """Return the index of a builtin operator's code, appended where it is missing so that all others keep theirs."""
    found = first_opcode(model, builtin)
    if found >= 0:
        return found
    opcode = flatbuffer.schema().OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = builtin
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def swap_codes() -> tuple[int, ...]:
    """Return the numbers of the operators that may stand on both sides of a batch-major layer's operator."""
    return _dense_code("RESHAPE"), _dense_code("TRANSPOSE")


def added_codes() -> tuple[int, ...]:
    """Return the numbers of the operators that may have been added beside a layer's operator."""
    return (*swap_codes(), _dense_code("CAST"))


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
    states = 2 if code == LSTM else 1
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    known = len(inputs) in (STATE + states, STATE + states + 1) and len(outputs) == 1 + states
    if not known or min([*inputs[:CANDIDATE_KERNEL], *inputs[STATE:], *outputs]) < 0:
        raise FormatError(f"{where}: expected {STATE + states} inputs, or a mask behind them, and {1 + states} outputs")
    return options


def _mask(operator: Any) -> int | None:
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


def restore(model: Any) -> None:
    """Turn recurrent operators back into the dense ones that they were; their codes stay for the caller to remove.

    Raises:
        FormatError: the file does not hold what that takes, or it is not as specified.
    """
    found = [
        (subgraph, operator)
        for subgraph in model.subgraphs
        for operator in subgraph.operators or []
        if is_recurrent(model, operator)
    ]
    dense: dict[int, np.ndarray] = {}
    added: dict[int, set[int]] = {}
    empty: list[tuple[Any, int]] = []
    hidden = False
    positions: dict[int, list[int]] = {}
    joints = {
        (id(subgraph), flatbuffer.ints(operator.outputs)[0])
        for subgraph, operator in found
        if "batch_major" in read_options(model, subgraph, operator)
    }
    joints &= {(id(subgraph), flatbuffer.ints(operator.inputs)[INPUT]) for subgraph, operator in found}
    for subgraph, operator in found:
        options = read_options(model, subgraph, operator)
        own = added.setdefault(id(subgraph), set())
        own |= {tensor for tensor in flatbuffer.ints(operator.inputs)[KERNEL:STATE] if tensor >= 0}
        names = [fused_lstm.NAME, unrolled.NAME]
        kind = options.string("dense_operator", names) if "dense_operator" in options else "WHILE"
        hidden |= kind != fused_lstm.NAME
        mask = _mask(operator)
        if mask is not None:
            if kind != "WHILE":
                raise options.fail("dense_operator", f"is {kind!r}, which has no mask")
            own.add(mask)
            _remove_cast(model, subgraph, operator, options)
        if kind == fused_lstm.NAME:
            own |= _restore_fused(model, subgraph, operator, options, dense, joints)
        elif kind == unrolled.NAME:
            own |= _restore_chain(model, subgraph, operator, options, dense)
            positions.setdefault(id(subgraph), []).extend(_positions(options))
        else:
            empty += _restore_loop(model, subgraph, operator, options, dense)
    buffers: set[int] = set()
    for subgraph in {id(subgraph): subgraph for subgraph, _ in found}.values():
        buffers |= _remove_tensors(subgraph, added[id(subgraph)])
    if hidden:
        _show(model, positions)
    for buffer, data in dense.items():
        model.buffers[buffer].data = data
    for subgraph, tensor in empty:
        size = math.prod(flatbuffer.ints(subgraph.tensors[tensor].shape))
        if not 0 < 4 * size <= flatbuffer.MAX_FILE_BYTES:
            raise FormatError("a recurrent operator's zeros are larger than a .tflite file can hold")
        model.buffers[subgraph.tensors[tensor].buffer].data = np.zeros(4 * size, np.uint8)
    _remove_buffers(model, buffers)
    _check_sizes(model, set(dense))


def _dense_matrix(layer: SparseLayer) -> np.ndarray:
    matrix = ENCODINGS[layer.structure].decode(layer.options, layer.shape, layer.values, layer.negative_zero_rows)
    return flatbuffer.float_bytes(matrix)


def _keep_dense(dense: dict[int, np.ndarray], buffer: int, data: np.ndarray, where: str) -> None:
    if not np.array_equal(dense.setdefault(buffer, data), data):
        raise FormatError(f"{where}: shares its values with an operator of another structure")


def _carried(options: CustomOptions, key: str, counts: Sequence[int], subgraph: Any, least: int) -> np.ndarray:
    """Read the indices of a dense operator's tensors."""
    blob = options.blob(key)
    if len(blob) not in [4 * count for count in counts]:
        raise options.fail(key, f"has {len(blob)} bytes; expected {' or '.join(str(4 * count) for count in counts)}")
    tensors = np.frombuffer(blob, "<i4").astype(np.int32)
    if tensors.min() < least or tensors.max() >= len(subgraph.tensors):
        raise options.fail(key, "names a missing tensor")
    return tensors


def _restore_opcode(model: Any, options: CustomOptions, name: str) -> int:
    builtin = _dense_code(name)
    known = "dense_opcode" in options
    opcode = options.integer("dense_opcode", 0, MAX_ELEMENTS) if known else first_opcode(model, builtin)
    codes = model.operatorCodes
    if not 0 <= opcode < len(codes) or flatbuffer.builtin_code(codes[opcode]) != builtin:
        raise options.fail("dense_opcode", f"is not the code of a {name}, or there is none in the file")
    return opcode


def _restore_loop(
    model: Any, subgraph: Any, operator: Any, options: CustomOptions, dense: dict[int, np.ndarray]
) -> list[tuple[Any, int]]:
    """Make an operator a WHILE again; returns where its zeros are missing."""
    for _, tensor, layer in matrices(model, subgraph, operator):
        if layer is not None:
            _keep_dense(dense, int(subgraph.tensors[tensor].buffer), _dense_matrix(layer), layer.options.operator)
    schema = flatbuffer.schema()
    loop = schema.WhileOptionsT()
    loop.condSubgraphIndex = options.integer("condition_subgraph", 1, len(model.subgraphs) - 1)
    loop.bodySubgraphIndex = options.integer("body_subgraph", 1, len(model.subgraphs) - 1)
    # Two counters and the input; a mask, and the last output if it is not zero in masked steps.
    count = len(flatbuffer.ints(operator.outputs)) + 3
    counts = [count] if _mask(operator) is None else [count + 1, count + 2]
    inputs, outputs = (_carried(options, key, counts, subgraph, 0) for key in ("loop_inputs", "loop_outputs"))
    operator.opcodeIndex = _restore_opcode(model, options, "WHILE")
    operator.inputs, operator.outputs = inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.WhileOptions, loop
    operator.customOptions = None
    empty = options.flag("zero_sequence") if "zero_sequence" in options else False
    return [(subgraph, int(inputs[SEQUENCE]))] if empty else []


def _restore_fused(
    model: Any,
    subgraph: Any,
    operator: Any,
    options: CustomOptions,
    dense: dict[int, np.ndarray],
    joints: set[tuple[int, int]],
) -> set[int]:
    """Make an operator a fused one again; returns the tensors that are left over.

    The joints are what batch-major layers, by their subgraphs' identity, hand on to each other with the steps first.
    """
    inputs = _carried(options, "loop_inputs", fused_lstm.INPUT_COUNTS, subgraph, -1)
    outputs = _carried(options, "loop_outputs", [1], subgraph, 0)
    clip = options.integer("cell_clip", min(fused_lstm.CELL_CLIPS), max(fused_lstm.CELL_CLIPS))
    batch_major = options.flag("batch_major")
    joined = {}
    for name, tensor, layer in matrices(model, subgraph, operator):
        constant = flatbuffer.constant_data(model, subgraph.tensors[tensor])
        joined[name] = constant if layer is None else _dense_matrix(layer)
    bias = flatbuffer.ints(operator.inputs)[BIAS]
    joined["bias"] = flatbuffer.constant_data(model, subgraph.tensors[bias]) if bias >= 0 else None
    for name, slots in fused_lstm.PARTS.items():
        data = joined.get(name)
        if data is None or len(data) % (4 * len(slots)) or inputs[list(slots)].min() < 0:
            raise options.fail("loop_inputs", f"does not fit the operator's {name.replace('_', ' ')}")
        for slot, part in zip(slots, np.split(data, len(slots)), strict=True):
            buffer = int(subgraph.tensors[inputs[slot]].buffer)
            if flatbuffer.constant_data(model, subgraph.tensors[inputs[slot]]) is None:
                _keep_dense(dense, buffer, part, options.operator)
    over = set(flatbuffer.ints(operator.outputs)[1:])
    if batch_major:
        over |= _remove_swaps(model, subgraph, operator, options, joints)
    operator.opcodeIndex = _restore_opcode(model, options, fused_lstm.NAME)
    operator.inputs, operator.outputs = inputs, outputs
    fused_lstm.restore_options(operator, clip, batch_major)
    operator.customOptions = None
    return over


def _restore_chain(
    model: Any, subgraph: Any, operator: Any, options: CustomOptions, dense: dict[int, np.ndarray]
) -> set[int]:
    """Take an operator out of a chain's place; returns the tensors that are left over."""
    found = list(matrices(model, subgraph, operator))
    for (_, _, layer), part in zip(
        found, _carried(options, "loop_inputs", [len(found)], subgraph, 0).tolist(), strict=True
    ):
        if layer is not None and flatbuffer.constant_data(model, subgraph.tensors[part]) is None:
            _keep_dense(dense, int(subgraph.tensors[part].buffer), _dense_matrix(layer), options.operator)
    subgraph.operators = [other for other in subgraph.operators if other is not operator]
    outputs = flatbuffer.ints(operator.outputs)
    return {*flatbuffer.ints(operator.inputs)[STATE:], *([] if options.flag("return_sequences") else outputs[:1])}


def _positions(options: CustomOptions) -> list[int]:
    """Read where a chain's operators stood in the dense subgraph."""
    blob = options.blob("positions")
    if not blob or len(blob) % 4:
        raise options.fail("positions", f"has {len(blob)} bytes; expected a multiple of 4")
    return [int(position) for position in np.frombuffer(blob, "<i4")]


def _remove_swaps(
    model: Any, subgraph: Any, operator: Any, options: CustomOptions, joints: set[tuple[int, int]]
) -> set[int]:
    """Take out the operators that swap steps and batch on both sides; returns the tensors that are left over."""
    place = next(i for i, other in enumerate(subgraph.operators) if other is operator)
    source, sequence = flatbuffer.ints(operator.inputs)[INPUT], flatbuffer.ints(operator.outputs)[0]
    over = {source, sequence}
    swaps: list[Any] = []
    for tensor, neighbours, side in (
        (source, subgraph.operators[:place][-1:], "outputs"),
        (sequence, subgraph.operators[place + 1 :][:1], "inputs"),
    ):
        if (id(subgraph), tensor) in joints:
            continue
        swap = neighbours[0] if neighbours and _is_swap(model, neighbours[0]) else None
        if swap is None or flatbuffer.ints(getattr(swap, side))[:1] != [tensor]:
            raise options.fail("batch_major", "is true, but no operators on both sides swap steps and batch")
        over.add(flatbuffer.ints(swap.inputs)[1])
        swaps.append(swap)
    subgraph.operators = [other for other in subgraph.operators if not any(other is swap for swap in swaps)]
    return over


def _is_swap(model: Any, operator: Any) -> bool:
    code = flatbuffer.builtin_code(model.operatorCodes[operator.opcodeIndex])
    return code in swap_codes() and len(flatbuffer.ints(operator.inputs)) == 2


def _remove_cast(model: Any, subgraph: Any, operator: Any, options: CustomOptions) -> None:
    """Take out the operator that makes floats of a mask."""
    place = next(i for i, other in enumerate(subgraph.operators) if other is operator)
    cast = subgraph.operators[max(place - 1, 0)]
    is_cast = flatbuffer.builtin_code(model.operatorCodes[cast.opcodeIndex]) == _dense_code("CAST")
    if not is_cast or flatbuffer.ints(cast.outputs) != [_mask(operator)]:
        raise FormatError(f"{options.operator}: no CAST stands ahead of it and gives its mask")
    del subgraph.operators[place - 1]


def _remove_tensors(subgraph: Any, added: set[int]) -> set[int]:
    """Remove what are the last tensors; returns their buffers."""
    first = len(subgraph.tensors) - len(added)
    used = {i for o in subgraph.operators for i in (*flatbuffer.ints(o.inputs), *flatbuffer.ints(o.outputs))}
    if any(tensor < first for tensor in added) or added & {*used, *flatbuffer.ints(subgraph.outputs)}:
        raise FormatError("the matrices of a recurrent operator are also read by others, or stand among other tensors")
    buffers = {int(tensor.buffer) for tensor in subgraph.tensors[first:]}
    del subgraph.tensors[first:]
    return buffers


def _remove_buffers(model: Any, buffers: set[int]) -> None:
    """Remove those of the buffers that stand behind all others and that nothing names any more."""
    named = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors or []}
    named |= {metadata.buffer for metadata in model.metadata or []} | {0}
    while len(model.buffers) - 1 in buffers - named:
        model.buffers.pop()


def _show(model: Any, positions: dict[int, list[int]]) -> None:
    """Put what the metadata holds back into its places: subgraphs, and chains by their positions."""
    entries = [entry for entry in model.metadata or [] if flatbuffer.text(entry.name) == _METADATA]
    if len(entries) != 1 or not 0 < entries[0].buffer < len(model.buffers):
        raise FormatError(f"the metadata {_METADATA!r}, from which the loops are restored, is missing or damaged")
    data = model.buffers[entries[0].buffer].data
    aside = flatbuffer.read_model(b"" if data is None else np.asarray(data, np.uint8).tobytes(), check=False)
    if len(aside.subgraphs or []) != len(model.subgraphs):
        raise FormatError(f"the metadata {_METADATA!r} does not belong to this file")
    for i, subgraph in enumerate(aside.subgraphs):
        places = sorted(positions.get(id(model.subgraphs[i]), []))
        if subgraph.tensors:
            model.subgraphs[i] = subgraph
        elif places:
            _insert(model.subgraphs[i], subgraph.operators or [], places)
    model.metadata = [entry for entry in model.metadata if entry is not entries[0]] or None
    if entries[0].buffer == len(model.buffers) - 1:
        model.buffers.pop()
    flatbuffer.check_references(model)


def _insert(subgraph: Any, operators: list[Any], places: list[int]) -> None:
    """Put operators to where they were."""
    count = len(operators) + len(subgraph.operators)
    if len(places) != len({*places}) or len(places) != len(operators) or not 0 <= places[0] <= places[-1] < count:
        raise FormatError("the operators of unrolled recurrent layers do not fit their positions")
    chain, rest, taken = iter(operators), iter(subgraph.operators), {*places}
    subgraph.operators = [next(chain) if place in taken else next(rest) for place in range(count)]


def _check_sizes(model: Any, buffers: set[int]) -> None:
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors or []:
            if tensor.buffer not in buffers:
                continue
            if 4 * math.prod(flatbuffer.ints(tensor.shape)) != len(model.buffers[tensor.buffer].data):
                raise FormatError(f"the matrix of tensor {flatbuffer.text(tensor.name)!r} has another size")
