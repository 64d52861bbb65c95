"""All stages of the demo, one after the other."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich import box
from rich.table import Table

import keras_prune
from demo import inference, report, training
from demo.console import Screen
from demo.files import DEBIAN_FOLDER, Images, read_images
from demo.network import make_network
from demo.results import COLUMNS, Results, count_of_threads, markdown
from keras_prune import mapping
from keras_prune.files import replacing, write
from keras_prune.layers import CONV_2D
from keras_prune.tflite import inspect

ZEROS = 0.8
THREADS = (1, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _parse(arguments)
    screen = Screen()
    keras.utils.set_random_seed(0)
    plan = training.Plan(options.dense_epochs, options.pruning_epochs, options.seconds, options.batch_size)
    results = run(options.data, options.output, plan, screen, options.latency_seconds)
    table = Table(*COLUMNS, box=box.SIMPLE)
    for row in results.rows():
        table.add_row(*row)
    screen.console.print(table)
    screen.console.print(
        f"[bold]{options.output}[/bold]: result.json, report.html, dense and sparse .keras and .tflite"
    )
    for failure in results.failures():
        screen.console.print(f"[bold red]failed:[/bold red] {failure}")
    return 1 if results.failures() else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    defaults = training.Plan()
    parser = argparse.ArgumentParser(prog="python -m demo", description="Prune, convert and run on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="default: %(default)s")
    parser.add_argument("--dense-epochs", type=int, default=defaults.dense_epochs, help="default: %(default)s")
    parser.add_argument("--pruning-epochs", type=int, default=defaults.pruning_epochs, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="train fewer epochs if all took longer")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size, help="default: %(default)s")
    parser.add_argument("--latency-seconds", type=float, default=5.0, help="of timing, for each number of threads")
    return parser.parse_args(arguments)


def run(data: Path, output: Path, plan: training.Plan, screen: Screen, latency_seconds: float) -> Results:
    """Train, prune, convert, run and write all files.

    Args:
        data: folder of the images.
        output: folder to write to.
        plan: how long to train.
        screen: where to show progress.
        latency_seconds: how long to time, for each number of threads.
    """
    output.mkdir(parents=True, exist_ok=True)
    images, test = read_images(data, "train"), read_images(data, "t10k")
    screen.say(f"{len(images):,} images to train on, {len(test):,} to test on")

    model = make_network()
    with screen.stage(f"Training the dense network, {model.count_params():,} parameters"):
        began = time.monotonic()
        dense_history = training.train_dense(model, images, plan, screen)
        dense_seconds = time.monotonic() - began
        dense_classes = _predict(model, test)
        _save(model, output / "dense.keras")
        write(output / "dense.tflite", keras_prune.convert(model, sparse=False))
    with screen.stage(f"Pruning it to {ZEROS:.0%} zeros while it trains on"):
        history, prune = training.fine_tune(model, images, plan, screen, ZEROS, dense_seconds, dense_history)
        sparse_classes = _predict(model, test)
        _save(model, output / "sparse.keras")
        write(output / "sparse.tflite", keras_prune.convert(model))
        screen.say(str(prune.report()).splitlines()[-1])
    with screen.stage("Running the test images through TensorFlow Lite"):
        screen.say("dense network, XNNPACK")
        dense = inference.open_dense(output / "dense.tflite", 1)
        dense_whole = inference.whole_graph_delegated(dense)
        dense_lite = np.argmax(inference.predict(dense, test, screen), axis=1)
        screen.say("pruned network, block-sparse delegate")
        node_report = output / "delegate.json"
        sparse = inference.open_sparse(output / "sparse.tflite", 1, node_report)
        sparse_lite = np.argmax(inference.predict(sparse, test, screen), axis=1)
    latency_dense, latency_sparse = {}, {}
    with screen.stage("Timing both in turns"):
        for threads in THREADS:
            dense = inference.open_dense(output / "dense.tflite", threads)
            sparse = inference.open_sparse(output / "sparse.tflite", threads)
            latency_dense[threads], latency_sparse[threads] = inference.compare_latency(
                dense, sparse, test.pixels[0], latency_seconds, threads
            )
            dense_ms, sparse_ms = latency_dense[threads], latency_sparse[threads]
            screen.say(f"{count_of_threads(threads)}: {dense_ms:.3f} ms dense, {sparse_ms:.3f} ms pruned")

    pruned = [line for line in prune.report() if not line.skipped]
    matrices = {line.layer: CONV_2D.to_matrix(_kernel(model, line.layer)) for line in pruned}
    entries = sum(matrix.size for matrix in matrices.values())
    results = Results(
        images=len(test),
        accuracy_dense_keras=_accuracy(dense_classes, test),
        accuracy_dense=_accuracy(dense_lite, test),
        accuracy_sparse_keras=_accuracy(sparse_classes, test),
        accuracy_sparse=_accuracy(sparse_lite, test),
        argmax_equal=int(np.sum(sparse_lite == sparse_classes)),
        dense_bytes=(output / "dense.tflite").stat().st_size,
        sparse_bytes=(output / "sparse.tflite").stat().st_size,
        latency_dense=latency_dense,
        latency_sparse=latency_sparse,
        zeros=1 - sum(int(np.count_nonzero(matrix)) for matrix in matrices.values()) / entries,
        dense_nodes=sum(op["op_name"] != "DELEGATE" for op in dense._get_ops_details()),
        dense_whole=dense_whole,
        nodes=inference.read_nodes(node_report),
        pruned_layers=len(pruned),
        sparse_layers=sum(layer.structure is not None for layer in inspect((output / "sparse.tflite").read_bytes())),
    )
    note = (
        f"{len(images):,} training images, epochs: {dense_history.epochs} dense, {history.epochs} while pruning; "
        f"{len(test):,} test images. {mapping.cpu_name()}, {os.cpu_count()} cores, kernels for {results.nodes.cpu}. "
        "Latency: one image, medians, the two networks in turns; ratio: dense over pruned."
    )
    largest = max(matrices, key=lambda name: matrices[name].size)
    page = report.make_report(results, dense_history, history, largest, matrices[largest], str(prune.report()), note)
    write(output / "report.html", page)
    write(output / "table.md", markdown(results, note))
    write(output / "result.json", json.dumps(results.as_dict(), indent=2) + "\n")
    return results


def _predict(model: keras.Model, images: Images) -> Any:
    return np.argmax(model.predict(images.pixels, batch_size=500, verbose=0), axis=1)


def _accuracy(classes: Any, images: Images) -> float:
    return float(np.mean(classes == images.labels))


def _kernel(model: keras.Model, layer: str) -> Any:
    return keras.ops.convert_to_numpy(model.get_layer(layer).kernel)


def _save(model: keras.Model, path: Path) -> None:
    with replacing(path) as aside:
        model.save(aside)
