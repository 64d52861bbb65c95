"""Small dense `.tflite` files put together by hand, and ways to run them: no converter in between."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer

ACTIVATIONS = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3, "tanh": 4}
PADDINGS = {"same": 0, "valid": 1}
DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 2, np.dtype(np.int8): 9}


class ModelBuilder:
    """Collects tensors and operators of one subgraph."""

    def __init__(self) -> None:
        self.schema = flatbuffer.schema()
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [self.schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(self, shape: Sequence[int], dtype: Any = np.float32, name: str = "") -> int:
        tensor = self.schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = DTYPES[np.dtype(dtype)]
        tensor.name = name or f"tensor_{len(self.tensors)}"
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray, name: str = "", buffer: int | None = None) -> int:
        index = self.tensor(values.shape, values.dtype, name)
        if buffer is None:
            data = self.schema.BufferT()
            data.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.buffers.append(data)
            buffer = len(self.buffers) - 1
        self.tensors[index].buffer = buffer
        return index

    def code(self, builtin: int, version: int = 1) -> int:
        for i, code in enumerate(self.codes):
            if (code.builtinCode, code.version) == (builtin, version):
                return i
        code = self.schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = version
        self.codes.append(code)
        return len(self.codes) - 1

    def operator(
        self,
        builtin: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> Any:
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.code(getattr(self.schema.BuiltinOperator, builtin), version)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs, np.int32)
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
            operator.builtinOptions = options
        self.operators.append(operator)
        return operator

    def conv(
        self,
        source: int,
        weights: int,
        bias: int | None,
        output: int,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str = "same",
        activation: str = "none",
        version: int = 1,
    ) -> Any:
        options = self.schema.Conv2DOptionsT()
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.padding = PADDINGS[padding]
        options.fusedActivationFunction = ACTIVATIONS[activation]
        # TensorFlow Lite's own CONV_2D insists on a bias; other converters' files may have none.
        inputs = [source, weights] if bias is None else [source, weights, bias]
        return self.operator("CONV_2D", inputs, [output], options, version)

    def fully_connected(
        self,
        source: int,
        weights: int,
        bias: int | None,
        output: int,
        activation: str = "none",
        keep_num_dims: bool = False,
    ) -> Any:
        options = self.schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = ACTIVATIONS[activation]
        options.keepNumDims = keep_num_dims
        inputs = [source, weights] if bias is None else [source, weights, bias]
        return self.operator("FULLY_CONNECTED", inputs, [output], options)

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        subgraph = self.schema.SubGraphT()
        subgraph.tensors = self.tensors
        subgraph.operators = self.operators
        subgraph.inputs = np.array(inputs, np.int32)
        subgraph.outputs = np.array(outputs, np.int32)
        subgraph.name = "main"
        model = self.schema.ModelT()
        model.version = 3
        model.operatorCodes = self.codes
        model.subgraphs = [subgraph]
        model.buffers = self.buffers
        model.description = "made by hand"
        return flatbuffer.write_model(model)


def output_extent(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    extent = (kernel - 1) * dilation + 1
    return -(-size // stride) if padding == "same" else -(-(size - extent + 1) // stride)


def conv_model(
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    input_shape: tuple[int, int, int] = (1, 7, 9),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: str = "same",
    activation: str = "none",
) -> bytes:
    """One convolution; `weights` `[O, kh, kw, I]`, `input_shape` `(N, H, W)`."""
    builder = ModelBuilder()
    batch, height, width = input_shape
    rows, kernel_height, kernel_width, channels = weights.shape
    source = builder.tensor([batch, height, width, channels], name="input")
    constants = [builder.constant(weights, "weights")]
    constants.append(None if bias is None else builder.constant(bias, "bias"))
    output = builder.tensor(
        [
            batch,
            output_extent(height, kernel_height, stride[0], dilation[0], padding),
            output_extent(width, kernel_width, stride[1], dilation[1], padding),
            rows,
        ],
        name="layer/output",
    )
    builder.conv(source, *constants, output, stride, dilation, padding, activation)
    return builder.build([source], [output])


def fully_connected_model(
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    leading: Sequence[int] = (1,),
    activation: str = "none",
    keep_num_dims: bool = False,
) -> bytes:
    """One fully connected layer; `weights` `[units, inputs]`."""
    builder = ModelBuilder()
    rows, columns = weights.shape
    source = builder.tensor([*leading, columns], name="input")
    constant = builder.constant(weights, "weights")
    bias_index = -1 if bias is None else builder.constant(bias, "bias")
    output_shape = [*leading, rows] if keep_num_dims else [int(np.prod(leading)), rows]
    output = builder.tensor(output_shape, name="layer/output")
    builder.fully_connected(source, constant, bias_index, output, activation, keep_num_dims)
    return builder.build([source], [output])


@functools.cache
def tflite() -> Any:
    import tensorflow as tf

    return tf.lite


def builtin_interpreter(model: bytes, threads: int = 1) -> Any:
    """An interpreter with the builtin kernels alone, XNNPACK off."""
    resolver = tflite().experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return tflite().Interpreter(model_content=model, experimental_op_resolver_type=resolver, num_threads=threads)


def run(interpreter: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    details = interpreter.get_input_details()
    for detail, value in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != value.shape:
            interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]


def run_dense(model: bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    return run(builtin_interpreter(model), *inputs)
