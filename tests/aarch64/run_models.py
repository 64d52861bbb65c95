"""Runs in the emulated AArch64 Python: each model dense with the runtime's reference kernels, sparse with the delegate.

    run_models.py FOLDER LIBRARY

For NAME.npz (inputs by index), NAME.dense.tflite and NAME.sparse.tflite in FOLDER, writes NAME.results.npz: "dense",
and "CPU-THREADS" for each kernel level and thread count. It imports no TensorFlow: there is none in that Python.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate

SETTINGS = [("neon", 1), ("neon", 2), ("scalar", 1), ("auto", 1)]


def run(interpreter: Interpreter, inputs: list[np.ndarray]) -> np.ndarray:
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    first = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    interpreter.invoke()
    np.testing.assert_array_equal(first, interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return first


def main(folder: Path, library: str) -> None:
    for dense in sorted(folder.glob("*.dense.tflite")):
        name = dense.name.removesuffix(".dense.tflite")
        with np.load(folder / f"{name}.npz") as archive:
            inputs = [archive[key] for key in sorted(archive.files)]
        reference = Interpreter(str(dense), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        results = {"dense": run(reference, inputs)}
        for cpu, threads in SETTINGS:
            delegate = load_delegate(library, {"num_threads": str(threads), "cpu": cpu})
            sparse = Interpreter(str(folder / f"{name}.sparse.tflite"), experimental_delegates=[delegate])
            results[f"{cpu}-{threads}"] = run(sparse, inputs)
        np.savez(folder / f"{name}.results.npz", **results)
        print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
