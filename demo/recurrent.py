"""`python -m demo.recurrent`: a recurrent network on Fashion-MNIST, an image's rows being a sequence of 28 steps.

A GRU is trained dense, then pruned to a tenth of its weights by reweighted regularisation while it trains on, and all
test images run through both files. Figures in build/demo-recurrent/result.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from demo.__main__ import start
from demo.files import DEBIAN_FOLDER, Images, read_images
from keras_prune.files import write

COMPRESSION = 10
UNITS = 256
WORST_LOSS = 0.15
"""Share of accuracy that is lost when something is broken; a single epoch of fine-tuning, all that a busy machine has
time for, leaves less than half of it missing."""


def make_network(units: int) -> Any:
    """Build the network: 28 rows of 28 pixels each, one GRU, ten classes."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Reshape((28, 28), name="rows"),
            layers.GRU(units, name="gru"),
            layers.Dense(10, name="classes"),
        ]
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, prune, convert and run; returns the figures, which are also written."""
    import keras

    import keras_prune
    from demo import inference, training
    from demo.console import Screen
    from keras_prune import presets
    from keras_prune.tflite import inspect

    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    screen = Screen()
    keras.utils.set_random_seed(0)
    images, test = read_images(options.data, "train"), read_images(options.data, "t10k")
    plan = training.Plan(options.dense_epochs, options.pruning_epochs, options.seconds, options.batch_size)
    model = make_network(options.units)
    with screen.stage(f"Training the dense network, {model.count_params():,} parameters"):
        began = time.monotonic()
        dense_history = training.train_dense(model, images, plan, screen)
        dense_seconds = time.monotonic() - began
        write(output / "dense.tflite", keras_prune.convert(model, sparse=False))

    def make_prune(end_step: int, zeros: float) -> keras_prune.Prune:
        return presets.blk_rew(end_step, zeros, layers="gru", frequency=max(1, end_step // 8))

    with screen.stage(f"Pruning its GRU {COMPRESSION} times while it trains on"):
        zeros = 1 - 1 / COMPRESSION
        history, prune = training.fine_tune(
            model, images, plan, screen, zeros, dense_seconds, dense_history, make_prune
        )
        keras_classes = np.argmax(model.predict(test.pixels, batch_size=500, verbose=0), axis=1)
        write(output / "sparse.tflite", keras_prune.convert(model))
        for line in str(prune.report()).splitlines():
            screen.say(line)
    with screen.stage("Running the test images through TensorFlow Lite"):
        dense = inference.open_dense(output / "dense.tflite", 1)
        dense_classes = np.argmax(inference.predict(dense, test, screen), axis=1)
        sparse = inference.open_sparse(output / "sparse.tflite", 1, output / "delegate.json")
        sparse_classes = np.argmax(inference.predict(sparse, test, screen), axis=1)
    with screen.stage("Timing both in turns, one thread"):
        dense_ms, sparse_ms = inference.compare_latency(dense, sparse, test.pixels[0], options.latency_seconds, 1)
    nodes = inference.read_nodes(output / "delegate.json")
    sizes = {name: (output / f"{name}.tflite").stat().st_size for name in ("dense", "sparse")}
    layers = [layer for layer in inspect((output / "sparse.tflite").read_bytes()) if layer.structure is not None]
    result = {
        "epochs": {"dense": dense_history.epochs, "pruning": history.epochs},
        "dense": {"accuracy": _accuracy(dense_classes, test), "file_bytes": sizes["dense"], "latency_ms": dense_ms},
        "sparse": {
            "accuracy": _accuracy(sparse_classes, test),
            "accuracy_keras": _accuracy(keras_classes, test),
            "argmax_equal": int(np.sum(sparse_classes == keras_classes)),
            "file_bytes": sizes["sparse"],
            "latency_ms": sparse_ms,
            "compression": sum(layer.dense_bytes or 0 for layer in layers)
            / sum(layer.value_bytes or 0 for layer in layers),
            "operators": sorted({layer.kind for layer in layers}),
            "nodes_claimed": nodes.claimed,
            "nodes_total": nodes.total,
        },
        "ratio": dense_ms / sparse_ms,
    }
    write(output / "result.json", json.dumps(result, indent=2) + "\n")
    table = Table("", "accuracy", "latency", "file", box=box.SIMPLE)
    for name in ("dense", "sparse"):
        row: Any = result[name]
        table.add_row(name, f"{row['accuracy']:.2%}", f"{row['latency_ms']:.3f} ms", f"{row['file_bytes']:,} bytes")
    screen.console.print(table)
    screen.console.print(f"{result['ratio']:.1f} times faster; {output}/result.json")
    return result


def failures(result: dict[str, Any], images: int) -> list[str]:
    """Say what must not be, whatever the network has learned."""
    found = []
    if result["sparse"]["operators"] != ["BlockSparseGRU"]:
        found.append(f"the GRU did not become one block-sparse operator: {result['sparse']['operators']}")
    if result["sparse"]["argmax_equal"] < 0.995 * images:
        found.append("the delegate and Keras predict different classes")
    if result["sparse"]["accuracy"] < result["dense"]["accuracy"] - WORST_LOSS:
        found.append(f"pruning cost more than {WORST_LOSS:.0%} of accuracy")
    return found


def _accuracy(classes: Any, images: Images) -> float:
    return float(np.mean(classes == images.labels))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.recurrent", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/demo-recurrent"), help="default: %(default)s")
    parser.add_argument("--units", type=int, default=UNITS, help="default: %(default)s")
    parser.add_argument("--dense-epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--pruning-epochs", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=360.0, help="train fewer epochs if all took longer")
    parser.add_argument("--batch-size", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--latency-seconds", type=float, default=4.0, help="of timing")
    options = parser.parse_args(arguments)
    result = run(options)
    wrong = failures(result, len(read_images(options.data, "t10k")))
    for failure in wrong:
        print(f"failed: {failure}")
    return 1 if wrong else 0


if __name__ == "__main__":
    print("Starting TensorFlow ...", flush=True)
    start()
    sys.exit(main())
