"""Conversion of a pruned Keras model, or of a dense `.tflite` file, to a block-sparse `.tflite` file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_prune.tflite import custom_options, flatbuffer, recurrent
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.keras_model import to_tflite
from keras_prune.tflite.operators import VERSION, custom_code, custom_opcode, first_opcode, replaced_code
from keras_prune.tflite.payoff import Latency, UnknownLatencyWarning
from keras_prune.tflite.planning import MIN_ZEROS, Group, make_plan

__all__ = ["MIN_ZEROS", "convert"]


def convert(
    model: Any,
    *,
    sparse: bool = True,
    batch_size: int | None = 1,
    min_zeros: float = MIN_ZEROS,
    structures: Sequence[str] | None = None,
    latency: Latency | None = None,
    input_signature: Any = None,
    configure: Callable[[Any], None] | None = None,
) -> bytes:
    """Convert a model to a `.tflite` file whose pruned layers are block-sparse.

    TensorFlow's own converter does the conversion proper. Then every fp32 convolution and fully connected layer whose
    weights have a block structure that is worth it becomes a block-sparse operator, which the delegate runs. The
    structure is read from the weights' own zeros, so nothing needs to be said about how the model was pruned. The file
    format is specified in `docs/format.md`.

    In a row (output channel) whose zeros have both signs all zeros become `0.0`, in the sparse and in the dense file.

    Args:
        model: a built Keras 3 or tf_keras model, or the bytes of a dense `.tflite` file.
        sparse: False gives the dense file that `densify` would restore from the block-sparse one, byte for byte.
        batch_size: the batch that the file is made for, where the model leaves it open; None leaves it open in the file
            too, which costs operators that compute shapes at run time. For Keras models only.
        min_zeros: a layer becomes block-sparse if at least this share of its weights, in [0, 1), need not be stored.
        structures: names of the structures to choose from, all by default; see `keras_prune.tflite.encodings`.
        latency: latencies of layers in the delegate. A layer of which they are known becomes block-sparse if it is
            faster so, whatever `min_zeros` is; the others are named in a warning. `keras_prune.convert` takes them from
            a latency table.
        input_signature: `tf.TensorSpec` or a nest of them, for a subclassed Keras model that does not know its inputs.
        configure: called with the `tf.lite.TFLiteConverter` before it runs, for its options.

    Returns:
        The `.tflite` file.

    Raises:
        ValueError: the model is not built, its weights are NaN or infinite, the bytes are no dense `.tflite`, or an
            argument is out of range.
        TypeError: the model is neither a Keras model nor bytes.

    Example:
        >>> import keras, keras_prune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> with open("model.tflite", "wb") as file:
        ...     _ = file.write(keras_prune.convert(model))
    """
    min_zeros = float(min_zeros)
    if not 0.0 <= min_zeros < 1.0:
        raise ValueError(f"min_zeros is {min_zeros}; expected a share in [0, 1)")
    names = _checked_structures(structures)
    if isinstance(model, (bytes, bytearray, memoryview)):
        if input_signature is not None or configure is not None:
            raise ValueError("input_signature and configure are for Keras models; a .tflite file is converted already")
        data = bytes(model)
    elif isinstance(model, (str, os.PathLike)):
        raise TypeError(
            f"expected a model or the bytes of a .tflite file, not the path {os.fspath(model)!r}; read it first"
        )
    else:
        data = to_tflite(model, batch_size=batch_size, input_signature=input_signature, configure=configure)
    return _convert_file(data, sparse, min_zeros, names, latency)


def _checked_structures(structures: Sequence[str] | None) -> list[str]:
    if structures is None:
        return list(ENCODINGS)
    if isinstance(structures, str):
        structures = [structures]
    unknown = [name for name in structures if name not in ENCODINGS]
    if unknown or not structures:
        raise ValueError(f"unknown structures {unknown}; expected some of {', '.join(ENCODINGS)}")
    return [name for name in ENCODINGS if name in structures]


def _convert_file(data: bytes, sparse: bool, min_zeros: float, structures: list[str], latency: Latency | None) -> bytes:
    model = flatbuffer.read_model(data)
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            if custom_code(model, operator) is not None:
                raise ValueError("the .tflite file is block-sparse already; `densify` it first")
    plan = make_plan(model, min_zeros, structures, latency)
    if sparse and plan.unknown:
        warnings.warn(
            f"no latency is known of layers like {', '.join(plan.unknown)}: their share of zeros decides "
            "(keras-prune latency-table --model measures a model's own layers)",
            UnknownLatencyWarning,
            stacklevel=3,
        )
    groups = plan.groups
    layers = recurrent.Replacement(model, [site for group in groups if group.candidate for site, _ in group.sites])
    for group in groups:
        if group.fixed:
            continue
        negative_zero_rows = _normalise_zeros(model, group)
        if sparse and group.candidate is not None:
            _replace(model, group, negative_zero_rows, layers)
    if sparse:
        layers.replace()
    return flatbuffer.write_model(model)


def _normalise_zeros(model: Any, group: Group) -> np.ndarray:
    """Give the zeros of a row one sign; returns `[rows]` bool, where it is minus.

    Folding a batch normalisation multiplies each row by its own factor, so a row's zeros normally have one sign.
    """
    assert group.weights is not None
    matrix = group.weights.matrix
    zero = matrix == 0
    negative = zero & np.signbit(matrix)
    any_negative = negative.any(axis=1)
    mixed = any_negative & (zero & ~negative).any(axis=1)
    if mixed.any():
        matrix = np.where(mixed[:, None] & zero, np.float32(0), matrix)
        object.__setattr__(group.weights, "matrix", matrix)
        for buffer, part in zip(group.buffers, np.split(matrix, len(group.buffers)), strict=True):
            model.buffers[buffer].data = flatbuffer.float_bytes(part)
    return any_negative & ~mixed


def _replace(model: Any, group: Group, negative_zero_rows: np.ndarray, layers: recurrent.Replacement) -> None:
    assert group.weights is not None
    assert group.candidate is not None
    own_options, values = ENCODINGS[group.candidate.structure].encode(group.weights, group.candidate)
    for site, layer in group.sites:
        operator = site.operator
        options = _options(group, {**layer.attributes, **own_options}, negative_zero_rows)
        if layers.take(site, options, values):
            continue
        if operator.opcodeIndex != first_opcode(model, replaced_code(layer.custom_code)):
            options["dense_opcode"] = int(operator.opcodeIndex)
        operator.opcodeIndex = custom_opcode(model, layer.custom_code)
        operator.builtinOptionsType = flatbuffer.schema().BuiltinOptions.NONE
        operator.builtinOptions = None
        operator.customOptions = np.frombuffer(custom_options.build(options), np.uint8)
        (buffer,), (weights,) = group.buffers, site.weights
        model.subgraphs[site.subgraph].tensors[weights].shape = np.array([values.size], np.int32)
        model.buffers[buffer].data = flatbuffer.float_bytes(values)


def _options(
    group: Group, further: dict[str, custom_options.Value], negative_zero_rows: np.ndarray
) -> dict[str, custom_options.Value]:
    assert group.weights is not None
    assert group.candidate is not None
    options: dict[str, custom_options.Value] = {
        "version": VERSION,
        "structure": group.candidate.structure,
        "rows": group.weights.shape.rows,
        "columns": group.weights.shape.columns,
        **further,
    }
    if negative_zero_rows.any():
        options["negative_zero_rows"] = np.packbits(negative_zero_rows, bitorder="little").tobytes()
    return options
