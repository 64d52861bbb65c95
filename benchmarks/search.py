"""Plans found by search against those of the rules and one structure everywhere, at equal latency, on Fashion-MNIST.

For each seed a dense demo network is trained and kept. For each target the rules make a plan; each structure and block
is given to all layers, with the zeros that just meet the target's latency; and each oracle searches. All plans are then
pruned at once and trained on with the same steps and learning rate, longer than in the search and on images in another
order, and evaluated on the test images, which no search has seen. Latencies are predicted by a table of the network's
own layers, measured on this machine first.

Writes ``build/bench/search.jsonl``, one line a plan: first those of the rules and the searches, then one structure
and block after the other, the smallest first. A plan whose line is there is not made again, so that the benchmark can
be stopped at any time (Ctrl-C) and goes on when called again, a half-done search included. ``--table`` writes the table
and the plot of accuracy against latency into docs/mapping.md and draws ``build/bench/search.png``.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import append_result
from benchmarks.page import replace_part
from benchmarks.search_cases import RULES, SEEDS, SINGLE, TARGETS, Case, Effort, Row, cases, read_results
from benchmarks.search_page import markdown, plot
from demo.console import Screen
from demo.files import DEBIAN_FOLDER, Images, read_images
from keras_prune import mapping
from keras_prune.files import replacing
from keras_prune.mapping import LatencyTable, Plan, Point

OUTPUT, PAGE = Path("build/bench"), Path("docs/mapping.md")
HELD_OUT = 50_000
"""Training images from this one on are what searches evaluate with."""
TRIAL, FINAL, TEST = "trial", "final", "test"
_MOST_ZEROS = 0.98


def measured_table(path: Path, screen: Screen) -> LatencyTable:
    """The latencies of the demo network's layers: all structures, blocks and measured rates."""
    from demo.network import make_network
    from keras_prune.mapping.measure import RATES

    points: dict[Point, None] = {}
    for point in mapping.points_for(make_network()):
        for zeros in RATES if point.zeros else (0.0,):
            points[dataclasses.replace(point, zeros=zeros)] = None
    path.parent.mkdir(parents=True, exist_ok=True)
    with screen.stage("Latency table"), screen.progress("layer", len(points)) as update:

        def say(done: int, wanted: int, point: Point) -> None:
            update(done, str(point), wanted)

        return mapping.measure_table(points, path, progress=say)


class _Network:
    """A dense network, and what measures plans of it."""

    def __init__(self, model: Any, measures: dict[str, Any]) -> None:
        self.model = model
        self._measures = measures
        self._known: dict[Any, float] = {}

    def accuracy(self, plan: Plan, measure: str) -> float:
        """Accuracy of a plan, measured once."""
        key = (measure, *((layer.path, layer.scheme, layer.zeros) for layer in plan.pruned))
        if key not in self._known:
            self._known[key] = self._measures[measure](plan)
        return self._known[key]


class Runner:
    """Makes plans and measures them; keeps the dense networks in files.

    Args:
        train, test: images.
        table: latencies.
        effort: how long.
        output: folder of networks and searches.
        screen: where to show progress.
    """

    def __init__(
        self, train: Images, test: Images, table: LatencyTable, effort: Effort, output: Path, screen: Screen
    ) -> None:
        self.train, self.test, self.table = train, test, table
        self.effort, self.output, self.screen = effort, output, screen
        self._networks: dict[int, _Network] = {}

    def run(self, case: Case) -> Row:
        """Make one plan; returns its line."""
        network = self._open(case.seed)
        began = time.monotonic()
        plan = self._plan(case, network)
        planned = time.monotonic() - began
        accuracy = network.accuracy(plan, TEST)
        dense = network.accuracy(mapping.plan(network.model, "1x", self.table), TEST)
        row = {
            **dataclasses.asdict(case),
            "predicted_ms": round(plan.predicted_ms, 6),
            "dense_ms": round(plan.dense_ms, 6),
            "zeros": round(plan.zeros, 4),
            "accuracy": round(accuracy, 6),
            "accuracy_dense": round(dense, 6),
            "plan_seconds": round(planned, 1),
            "layers": {layer.path: [layer.scheme, round(layer.zeros, 4)] for layer in plan.pruned},
            "effort": dataclasses.asdict(self.effort),
        }
        self.screen.say(f"{row['predicted_ms']:.4f} ms, accuracy {accuracy:.2%}, dense {dense:.2%}")
        return row

    def schemes(self) -> list[str]:
        """Structures and blocks that layers can have by the table: the first block of each structure, then the next."""
        found: dict[str, dict[str, None]] = {}
        for point in self.table.entries:
            if point.zeros and point.layer.kind == "conv":
                found.setdefault(point.scheme.split(":")[0], {})[point.scheme] = None
        return [scheme for turn in itertools.zip_longest(*found.values()) for scheme in turn if scheme is not None]

    def _plan(self, case: Case, network: _Network) -> Plan:
        by_rules = mapping.plan(network.model, case.target, self.table)
        if case.method == RULES:
            return by_rules
        if case.method == SINGLE:
            dense_ms = by_rules.dense_ms
            return single(by_rules, case.detail, self.table, dense_ms / float(case.target.rstrip("x")))
        name = f"search-{case.seed}-{case.target}-{case.detail}"
        with self.screen.progress("plan", self.effort.trials + self.effort.finalists) as update:

            def say(line: str) -> None:
                words = line.removeprefix("search: ")
                number = re.match(r"(finalist )?(\d+) of", words)
                update(int(number[2]) + (self.effort.trials if number[1] else 0) if number else 0, words)

            return mapping.plan(
                network.model,
                case.target,
                self.table,
                "search",
                accuracy=lambda plan: network.accuracy(plan, TRIAL),
                final_accuracy=lambda plan: network.accuracy(plan, FINAL),
                oracle=case.detail,
                trials=self.effort.trials,
                finalists=self.effort.finalists,
                final_steps=self.effort.final_steps,
                seed=case.seed,
                directory=self.output / name,
                progress=say,
            )

    def _open(self, seed: int) -> _Network:
        """Load the dense network of a seed, or train it."""
        import keras
        import numpy as np

        from demo.network import make_network

        if seed in self._networks:
            return self._networks[seed]
        path = self.output / f"search-dense-{seed}-{self.effort.dense_images}.keras"
        order = np.random.default_rng(seed).permutation(HELD_OUT)[: self.effort.dense_images]
        own = Images(self.train.pixels[order], self.train.labels[order])
        if not path.is_file():
            keras.utils.set_random_seed(seed)
            model = make_network()
            steps = -(-len(own) // self.effort.batch_size)
            self._compile(model, keras.optimizers.schedules.CosineDecay(2e-3, steps))
            with self.screen.stage("The dense network first"), self.screen.progress("step", steps) as update:
                show = keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: update(batch + 1, f"loss {logs['loss']:.3f}")
                )
                model.fit(own.pixels, own.labels, self.effort.batch_size, callbacks=[show], verbose=0)
            with replacing(path) as aside:
                model.save(aside)
        model = keras.models.load_model(path, compile=False)
        self._compile(model, 1e-3)

        def held(count: int) -> tuple[Any, Any]:
            part = slice(HELD_OUT, HELD_OUT + count)
            return self.train.pixels[part], self.train.labels[part]

        effort, test = self.effort, slice(0, self.effort.test_images)
        trial = mapping.QuickAccuracy(
            model,
            (own.pixels, own.labels),
            held(effort.trial_images),
            steps=effort.trial_steps,
            batch_size=effort.batch_size,
            seed=seed,
        )
        # Each trains on images in an order of its own: what was luck with one is not with the next.
        final = trial.longer(effort.final_steps, held(effort.final_images), seed + len(SEEDS))
        tested = self.test.pixels[test], self.test.labels[test]
        after = trial.longer(effort.steps, tested, seed + 2 * len(SEEDS))
        network = _Network(model, {TRIAL: trial, FINAL: final, TEST: after})
        self._networks[seed] = network
        return network

    def _compile(self, model: Any, rate: Any) -> None:
        import keras

        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )


def single(like: Plan, scheme: str, table: LatencyTable, budget_ms: float) -> Plan:
    """Give all layers that a plan could prune one scheme and the same zeros, the fewest that meet a latency.

    Where 98 % zeros do not meet it, they stay; the latency in the results tells.
    """

    def made(zeros: float) -> Plan:
        layers = []
        for layer in like.layers:
            if layer.entries:
                ms = sum(table.predict(Point(mapping.Layer.parse(size), scheme, zeros)) for size in layer.sizes) / 1e3
                layer = dataclasses.replace(layer, scheme=scheme, zeros=zeros, ms=ms, reasons=("one for all",))
            layers.append(layer)
        return dataclasses.replace(like, layers=tuple(layers))

    few, many = 0.0, _MOST_ZEROS
    while many - few > 1e-4:
        middle = (few + many) / 2
        few, many = (few, middle) if made(middle).predicted_ms <= budget_ms else (middle, many)
    return made(many)


def run_all(todo: Sequence[Case], results: Path, effort: Effort, runner: Runner, screen: Screen) -> None:
    """Make all plans that have no line yet, and write their lines."""
    done = {Case.of(row) for row in read_results(results, effort)}
    left = [case for case in todo if case not in done]
    screen.say(f"{len(todo) - len(left)} of {len(todo)} plans are done already")
    began = time.monotonic()
    for i, case in enumerate(left):
        remaining = f" (about {(time.monotonic() - began) / i * (len(left) - i) / 60:.0f} minutes left)" if i else ""
        with screen.stage(f"{len(todo) - len(left) + i + 1} of {len(todo)}: {case}{remaining}"):
            append_result(results, runner.run(case))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or write its table; returns the exit status."""
    options = _parse(arguments)
    effort = Effort(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Effort)})
    results: Path = options.output / "search.jsonl"
    screen = Screen()
    try:
        if options.table:
            rows = read_results(results, effort)
            replace_part(options.page, "search", "python -m benchmarks.search --table", markdown(rows, effort))
            if rows:
                plot(rows, options.output / "search.png")
            screen.say(f"wrote {options.page} and {options.output / 'search.png'}")
            return 0
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        table = measured_table(options.output / "search-table.json", screen)
        train, test = read_images(options.data, "train"), read_images(options.data, "t10k")
        runner = Runner(train, test, table, effort, options.output, screen)
        run_all(cases(runner.schemes(), options.seeds, options.targets), results, effort, runner, screen)
    except KeyboardInterrupt:
        screen.say("stopped; the same command goes on from there")
        return 130
    except (OSError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    screen.console.print(markdown(read_results(results, effort), effort), markup=False)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def several(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table and the plots of what was run")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the table (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=list(SEEDS), help="default: 0,1,2"
    )
    parser.add_argument("--targets", type=several, default=list(TARGETS), help=f"default: {','.join(TARGETS)}")
    for field in dataclasses.fields(Effort):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=int, default=field.default, help="default: %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
