"""The block-sparse operators: what they replace and how builtin options map to custom ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.custom_options import CustomOptions, FormatError, Value
from keras_prune.tflite.encodings import Shape

VERSION = 1
CONV_2D = "BlockSparseConv2D"
FULLY_CONNECTED = "BlockSparseFullyConnected"
GRU = "BlockSparseGRU"
LSTM = "BlockSparseLSTM"
RECURRENT_CODES = (GRU, LSTM)
CUSTOM_CODES = (CONV_2D, FULLY_CONNECTED, *RECURRENT_CODES)

# A row or a column costs a reader memory though the file need not hold a byte for it.
MAX_EXTENT = 2**24
MAX_ELEMENTS = 2**31 - 1

PADDINGS = ("same", "valid")  # by their number in the schema, as are the activations
ACTIVATIONS = ("none", "relu", "relu_n1_to_1", "relu6")

INPUT, WEIGHTS, BIAS = 0, 1, 2


def replacement(model: Any, operator: Any) -> str | None:
    """Return the custom operator that may replace a builtin one, or None."""
    code = flatbuffer.builtin_code(model.operatorCodes[operator.opcodeIndex])
    builtin = flatbuffer.schema().BuiltinOperator
    return {builtin.CONV_2D: CONV_2D, builtin.FULLY_CONNECTED: FULLY_CONNECTED}.get(code)


def replaced_code(custom_code: str) -> int:
    """Return the number of the builtin operator that a custom one replaces."""
    builtin = flatbuffer.schema().BuiltinOperator
    return int(builtin.CONV_2D if custom_code == CONV_2D else builtin.FULLY_CONNECTED)


def first_opcode(model: Any, builtin: int) -> int:
    """Return the index of the first operator code with a builtin operator's number, or -1."""
    codes = (flatbuffer.builtin_code(opcode) for opcode in model.operatorCodes)
    return next((i for i, code in enumerate(codes) if code == builtin), -1)


def custom_opcode(model: Any, name: str) -> int:
    """Return the index of a custom operator's code, appended where it is missing so that all others keep theirs."""
    assert name in CUSTOM_CODES
    schema = flatbuffer.schema()
    for i, opcode in enumerate(model.operatorCodes):
        is_custom = flatbuffer.builtin_code(opcode) == schema.BuiltinOperator.CUSTOM
        if is_custom and flatbuffer.text(opcode.customCode) == name:
            return i
    opcode = schema.OperatorCodeT()
    opcode.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    opcode.builtinCode = schema.BuiltinOperator.CUSTOM
    opcode.customCode = name.encode()
    opcode.version = 1
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def layer_name(subgraph: Any, operator: Any) -> str:
    """Return the name of the operator's output; the operator itself has none in the file."""
    outputs = flatbuffer.ints(operator.outputs)
    return flatbuffer.text(subgraph.tensors[outputs[0]].name) if outputs and outputs[0] >= 0 else ""


@dataclass(frozen=True)
class DenseLayer:
    """A builtin operator whose weights could be stored block-sparse.

    Attributes:
        custom_code: what would replace it.
        shape: size of the weights' matrix.
        attributes: the custom options that do not depend on the structure.
    """

    custom_code: str
    shape: Shape
    attributes: dict[str, Value]


def read_dense(model: Any, subgraph: Any, operator: Any) -> DenseLayer | str:
    """Read a CONV_2D or FULLY_CONNECTED operator, or say in words why it has to stay what it is."""
    custom_code = replacement(model, operator)
    if custom_code is None:
        return f"{flatbuffer.operator_name(model, operator)} has no block-sparse form"
    schema = flatbuffer.schema()
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    if len(inputs) not in (2, 3) or min(inputs[INPUT], inputs[WEIGHTS]) < 0 or len(outputs) != 1 or outputs[0] < 0:
        return "unusual inputs or outputs"
    weights = subgraph.tensors[inputs[WEIGHTS]]
    weight_shape = flatbuffer.ints(weights.shape)
    if weights.type != schema.TensorType.FLOAT32:
        return f"weights are {_type_name(weights.type)}, not FLOAT32"
    data = flatbuffer.constant_data(model, weights)
    if data is None:
        return _computed_by(model, subgraph, inputs[WEIGHTS])
    if len(weight_shape) != (4 if custom_code == CONV_2D else 2) or min(weight_shape) < 1:
        return f"weights have the shape {weight_shape}"
    if data.size != 4 * math.prod(weight_shape):
        return "weights' data does not fit their shape"
    if weights.isVariable or weights.sparsity is not None or flatbuffer.ints(weights.shapeSignature):
        return "weights are a variable, sparse in TensorFlow Lite's own way, or of dynamic shape"
    for index in (inputs[INPUT], outputs[0]):
        if subgraph.tensors[index].type != schema.TensorType.FLOAT32:
            return f"activations are {_type_name(subgraph.tensors[index].type)}, not FLOAT32"
    rows, columns = weight_shape[0], math.prod(weight_shape[1:])
    if max(rows, columns) > MAX_EXTENT or rows * columns > MAX_ELEMENTS:
        return "weights are larger than the format allows"
    if len(inputs) == 3 and inputs[BIAS] >= 0:
        bias = subgraph.tensors[inputs[BIAS]]
        if bias.type != schema.TensorType.FLOAT32 or flatbuffer.constant_data(model, bias) is None:
            return "bias is not a FLOAT32 constant"
        if math.prod(flatbuffer.ints(bias.shape)) != rows:
            return "bias does not have one element per output channel"
    # A batch that is not known yet is -1 in the signature; all that is asked for here are trailing dimensions.
    input_tensor = subgraph.tensors[inputs[INPUT]]
    input_shape = flatbuffer.ints(input_tensor.shapeSignature) or flatbuffer.ints(input_tensor.shape)
    if custom_code == CONV_2D:
        attributes = _conv_attributes(flatbuffer.options(model, operator), weight_shape, input_shape)
        kernel = (weight_shape[1], weight_shape[2])
    else:
        attributes = _fully_connected_attributes(flatbuffer.options(model, operator), weight_shape, input_shape)
        kernel = (1, 1)
    if isinstance(attributes, str):
        return attributes
    return DenseLayer(custom_code, Shape(rows, columns, kernel), attributes)


def _conv_attributes(options: Any, weights: list[int], inputs: list[int]) -> dict[str, Value] | str:
    if options is None:
        return "operator has no options"
    if len(inputs) == 4 and inputs[3] != weights[3]:
        return f"grouped convolution ({inputs[3]} input channels, {weights[3]} a group)"
    if len(inputs) != 4:
        return "input is not four-dimensional"
    if not 0 <= options.fusedActivationFunction < len(ACTIVATIONS):
        return f"fused activation {_activation_name(options.fusedActivationFunction)}"
    steps = (options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor)
    if min(steps) < 1 or not 0 <= options.padding < len(PADDINGS) or getattr(options, "quantizedBiasType", 0):
        return "unusual options"
    extents = ((weights[1] - 1) * steps[2] + 1, (weights[2] - 1) * steps[3] + 1)
    if max(*steps, *extents) > MAX_EXTENT:
        return "kernel, stride or dilation are larger than the format allows"
    return {
        "kernel_height": weights[1],
        "kernel_width": weights[2],
        "stride_height": int(steps[0]),
        "stride_width": int(steps[1]),
        "dilation_height": int(steps[2]),
        "dilation_width": int(steps[3]),
        "padding": PADDINGS[options.padding],
        "activation": ACTIVATIONS[options.fusedActivationFunction],
    }


def _fully_connected_attributes(options: Any, weights: list[int], inputs: list[int]) -> dict[str, Value] | str:
    if options is None:
        return "operator has no options"
    if not 0 <= options.fusedActivationFunction < len(ACTIVATIONS):
        return f"fused activation {_activation_name(options.fusedActivationFunction)}"
    if options.weightsFormat or options.asymmetricQuantizeInputs or getattr(options, "quantizedBiasType", 0):
        return "shuffled or hybrid quantized weights"
    if not inputs or inputs[-1] != weights[1]:
        return "input's last dimension is not the number of input units"
    return {
        "keep_num_dims": bool(options.keepNumDims),
        "activation": ACTIVATIONS[options.fusedActivationFunction],
    }


@dataclass(frozen=True)
class SparseLayer:
    """A block-sparse operator's options, checked but for the structure's own keys."""

    custom_code: str
    shape: Shape
    options: CustomOptions
    structure: str
    values: np.ndarray
    negative_zero_rows: np.ndarray
    dense_opcode: int | None

    @property
    def weight_shape(self) -> list[int]:
        """Shape of the dense weights' tensor."""
        if self.custom_code == CONV_2D:
            return [self.shape.rows, *self.shape.kernel, self.shape.channels]
        return [self.shape.rows, self.shape.columns]


def custom_code(model: Any, operator: Any) -> str | None:
    """Say which of the block-sparse operators this is, or None."""
    opcode = model.operatorCodes[operator.opcodeIndex]
    if flatbuffer.builtin_code(opcode) != flatbuffer.schema().BuiltinOperator.CUSTOM:
        return None
    name = flatbuffer.text(opcode.customCode)
    return name if name in CUSTOM_CODES else None


def read_sparse(model: Any, subgraph: Any, operator: Any, structures: list[str]) -> SparseLayer:
    """Read a block-sparse operator.

    Raises:
        FormatError: an option that is common to all structures, or the values tensor, is not as specified.
    """
    code = custom_code(model, operator)
    assert code is not None
    where = f"{code} {layer_name(subgraph, operator)!r}"
    data = b"" if operator.customOptions is None else np.asarray(operator.customOptions, np.uint8).tobytes()
    options = CustomOptions(data, where)

    def values(shape: Shape) -> np.ndarray:
        _check_tensors(subgraph, operator, options, shape)
        return values_of(model, subgraph.tensors[flatbuffer.ints(operator.inputs)[WEIGHTS]], where)

    return read_matrix(options, code, structures, values)


def read_matrix(
    options: CustomOptions, code: str, structures: list[str], values: Callable[[Shape], np.ndarray]
) -> SparseLayer:
    """Read a matrix from its options, all but the structure's own; `values` reads the values of a matrix of a shape.

    Raises:
        FormatError: an option is not as specified.
    """
    options.integer("version", VERSION, VERSION)
    structure = options.string("structure", structures)
    rows, columns = options.integer("rows", 1, MAX_EXTENT), options.integer("columns", 1, MAX_EXTENT)
    if 4 * rows * columns > flatbuffer.MAX_FILE_BYTES:
        raise options.fail(
            "columns", f"is {columns}, which with {rows} rows is more than a .tflite file can hold dense"
        )
    kernel = (1, 1)
    if code == CONV_2D:
        kernel = (options.integer("kernel_height", 1, MAX_EXTENT), options.integer("kernel_width", 1, MAX_EXTENT))
        if columns % (kernel[0] * kernel[1]):
            raise options.fail("columns", f"is {columns}; expected a multiple of the {kernel[0]} x {kernel[1]} kernel")
    negative = np.zeros(rows, bool)
    if "negative_zero_rows" in options:
        bits = np.frombuffer(options.blob("negative_zero_rows"), np.uint8)
        if bits.size != -(-rows // 8):
            raise options.fail("negative_zero_rows", f"has {bits.size} bytes; expected {-(-rows // 8)}")
        negative = np.unpackbits(bits, bitorder="little")[:rows].astype(bool)
    dense_opcode = options.integer("dense_opcode", 0, MAX_ELEMENTS) if "dense_opcode" in options else None
    shape = Shape(rows, columns, kernel)
    return SparseLayer(code, shape, options, structure, values(shape), negative, dense_opcode)


def _check_tensors(subgraph: Any, operator: Any, options: CustomOptions, shape: Shape) -> None:
    """Hold the matrix against the activations, where their trailing dimension is known: a matrix takes memory."""
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    if len(inputs) not in (2, 3) or min(inputs[INPUT], inputs[WEIGHTS]) < 0 or len(outputs) != 1 or outputs[0] < 0:
        raise FormatError(f"{options.operator}: expected the inputs input, values and bias, and one output")
    for key, what, tensor, extent in (
        ("columns", "input", inputs[INPUT], shape.channels),
        ("rows", "output", outputs[0], shape.rows),
    ):
        known = flatbuffer.ints(subgraph.tensors[tensor].shapeSignature) or flatbuffer.ints(
            subgraph.tensors[tensor].shape
        )
        if known and known[-1] > 0 and known[-1] != extent:
            value = shape.columns if key == "columns" else shape.rows
            raise options.fail(key, f"is {value}; the {what} has {known[-1]} channels")


def values_of(model: Any, tensor: Any, where: str) -> np.ndarray:
    """Return the values `[n]` float32 of a values tensor; `where` is for messages."""
    data = flatbuffer.constant_data(model, tensor)
    if tensor.type != flatbuffer.schema().TensorType.FLOAT32 or data is None:
        raise FormatError(f"{where}: the values tensor is not a FLOAT32 constant")
    shape = flatbuffer.ints(tensor.shape)
    if len(shape) != 1 or data.size != 4 * shape[0]:
        raise FormatError(
            f"{where}: the values tensor has the shape {shape} and {data.size} bytes; expected [n] and 4 n"
        )
    return np.frombuffer(data.tobytes(), "<f4")


def builtin_options(layer: SparseLayer) -> tuple[int, Any]:
    """Return the dense operator's options and their type's number in the schema's union.

    Raises:
        FormatError: an option is missing or out of range.
    """
    schema, options = flatbuffer.schema(), layer.options
    activation = ACTIVATIONS.index(options.string("activation", ACTIVATIONS))
    if layer.custom_code == FULLY_CONNECTED:
        fully_connected = schema.FullyConnectedOptionsT()
        fully_connected.fusedActivationFunction = activation
        fully_connected.keepNumDims = options.flag("keep_num_dims")
        return int(schema.BuiltinOptions.FullyConnectedOptions), fully_connected
    conv = schema.Conv2DOptionsT()
    conv.fusedActivationFunction = activation
    conv.padding = PADDINGS.index(options.string("padding", PADDINGS))
    conv.strideH = options.integer("stride_height", 1, MAX_EXTENT)
    conv.strideW = options.integer("stride_width", 1, MAX_EXTENT)
    conv.dilationHFactor = options.integer("dilation_height", 1, MAX_EXTENT)
    conv.dilationWFactor = options.integer("dilation_width", 1, MAX_EXTENT)
    return int(schema.BuiltinOptions.Conv2DOptions), conv


def _type_name(number: int) -> str:
    names = {value: name for name, value in vars(flatbuffer.schema().TensorType).items() if isinstance(value, int)}
    return names.get(number, str(number))


def _activation_name(number: int) -> str:
    kinds = vars(flatbuffer.schema().ActivationFunctionType)
    return {value: name for name, value in kinds.items() if isinstance(value, int)}.get(number, str(number))


def _computed_by(model: Any, subgraph: Any, tensor: int) -> str:
    for operator in subgraph.operators:
        if tensor in flatbuffer.ints(operator.outputs):
            return f"weights are computed by {flatbuffer.operator_name(model, operator)} at run time"
    return "weights are not constant"
