"""From block-sparse recurrent operators back to the layers in whose place they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer, fused_lstm, unrolled
from keras_prune.tflite.custom_options import CustomOptions, FormatError
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.loop_body import SEQUENCE
from keras_prune.tflite.operators import MAX_ELEMENTS, SparseLayer, first_opcode
from keras_prune.tflite.recurrent_operators import (
    BIAS,
    INPUT,
    KERNEL,
    METADATA,
    STATE,
    dense_code,
    is_recurrent,
    mask_of,
    matrices,
    read_options,
    swap_codes,
)


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
        mask = mask_of(operator)
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
    builtin = dense_code(name)
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
    counts = [count] if mask_of(operator) is None else [count + 1, count + 2]
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
    is_cast = flatbuffer.builtin_code(model.operatorCodes[cast.opcodeIndex]) == dense_code("CAST")
    if not is_cast or flatbuffer.ints(cast.outputs) != [mask_of(operator)]:
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
    entries = [entry for entry in model.metadata or [] if flatbuffer.text(entry.name) == METADATA]
    if len(entries) != 1 or not 0 < entries[0].buffer < len(model.buffers):
        raise FormatError(f"the metadata {METADATA!r}, from which the loops are restored, is missing or damaged")
    data = model.buffers[entries[0].buffer].data
    aside = flatbuffer.read_model(b"" if data is None else np.asarray(data, np.uint8).tobytes(), check=False)
    if len(aside.subgraphs or []) != len(model.subgraphs):
        raise FormatError(f"the metadata {METADATA!r} does not belong to this file")
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
