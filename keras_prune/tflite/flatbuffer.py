"""Reading and writing of `.tflite` files as objects.

One reader and one writer serve the whole package, so that two files which hold the same objects are the same bytes.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np

FILE_IDENTIFIER = b"TFL3"
# The schema asks for it (`force_align: 16`), but the object API of the Python code generator does not heed it; kernels
# read the weights in place.
BUFFER_ALIGNMENT = 16
MAX_FILE_BYTES = 2**31 - 1

# The schema module of either package imports nothing but NumPy and flatbuffers. It is loaded from its file, because an
# import by name would load all of TensorFlow, several seconds for a command line tool.
_SCHEMA_FILES = (
    ("tensorflow", Path("lite/python/schema_py_generated.py")),
    ("ai_edge_litert", Path("schema_py_generated.py")),
)


@lru_cache(maxsize=1)
def schema() -> Any:
    """Return the module that the flatbuffer compiler generated from the TensorFlow Lite schema.

    Raises:
        ImportError: neither TensorFlow nor ai-edge-litert is installed.
    """
    for package, relative in _SCHEMA_FILES:
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or []) if found else []:
            path = Path(folder) / relative
            if path.is_file():
                return _load_file("keras_prune_tflite_schema", path)
    raise ImportError("no TensorFlow Lite schema found: install `tensorflow` (2.16 or later)")


def _load_file(name: str, path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def read_model(data: bytes, *, check: bool = True) -> Any:
    """Unpack a `.tflite` file into a schema `ModelT`.

    Args:
        data: the file's bytes.
        check: False for a part of a file, whose indices point into the rest; see `check_references`.

    Raises:
        ValueError: the bytes are no TensorFlow Lite model, are damaged, or hold weights outside the flatbuffer (models
            of 2 GB and more).
    """
    data = bytes(data)
    if data[4:8] != FILE_IDENTIFIER:
        raise ValueError(
            "not a TensorFlow Lite model: the file identifier TFL3 is missing; pass the bytes of a .tflite"
        )
    try:
        model = schema().ModelT.InitFromPackedBuf(data, 0)
    except Exception as error:  # whatever the generated reader runs into
        raise ValueError(f"the .tflite file is damaged and cannot be read ({type(error).__name__}: {error})") from error
    if check:
        check_references(model)
    return model


def check_references(model: Any) -> None:
    """Establish that all indices which the package follows stay within their lists.

    Raises:
        ValueError: one does not.
    """
    buffers = len(model.buffers or [])
    codes = len(model.operatorCodes or [])
    for buffer in model.buffers or []:
        if buffer.offset > 1 or buffer.size > 1:
            raise ValueError("the .tflite file keeps weights outside the flatbuffer (2 GB and more); not supported")
    for subgraph in model.subgraphs or []:
        tensors = len(subgraph.tensors or [])
        for tensor in subgraph.tensors or []:
            if not 0 <= tensor.buffer < buffers:
                raise ValueError(f"the .tflite file is damaged: tensor {text(tensor.name)!r} names a missing buffer")
        for operator in subgraph.operators or []:
            if not 0 <= operator.opcodeIndex < codes:
                raise ValueError("the .tflite file is damaged: an operator names a missing operator code")
            for index in [*ints(operator.inputs), *ints(operator.outputs)]:
                if not -1 <= index < tensors:
                    raise ValueError(f"the .tflite file is damaged: an operator names the missing tensor {index}")
        for index in [*ints(subgraph.inputs), *ints(subgraph.outputs)]:
            if not 0 <= index < tensors:
                raise ValueError(f"the .tflite file is damaged: a subgraph names the missing tensor {index}")


def write_model(model: Any) -> bytes:
    """Pack a schema `ModelT` into the bytes of a `.tflite` file, constant data on 16-byte boundaries.

    Raises:
        ValueError: the file would be 2 GB or larger.
    """
    estimate = sum(0 if buffer.data is None else len(buffer.data) + 2 * BUFFER_ALIGNMENT for buffer in model.buffers)
    if estimate > MAX_FILE_BYTES:
        raise ValueError("the model's weights exceed 2 GB, which a .tflite file cannot hold")
    # A builder doubles its size when full, which would copy hundreds of megabytes; the 1/8 is for all else but weights.
    builder = flatbuffers.Builder(min(estimate + estimate // 8 + 65536, MAX_FILE_BYTES))
    plain = model.buffers
    model.buffers = [_AlignedBuffer(buffer) for buffer in plain]
    try:
        root = model.Pack(builder)
    finally:
        model.buffers = plain
    builder.Finish(root, FILE_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuffer:
    """Packs as the schema's `BufferT` does, with the data aligned."""

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer

    def Pack(self, builder: Any) -> int:  # noqa: N802  (the name is the object API's)
        module, data = schema(), None
        if self._buffer.data is not None:
            payload = np.asarray(self._buffer.data, np.uint8).tobytes()
            builder.StartVector(1, len(payload), BUFFER_ALIGNMENT)
            builder.head -= len(payload)
            builder.Bytes[builder.head : builder.head + len(payload)] = payload
            builder.vectorNumElems = len(payload)
            data = builder.EndVector()
        module.BufferStart(builder)
        if data is not None:
            module.BufferAddData(builder, data)
        module.BufferAddOffset(builder, self._buffer.offset)
        module.BufferAddSize(builder, self._buffer.size)
        return int(module.BufferEnd(builder))


def ints(vector: Any) -> list[int]:
    """Turn a flatbuffer vector of integers into a list; an absent one is empty."""
    return [] if vector is None else [int(value) for value in vector]


def text(name: Any) -> str:
    """Turn a flatbuffer string into text; an absent one is empty."""
    if name is None:
        return ""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def builtin_code(opcode: Any) -> int:
    """Return the operator's number; files from before the field was widened have it in the old one."""
    return max(int(opcode.builtinCode), int(opcode.deprecatedBuiltinCode))


@lru_cache(maxsize=1)
def _builtin_names() -> dict[int, str]:
    operators = schema().BuiltinOperator
    return {value: name for name, value in vars(operators).items() if isinstance(value, int)}


def operator_name(model: Any, operator: Any) -> str:
    """Return `CONV_2D`, or a custom operator's own name."""
    opcode = model.operatorCodes[operator.opcodeIndex]
    code = builtin_code(opcode)
    if code == schema().BuiltinOperator.CUSTOM:
        return text(opcode.customCode)
    return _builtin_names().get(code, f"BUILTIN_{code}")


def options(model: Any, operator: Any) -> Any:
    """Return an operator's builtin options; None, as to the runtime, if it has none or those of another operator."""
    found = operator.builtinOptions
    own = operator_name(model, operator).replace("_", "").lower() + "optionst"  # of CONV_2D, Conv2DOptionsT
    return found if type(found).__name__.lower() == own else None


def constant_data(model: Any, tensor: Any) -> np.ndarray | None:
    """Return the bytes `[n]` uint8 of a constant tensor, or None for one that is computed or fed."""
    data = model.buffers[tensor.buffer].data
    if tensor.buffer == 0 or data is None or len(data) == 0:
        return None
    return np.asarray(data, np.uint8)


def float_bytes(values: np.ndarray) -> np.ndarray:
    """Return values as a buffer holds them: the bytes `[n]` uint8 of float32 in little-endian order."""
    return np.frombuffer(np.ascontiguousarray(values, "<f4").tobytes(), np.uint8)


def add_buffer(model: Any, data: np.ndarray) -> int:
    """Add a buffer of bytes `[n]` uint8 behind all others; returns its index."""
    buffer = schema().BufferT()
    buffer.data = data
    model.buffers.append(buffer)
    return len(model.buffers) - 1
