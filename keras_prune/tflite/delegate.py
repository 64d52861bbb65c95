"""Finding the delegate's library and loading it into a TensorFlow Lite or LiteRT interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIBRARY_NAME = "libblock_sparse_delegate.so"
LIBRARY_VARIABLE = "BLOCK_SPARSE_DELEGATE"
CPU_LEVELS = ("auto", "scalar", "avx2", "avx512", "neon")
MAX_THREADS = 64
_BUILT_AT = Path("bazel-bin") / "tflite_delegate" / LIBRARY_NAME
_RUNTIMES = {
    "tensorflow": ("tensorflow.lite.python.interpreter", "tensorflow"),
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
}


def load_delegate(
    num_threads: int = 1,
    cpu: str | None = None,
    verbose: bool = False,
    library: str | os.PathLike[str] | None = None,
    runtime: str | None = None,
    report_path: str | os.PathLike[str] | None = None,
    profile: bool = False,
    tuning_path: str | os.PathLike[str] | None = None,
) -> Any:
    """Load the block-sparse delegate.

    Args:
        num_threads: threads that the delegate computes with, 1 to 64.
        cpu: kernel level to use, "auto" (the default), "scalar", "avx2", "avx512" or "neon".
        verbose: whether the delegate says more than its one summary when a model is loaded.
        library: path of the delegate's library; see `find_delegate_library` for where it is looked for otherwise.
        runtime: "tensorflow" or "ai_edge_litert", whose interpreter is going to be used; by default the one that is
            imported already, or else the one that is installed.
        report_path: file to which the delegate writes, as JSON, what it did with each node of a model that is loaded.
        profile: whether the delegate measures its operators.
        tuning_path: file that keeps which way of computing each kind of layer is the fastest on this CPU. What it does
            not know yet is measured when a model is loaded. By default nothing is measured.

    Returns:
        What goes into `experimental_delegates=[...]` of `tf.lite.Interpreter` or ai_edge_litert's `Interpreter`.

    Raises:
        ValueError: an argument is out of range, or the delegate refuses its options.
        FileNotFoundError: there is no such library.
        ImportError: no runtime is installed.

    Example:
        >>> import tensorflow as tf, keras_prune
        >>> delegate = keras_prune.load_delegate(num_threads=2)  # doctest: +SKIP
        >>> tf.lite.Interpreter("model.tflite", experimental_delegates=[delegate])  # doctest: +SKIP
    """
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or not 1 <= num_threads <= MAX_THREADS:
        raise ValueError(f"num_threads is {num_threads!r}; expected an integer, 1 to {MAX_THREADS}")
    if cpu is not None and cpu not in CPU_LEVELS:
        raise ValueError(f"cpu is {cpu!r}; expected one of {', '.join(CPU_LEVELS)}")
    options = {"num_threads": str(num_threads), "verbose": "1" if verbose else "0"}
    if cpu is not None:
        options["cpu"] = cpu
    if report_path is not None:
        options["report_path"] = os.fspath(report_path)
    if profile:
        options["profile"] = "1"
    if tuning_path is not None:
        options["tuning_path"] = os.fspath(tuning_path)
    path = find_delegate_library(library)
    return _runtime_module(runtime).load_delegate(str(path), options)


def find_delegate_library(library: str | os.PathLike[str] | None = None) -> Path:
    """Find the delegate's library.

    It is looked for in this order: the argument; the environment variable BLOCK_SPARSE_DELEGATE; inside the installed
    package; as Bazel builds it, in the folders above the package and above the working directory.

    Raises:
        FileNotFoundError: it is in none of these places, or not where the argument or the variable says.
    """
    for source, given in (("library", library), (LIBRARY_VARIABLE, os.environ.get(LIBRARY_VARIABLE))):
        if given:
            path = Path(given)
            if not path.is_file():
                raise FileNotFoundError(f"{source} names {str(path)!r}, which is not a file")
            return path.resolve()
    for path in _candidates():
        if path.is_file():
            return path.resolve()
    raise FileNotFoundError(
        f"{LIBRARY_NAME} not found: build it with `bazel build //tflite_delegate:{LIBRARY_NAME}`, or name it by the "
        f"argument `library` or the environment variable {LIBRARY_VARIABLE}"
    )


def _candidates() -> Iterator[Path]:
    package = Path(__file__).resolve().parent.parent
    yield package / "_lib" / LIBRARY_NAME
    for start in (package, Path.cwd()):
        for folder in (start, *start.parents):
            yield folder / _BUILT_AT


def _runtime_module(runtime: str | None) -> Any:
    if runtime is not None:
        if runtime not in _RUNTIMES:
            raise ValueError(f"runtime is {runtime!r}; expected one of {', '.join(_RUNTIMES)}")
        names = [runtime]
    else:
        names = sorted(_RUNTIMES, key=lambda name: _RUNTIMES[name][0] not in sys.modules)
    for name in names:
        module, _ = _RUNTIMES[name]
        if module in sys.modules or importlib.util.find_spec(name) is not None:
            return importlib.import_module(module)
    raise ImportError("no TensorFlow Lite runtime: install " + " or ".join(_RUNTIMES[name][1] for name in names))
