"""Accuracy after pruning to each structure, in Keras and through the delegate, on Fashion-MNIST.

For each network and seed a dense network is trained and kept; from it each structure is pruned to each fraction of
zeros by gradual magnitude pruning with the same images, steps and learning rates. The line of structure "dense" is the
dense network trained on in just that way, without pruning: what the others are to be compared with.

Writes ``build/accuracy/results.jsonl``, one line a run: task, network, structure, method, zeros, seed, accuracy_dense
(of the network that pruning began with), accuracy_keras, accuracy_delegate. A run whose line is there is not run again,
so that it can be stopped at any time (Ctrl-C) and goes on when called again; what a plan that is stopped early gives is
one seed after the other, 80 % zeros first. ``--table`` writes the table into docs/accuracy.md and draws
``build/accuracy/accuracy.png``.

The plan, for an hour on two cores: 2 epochs of the 60,000 images dense, then a quarter of an epoch while pruning. That
is short; more would raise all accuracies, and the harshest structures' most.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import markdown_table, replace_part
from demo.console import Screen
from demo.files import DEBIAN_FOLDER, Images, read_images
from keras_prune import (
    AlignedBlock,
    BlockPunched,
    Pattern,
    PolynomialDecay,
    Structure,
    UnalignedBlock,
    Unstructured,
)
from keras_prune.files import replacing, write

TASK = "fashion_mnist"
DENSE = "dense"
STRUCTURES: dict[str, Structure] = {
    "unstructured": Unstructured(),
    "unaligned_optimal": UnalignedBlock(4, "optimal"),
    "unaligned_bed": UnalignedBlock(4, "bed"),
    "aligned": AlignedBlock(4),
    "pattern": Pattern(8),
    "block_punched": BlockPunched(8, 4),
}
ZEROS = (0.8, 0.9, 0.7)
SEEDS = (0, 1, 2)
PRUNED_BY = 0.6
"""The share of the training while pruning after which all zeros are there."""
MASK_UPDATES = 12
WARM_UP = 50
DENSE_RATE, PRUNING_RATE = 2e-3, 1e-3
OUTPUT, PAGE = Path("build/accuracy"), Path("docs/accuracy.md")
Row = dict[str, Any]


def _demo_network() -> Any:
    from demo.network import make_network

    return make_network()


def resnet8() -> Any:
    """ResNet-8 for 28x28 grey images: a stem and three blocks of two 3x3 convolutions; 309,000 parameters."""
    import keras
    from keras import layers

    def convolve(x: Any, channels: int, kernel: int, strides: int, activate: bool = True) -> Any:
        x = layers.Conv2D(channels, kernel, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU()(x) if activate else x

    image = keras.Input((28, 28, 1))
    x = convolve(image, 32, 3, 2)
    for channels, strides in ((32, 1), (64, 2), (128, 2)):
        y = convolve(convolve(x, channels, 3, strides), channels, 3, 1, activate=False)
        if strides > 1:
            x = convolve(x, channels, 1, strides, activate=False)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10)(x), name="resnet8")


NETWORKS: dict[str, Callable[[], Any]] = {"demo": _demo_network, "resnet8": resnet8}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train.

    Args:
        images: training images that are used, of 60,000.
        dense_epochs: epochs of the dense training.
        pruning_images: images seen while pruning, drawn by the seed.
        batch_size: images a step.
        test_images: test images, of 10,000.
    """

    images: int = 60_000
    dense_epochs: int = 2
    pruning_images: int = 16_000
    batch_size: int = 64
    test_images: int = 10_000


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: what its line in the results is found by."""

    network: str
    structure: str
    method: str
    zeros: float
    seed: int

    @classmethod
    def of(cls, row: Row) -> Case:
        return cls(*(row[field.name] for field in dataclasses.fields(cls)))

    def __str__(self) -> str:
        return f"{self.network}, seed {self.seed}, {self.structure}" + (f", {self.zeros:.0%} zeros" * (self.zeros > 0))


def cases(
    networks: Iterable[str] = tuple(NETWORKS), seeds: Iterable[int] = SEEDS, zeros: Iterable[float] = ZEROS
) -> list[Case]:
    """All runs, in an order in which the first ones already say something."""
    networks, zeros = list(networks), list(zeros)
    found: dict[Case, None] = {}
    for seed in seeds:
        for fraction in zeros:
            for network in networks:
                found[Case(network, DENSE, "none", 0.0, seed)] = None
                for structure in STRUCTURES:
                    found[Case(network, structure, "magnitude", fraction, seed)] = None
    return list(found)


def read_results(path: Path) -> list[Row]:
    """Read the lines of all finished runs.

    Raises:
        ValueError: a line is not one of this benchmark's.
    """
    rows = []
    whole, _, _ = (path.read_text() if path.is_file() else "").rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            Case.of(row)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no result ({error!r}); remove it or the file") from error
        rows.append(row)
    return rows


def append_result(path: Path, row: Row) -> None:
    """Add a line; what a killed run left of one is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def check_plan(output: Path, plan: Plan) -> None:
    """Note the plan beside the results, so that no two are mixed.

    Raises:
        ValueError: what is there was made by another plan.
    """
    path, told = output / "plan.json", json.dumps(dataclasses.asdict(plan)) + "\n"
    if path.is_file() and path.read_text() != told:
        raise ValueError(
            f"the results in {output} were made by another plan, {path.read_text().strip()}; "
            "remove the folder or give another one by --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    write(path, told)


class Runner:
    """Trains, prunes and evaluates; keeps the dense networks in files.

    Args:
        train, test: images.
        plan: how long to train.
        output: folder of the dense networks.
        screen: where to show progress.
    """

    def __init__(self, train: Images, test: Images, plan: Plan, output: Path, screen: Screen) -> None:
        self.plan, self.output, self.screen = plan, output, screen
        self.train = Images(train.pixels[: plan.images], train.labels[: plan.images])
        self.test = Images(test.pixels[: plan.test_images], test.labels[: plan.test_images])
        self._dense_accuracy: dict[tuple[str, int], float] = {}

    def run(self, case: Case) -> Row:
        """Do one run; returns its line."""
        import keras
        import numpy as np

        import keras_prune

        keras.backend.clear_session()
        model = self._dense(case.network, case.seed)
        chosen = np.random.default_rng(case.seed).permutation(len(self.train))[: self.plan.pruning_images]
        images = Images(self.train.pixels[chosen], self.train.labels[chosen])
        end = max(1, round(PRUNED_BY * math.ceil(len(images) / self.plan.batch_size)))
        callbacks = []
        if case.structure != DENSE:
            schedule = PolynomialDecay(0.0, case.zeros, 0, end, frequency=max(1, end // MASK_UPDATES))
            callbacks.append(keras_prune.Prune(STRUCTURES[case.structure], schedule))
        keras.utils.set_random_seed(case.seed)
        self._fit(model, images, 1, PRUNING_RATE, callbacks)
        row = {
            "task": TASK,
            **dataclasses.asdict(case),
            "accuracy_dense": self._dense_accuracy[case.network, case.seed],
            "accuracy_keras": self._accuracy(model),
            "accuracy_delegate": self._through_delegate(model, sparse=case.structure != DENSE),
        }
        self.screen.say(
            f"accuracy {row['accuracy_dense']:.2%} before, {row['accuracy_keras']:.2%} now, "
            f"{row['accuracy_delegate']:.2%} through the delegate"
        )
        return row

    def _dense(self, network: str, seed: int) -> Any:
        import keras

        path = self.output / "dense" / f"{network}-{seed}.keras"
        if not path.is_file():
            self.screen.say("the dense network first")
            keras.utils.set_random_seed(seed)
            model = NETWORKS[network]()
            self._fit(model, self.train, self.plan.dense_epochs, DENSE_RATE, [])
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside:
                model.save(aside)
        model = keras.models.load_model(path, compile=False)
        if (network, seed) not in self._dense_accuracy:
            self._dense_accuracy[network, seed] = self._accuracy(model)
        return model

    def _fit(self, model: Any, images: Images, epochs: int, peak: float, callbacks: list[Any]) -> None:
        import keras

        steps = epochs * math.ceil(len(images) / self.plan.batch_size)
        warm_up = min(WARM_UP, steps // 2)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warm_up, warmup_target=peak if warm_up else None, warmup_steps=warm_up
        )
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
        done = 0
        with self.screen.progress("step", steps) as update:

            def show(batch: int, logs: dict[str, Any]) -> None:
                nonlocal done
                done += 1
                note = f"loss {logs['loss']:.3f}"
                update(done, note + (f", zeros {logs['sparsity']:.0%}" if "sparsity" in logs else ""))

            # Behind the one that prunes, which puts the zeros into the logs.
            progress = keras.callbacks.LambdaCallback(on_train_batch_end=show)
            model.fit(
                images.pixels,
                images.labels,
                batch_size=self.plan.batch_size,
                epochs=epochs,
                callbacks=[*callbacks, progress],
                verbose=0,
            )

    def _accuracy(self, model: Any) -> float:
        return self._share_right(model.predict(self.test.pixels, batch_size=500, verbose=0))

    def _through_delegate(self, model: Any, sparse: bool) -> float:
        import keras_prune
        from demo import inference

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(keras_prune.convert(model, sparse=sparse))
            interpreter = inference.open_sparse(path, 1)
            return self._share_right(inference.predict(interpreter, self.test, self.screen))

    def _share_right(self, outputs: Any) -> float:
        return round(float((outputs.argmax(axis=1) == self.test.labels).mean()), 6)


def run_all(todo: Sequence[Case], results: Path, runner: Callable[[Case], Row], screen: Screen) -> None:
    """Do all runs that have no line yet, and write their lines."""
    done = {Case.of(row) for row in read_results(results)}
    left = [case for case in todo if case not in done]
    screen.say(f"{len(todo) - len(left)} of {len(todo)} runs are done already")
    began = time.monotonic()
    for i, case in enumerate(left):
        remaining = (time.monotonic() - began) / i * (len(left) - i) if i else None
        title = f"{len(todo) - len(left) + i + 1} of {len(todo)}: {case}"
        with screen.stage(title + (f" (about {remaining / 60:.0f} minutes left)" if remaining is not None else "")):
            append_result(results, runner(case))


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation of fractions in per cent, and of how many."""
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean + (f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else "") + f" ({len(values)})"


def markdown(rows: Sequence[Row], plan: Plan) -> str:
    """The tables, one a network, and how they came about."""
    seeds = sorted({row["seed"] for row in rows})
    apart = max((abs(row["accuracy_keras"] - row["accuracy_delegate"]) for row in rows), default=0.0)
    lines = [
        f"{len(rows)} of {len(cases())} runs are done: " + _runs(rows) + ".",
        f'Dense training: {plan.dense_epochs} epochs of {plan.images:,} images. While pruning, and for "dense" too: '
        f"{plan.pruning_images:,} images in batches of {plan.batch_size}, all zeros being there after "
        f"{PRUNED_BY:.0%} of them.",
        f"Accuracy in per cent on {plan.test_images:,} test images through the delegate: mean "
        + ("± sample standard deviation over seeds " if len(seeds) > 1 else "")
        + f"(number of seeds). Keras's accuracy of the same network differs by at most {100 * apart:.2f} points.",
    ]
    if len(seeds) == 1:
        lines.append("With one seed the spread, and so which small differences are more than chance, is not known yet.")
    for network in NETWORKS:
        own = [row for row in rows if row["network"] == network]
        if not own:
            continue
        fractions = sorted({row["zeros"] for row in own})
        before = {row["seed"]: row["accuracy_dense"] for row in own}
        table = []
        for structure in (DENSE, *STRUCTURES):
            found = [
                [row["accuracy_delegate"] for row in own if (row["structure"], row["zeros"]) == (structure, fraction)]
                for fraction in fractions
            ]
            if any(found):
                table.append([structure, *(spread(values) if values else "" for values in found)])
        lines.append(f"**{network}**, {spread(list(before.values()))} before pruning")
        headings = ["structure", *(f"{fraction:.0%} zeros" for fraction in fractions)]
        lines.append(markdown_table(headings, table).rstrip())
    return "\n\n".join(lines) + "\n"


def _runs(rows: Sequence[Row]) -> str:
    told = []
    for network in NETWORKS:
        for seed in sorted({row["seed"] for row in rows if row["network"] == network}):
            own = [row for row in rows if (row["network"], row["seed"]) == (network, seed)]
            told.append(f"{network} with seed {seed} ({len(own)})")
    return ", ".join(told) or "none"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against zeros, a panel a network and a line a structure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    networks = [name for name in NETWORKS if any(row["network"] == name for row in rows)]
    figure, panels = plt.subplots(1, max(1, len(networks)), figsize=(5.5 * max(1, len(networks)), 4), squeeze=False)
    for axes, network in zip(panels[0], networks, strict=False):
        for structure in (DENSE, *STRUCTURES):
            by_zeros: dict[float, list[float]] = {}
            for row in rows:
                if (row["network"], row["structure"]) == (network, structure):
                    by_zeros.setdefault(100 * row["zeros"], []).append(100 * row["accuracy_delegate"])
            if structure == DENSE and by_zeros:
                axes.axhline(statistics.mean(by_zeros[0.0]), color="black", linestyle="--", label=DENSE)
                continue
            places = sorted(by_zeros)
            means = [statistics.mean(by_zeros[z]) for z in places]
            errors = [statistics.stdev(by_zeros[z]) if len(by_zeros[z]) > 1 else 0.0 for z in places]
            if places:
                axes.errorbar(places, means, errors, marker="o", capsize=3, label=structure)
        axes.set_title(network)
        axes.set_xlabel("zeros in the pruned layers, %")
        axes.set_ylabel("accuracy through the delegate, %")
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or write its table; returns the exit status."""
    options = _parse(arguments)
    results: Path = options.output / "results.jsonl"
    plan = Plan(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Plan)})
    screen = Screen()
    try:
        check_plan(options.output, plan)
        if options.table:
            rows = read_results(results)
            replace_part(options.page, "accuracy", "python -m benchmarks.accuracy --table", markdown(rows, plan))
            plot(rows, options.output / "accuracy.png")
            screen.say(f"wrote {options.page} and {options.output / 'accuracy.png'}")
            return 0
        todo = cases(options.networks, options.seeds, options.zeros)
        import tensorflow as tf

        # Every run compiles its own steps, of which TensorFlow would warn.
        tf.get_logger().setLevel("ERROR")
        if options.threads:
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
            tf.config.threading.set_inter_op_parallelism_threads(options.threads)
        train, test = read_images(options.data, "train"), read_images(options.data, "t10k")
        runner = Runner(train, test, plan, options.output, screen)
        run_all(todo, results, runner.run, screen)
    except KeyboardInterrupt:
        screen.say(f"stopped; {len(read_results(results))} runs are done. The same command goes on from there")
        return 130
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    screen.console.print(markdown(read_results(results), plan), markup=False)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def several(kind: Callable[[str], Any], known: Iterable[Any] | None = None) -> Callable[[str], list[Any]]:
        def parse(text: str) -> list[Any]:
            try:
                values = [kind(part) for part in text.split(",")]
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from error
            unknown = [value for value in values if known is not None and value not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"unknown {unknown}; there are {', '.join(map(str, known or ()))}")
            return values

        return parse

    def fraction(text: str) -> float:
        value = float(text) / 100
        if not 0 < value < 1:
            raise ValueError(f"{text} is no percentage of zeros between 0 and 100")
        return value

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table and the plot of what was run")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the table (default: %(default)s)")
    parser.add_argument("--networks", type=several(str, NETWORKS), default=list(NETWORKS), help="default: all")
    parser.add_argument("--seeds", type=several(int), default=list(SEEDS), help="default: 0,1,2")
    parser.add_argument("--zeros", type=several(fraction), default=list(ZEROS), help="per cent; default: 80,90,70")
    parser.add_argument("--threads", type=int, default=0, help="that training uses; default: all cores")
    for field in dataclasses.fields(Plan):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=int, default=field.default, help="default: %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
