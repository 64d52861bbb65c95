"""Running the two files through TensorFlow Lite: predictions, latency, and who computes what."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import keras_prune
from benchmarks.turns import time_in_turns
from demo.console import Screen
from demo.files import Images


@dataclasses.dataclass(frozen=True)
class Nodes:
    """Which nodes of a file the delegate computes.

    Args:
        total: the file's nodes.
        claimed: those that the delegate took.
        left: a line for each of the others, with the reason.
        cpu: the kernels that were used.
    """

    total: int
    claimed: int
    left: list[str]
    cpu: str


def open_dense(file: Path, num_threads: int) -> Any:
    """Open a file in TensorFlow Lite as it comes, with XNNPACK."""
    return _interpreter(file, num_threads, [])


def open_sparse(file: Path, num_threads: int, report: Path | None = None) -> Any:
    """Open a file in TensorFlow Lite with the block-sparse delegate; XNNPACK takes the rest."""
    return _interpreter(file, num_threads, [keras_prune.load_delegate(num_threads=num_threads, report_path=report)])


def _interpreter(file: Path, num_threads: int, delegates: list[Any]) -> Any:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
        interpreter = tf.lite.Interpreter(str(file), num_threads=num_threads, experimental_delegates=delegates or None)
    interpreter.allocate_tensors()
    return interpreter


def read_nodes(report: Path) -> Nodes:
    """Read the delegate's report."""
    told = json.loads(report.read_text())
    left = [f"{node['op']} (node {node['node']}): {node['reason']}" for node in told["left"]]
    return Nodes(told["nodes_total"], told["nodes_claimed"], left, told["cpu"])


def whole_graph_delegated(interpreter: Any) -> bool:
    """Tell whether one delegate computes all from the model's inputs to its outputs."""
    inputs = {int(detail["index"]) for detail in interpreter.get_input_details()}
    outputs = {int(detail["index"]) for detail in interpreter.get_output_details()}
    # A delegate's node is listed behind those that it replaces. TensorFlow Lite has no public call for this.
    delegates = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    return len(delegates) == 1 and inputs <= set(delegates[0]["inputs"]) and outputs <= set(delegates[0]["outputs"])


def predict(interpreter: Any, images: Images, screen: Screen) -> npt.NDArray[np.float32]:
    """Run images one by one; returns the outputs, ``[images, classes]``."""
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    outputs = []
    with screen.progress("image", len(images)) as update:
        for i, pixels in enumerate(images.pixels, start=1):
            interpreter.set_tensor(source, pixels[None])
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(target)[0])
            if i % 100 == 0 or i == len(images):
                update(i)
    return np.stack(outputs)


def compare_latency(
    dense: Any, sparse: Any, image: npt.NDArray[np.float32], seconds: float, threads: int
) -> tuple[float, float]:
    """Time two interpreters in turns on one image.

    Args:
        dense: the one.
        sparse: the other.
        image: one image, ``[28, 28, 1]``.
        seconds: how long to go on.
        threads: how many either uses.

    Returns:
        The median time of an inference of either, in milliseconds.
    """
    for interpreter in (dense, sparse):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    times = time_in_turns([dense.invoke, sparse.invoke], seconds, threads)
    return float(np.median(times[0])) * 1e3, float(np.median(times[1])) * 1e3
