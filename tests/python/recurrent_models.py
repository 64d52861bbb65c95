"""Recurrent models of the tests: their weights, and how their files are run, changed and listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference_reader
import sparse_matrices
from dense_models import run, tflite

from keras_prune.tflite import flatbuffer, load_delegate
from keras_prune.tflite.custom_options import build


def run_sparse(model: bytes, library: Any, *inputs: np.ndarray, **options: Any) -> list[np.ndarray]:
    delegate = load_delegate(library=library, **options)
    return run(tflite().Interpreter(model_content=model, experimental_delegates=[delegate]), *inputs)


def call_by_call(interpreter: Any, *inputs: np.ndarray, reset: bool = False) -> list[np.ndarray]:
    """The output of each call of one interpreter, its variables reset in between or not."""
    interpreter.allocate_tensors()
    outputs = []
    for value in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
        if reset:
            interpreter.reset_all_variables()
    return outputs


def prune(model: Any, zeros: float = 0.7, structure: str = "unaligned") -> None:
    """Random weights of about unit gain with a structure's zeros, and biases without any."""
    rng = np.random.default_rng(8)
    for weight in model.trainable_weights:
        shape = tuple(weight.shape)
        if weight.name.split(":")[0].endswith("kernel"):
            rows, columns = shape[1], shape[0]
            if structure == "unaligned":
                matrix = sparse_matrices.unaligned(rng, rows, columns, 4, zeros)
            else:
                matrix = sparse_matrices.row_column(rng, rows, columns, (8, 8), 0.5)
            weight.assign(matrix.T * np.float32((columns * (1 - zeros)) ** -0.5 * 1.5))
        else:
            weight.assign(sparse_matrices.values(rng, shape))


def operators(model: bytes) -> list[str]:
    parsed = flatbuffer.read_model(model)
    return [flatbuffer.operator_name(parsed, o) for subgraph in parsed.subgraphs for o in subgraph.operators or []]


def sparse_runner(model: bytes, library: Any, **options: Any) -> Any:
    """The file's signature: a function of named inputs that returns named outputs."""
    delegate = load_delegate(library=library, **options)
    return tflite().Interpreter(model_content=model, experimental_delegates=[delegate]).get_signature_runner()


def sparse_outputs(model: bytes, library: Any, *inputs: np.ndarray, **options: Any) -> list[np.ndarray]:
    """Outputs in the Keras model's order; the file has them in another."""
    runner = sparse_runner(model, library, **options)
    outputs = runner(**dict(zip(sorted(runner.get_input_details()), inputs, strict=True)))
    return [outputs[f"output_{i}"] for i in range(len(outputs))]


def flat(outputs: Any) -> list[np.ndarray]:
    if isinstance(outputs, (list, tuple)):
        return [value for part in outputs for value in flat(part)]
    return [np.asarray(outputs)]


def changed(sparse: bytes, change: dict[str, Any], matrix: dict[str, Any] | None = None) -> bytes:
    """The file with other options; None removes a key."""
    model = flatbuffer.read_model(sparse)
    names = ("BlockSparseGRU", "BlockSparseLSTM")
    (operator,) = [o for o in model.subgraphs[0].operators if flatbuffer.operator_name(model, o) in names]
    options = reference_reader.read_options(operator.customOptions.tobytes())
    if matrix is not None:
        own = reference_reader.read_options(options["recurrent_kernel"])
        own.update(matrix)
        options["recurrent_kernel"] = build({key: value for key, value in own.items() if value is not None})
    options.update(change)
    data = build({key: value for key, value in options.items() if value is not None})
    operator.customOptions = np.frombuffer(data, np.uint8)
    return flatbuffer.write_model(model)
