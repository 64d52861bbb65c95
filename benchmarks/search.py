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
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import append_result, spread
from benchmarks.page import replace_part
from demo.console import Screen
from demo.files import DEBIAN_FOLDER, Images, read_images
from keras_prune import mapping
from keras_prune.files import replacing
from keras_prune.mapping import LatencyTable, Plan, Point

OUTPUT, PAGE = Path("build/bench"), Path("docs/mapping.md")
SEEDS = (0, 1, 2)
TARGETS = ("2x", "2.5x")
ORACLES = ("policy_gradient", "bayesian")
HELD_OUT = 50_000
"""Training images from this one on are what searches evaluate with."""
RULES, SINGLE, SEARCH = "rules", "single", "search"
TRIAL, FINAL, TEST = "trial", "final", "test"
_MOST_ZEROS = 0.98
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to train and search, for an hour on one core.

    Args:
        dense_images: images of the dense training.
        trials: plans that a search tries.
        trial_steps: training steps of each.
        trial_images: images that each is evaluated with.
        finalists: plans that a search trains longer at the end.
        final_steps: training steps of each.
        final_images: images that each is evaluated with.
        steps: training steps of the plans that are compared.
        batch_size: images a step.
        test_images: test images, of 10,000.
    """

    dense_images: int = 20_000
    trials: int = 14
    trial_steps: int = 24
    trial_images: int = 2000
    finalists: int = 3
    final_steps: int = 60
    final_images: int = 4000
    steps: int = 96
    batch_size: int = 64
    test_images: int = 5000


@dataclasses.dataclass(frozen=True)
class Case:
    """One plan: what its line in the results is found by."""

    seed: int
    target: str
    method: str
    detail: str = ""

    @classmethod
    def of(cls, row: Row) -> Case:
        return cls(*(row[field.name] for field in dataclasses.fields(cls)))

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.target}, {self.method} {self.detail}".rstrip()


def cases(schemes: Sequence[str], seeds: Sequence[int] = SEEDS, targets: Sequence[str] = TARGETS) -> list[Case]:
    """All plans, those first without which there is nothing to compare."""
    found = []
    for target, seed in itertools.product(targets, seeds):
        found.append(Case(seed, target, RULES))
        found += [Case(seed, target, SEARCH, oracle) for oracle in ORACLES]
    found += [Case(seed, target, SINGLE, scheme) for scheme, target, seed in itertools.product(schemes, targets, seeds)]
    return found


def read_results(path: Path, effort: Effort) -> list[Row]:
    """Read the lines of all finished plans.

    Raises:
        ValueError: a line is not one of this benchmark's, or was made with another effort.
    """
    rows = []
    whole, _, _ = (path.read_text() if path.is_file() else "").rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            Case.of(row)
            other = row["effort"] != dataclasses.asdict(effort)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no result ({error!r}); remove it or the file") from error
        if other:
            raise ValueError(f"{path}, line {number} was made with another effort, {row['effort']}; remove the file")
        rows.append(row)
    return rows


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


def markdown(rows: Sequence[Row], effort: Effort) -> str:
    """The tables, one a target, what they come to, and the plot."""
    seeds = sorted({row["seed"] for row in rows})
    if not rows:
        return "Nothing has been run yet.\n"
    dense = {row["seed"]: row["accuracy_dense"] for row in rows}
    lines = [
        f"{len(rows)} plans, {len(seeds)} of {len(SEEDS)} seeds. Dense network: {spread(list(dense.values()))} per "
        f"cent, {rows[0]['dense_ms']:.3f} ms predicted. Each search tried {effort.trials} plans, each pruned at once "
        f"and trained for {effort.trial_steps} steps of {effort.batch_size} images, and evaluated on "
        f"{effort.trial_images:,} held-out images; the best of {effort.finalists} finalists, trained for "
        f"{effort.final_steps} steps and evaluated on {effort.final_images:,}, was taken. All plans of the table were "
        f"trained for {effort.steps} steps, on images in another order, and evaluated on "
        f"{effort.test_images:,} test images: mean ± sample standard deviation over seeds (their number). "
        "`vs rules`: the mean of the seeds' differences in points.",
    ]
    for target in sorted({row["target"] for row in rows}):
        own = [row for row in rows if row["target"] == target]
        groups: dict[str, dict[int, Row]] = {}
        for row in own:
            groups.setdefault(f"{row['method']} {row['detail']}".strip(), {})[row["seed"]] = row
        by_rules = groups.get(RULES, {})
        table = [["plan", "predicted ms", "zeros", "accuracy", "vs rules"], ["---"] * 5]
        for name, group in groups.items():
            ms = statistics.mean(row["predicted_ms"] for row in group.values())
            zeros = statistics.mean(row["zeros"] for row in group.values())
            accuracy = spread([row["accuracy"] for row in group.values()])
            table.append([name, f"{ms:.4f}", f"{zeros:.1%}", accuracy, difference(group, by_rules)])
        lines.append(f"**{target}**")
        lines.append("\n".join("| " + " | ".join(cells) + " |" for cells in table))
        lines += verdicts(groups)
    lines.append("```text\n" + text_plot(rows) + "\n```")
    return "\n\n".join(lines) + "\n"


def difference(group: dict[int, Row], other: dict[int, Row]) -> str:
    """Say the mean difference of accuracy over common seeds in points, with its sample standard deviation."""
    found = [100 * (group[seed]["accuracy"] - other[seed]["accuracy"]) for seed in sorted(set(group) & set(other))]
    if not found or group is other:
        return ""
    return f"{statistics.mean(found):+.2f}" + (f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else "")


def verdicts(groups: dict[str, dict[int, Row]]) -> list[str]:
    """Say plainly how each search did against the rules and the best single scheme."""
    singles = {name: group for name, group in groups.items() if name.startswith(SINGLE)}
    most = max((len(group) for group in singles.values()), default=0)
    complete = {name: group for name, group in singles.items() if len(group) == most}

    def mean(group: dict[int, Row]) -> float:
        return statistics.mean(row["accuracy"] for row in group.values())

    best = max(complete, key=lambda name: mean(complete[name]), default=None)
    said = []
    for name, group in groups.items():
        if not name.startswith(SEARCH):
            continue
        parts = []
        for other in filter(None, (RULES if RULES in groups else None, best)):
            against = groups[other]
            gains = [row["accuracy"] - against[seed]["accuracy"] for seed, row in group.items() if seed in against]
            if not gains:
                continue
            won = sum(gain > 0 for gain in gains)
            label = "the rules" if other == RULES else f"the best single scheme ({other.removeprefix(SINGLE).strip()})"
            parts.append(f"{100 * statistics.mean(gains):+.2f} points against {label}, better in {won} of {len(gains)}")
        if parts:
            said.append(f"{name}: " + "; ".join(parts) + ".")
    return said


def text_plot(rows: Sequence[Row], width: int = 64, height: int = 16) -> str:
    """Plot mean accuracy against predicted latency with a letter for each plan; the upper left is best."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((f"{row['method']} {row['detail']}".strip(), row["target"]), []).append(row)
    letters = {RULES: "R", f"{SEARCH} policy_gradient": "P", f"{SEARCH} bayesian": "B"}
    marks = []
    for (name, _), own in groups.items():
        ms = statistics.mean(row["predicted_ms"] for row in own)
        accuracy = 100 * statistics.mean(row["accuracy"] for row in own)
        marks.append((ms, accuracy, letters.get(name, "s")))
    dense = {row["seed"]: row["accuracy_dense"] for row in rows}
    marks.append((rows[0]["dense_ms"], 100 * statistics.mean(dense.values()), "D"))
    left, right = min(m[0] for m in marks), max(m[0] for m in marks)
    low, high = min(m[1] for m in marks), max(m[1] for m in marks)
    grid = [[" "] * width for _ in range(height)]
    for ms, accuracy, letter in sorted(marks, key=lambda mark: "sDRBP".index(mark[2])):
        column = round((ms - left) / ((right - left) or 1.0) * (width - 1))
        line = round((high - accuracy) / ((high - low) or 1.0) * (height - 1))
        grid[line][column] = letter
    drawn = []
    for i, cells in enumerate(grid):
        label = f"{high - (high - low) * i / (height - 1):6.2f} %" if i % 5 == 0 else " " * 8
        drawn.append(f"{label} |{''.join(cells).rstrip()}")
    drawn.append(" " * 9 + "+" + "-" * width)
    drawn.append(" " * 9 + f"{left:.4f} ms" + f"{right:.4f} ms".rjust(width - len(f"{left:.4f} ms") + 1))
    drawn.append("D dense, R rules, P search by policy gradient, B search by Bayesian optimisation, s single schemes")
    return "\n".join(drawn)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against predicted latency, a colour a kind of plan."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name in dict.fromkeys(f"{row['method']} {row['detail']}".strip() for row in rows):
        by_target: dict[str, list[Row]] = {}
        for row in rows:
            if f"{row['method']} {row['detail']}".strip() == name:
                by_target.setdefault(row["target"], []).append(row)
        points = sorted(
            (
                statistics.mean(row["predicted_ms"] for row in own),
                100 * statistics.mean(row["accuracy"] for row in own),
                100 * statistics.stdev([row["accuracy"] for row in own]) if len(own) > 1 else 0.0,
            )
            for own in by_target.values()
        )
        faint = 0.4 if name.startswith(SINGLE) else 1.0
        axes.errorbar(*zip(*points, strict=True), marker="o", capsize=3, alpha=faint, label=name)
    dense = {row["seed"]: row["accuracy_dense"] for row in rows}
    axes.plot(rows[0]["dense_ms"], 100 * statistics.mean(dense.values()), "k*", label="dense")
    axes.set_xlabel("predicted latency, ms")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


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
