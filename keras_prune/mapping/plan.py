"""Which layer gets which structure, block and zeros, so that a network meets a target with the least loss."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from keras_prune.layers import find_weights
from keras_prune.mapping import rules
from keras_prune.mapping.measure import checked_table
from keras_prune.mapping.options import Option, Workload, rule_options
from keras_prune.mapping.scaled import Scaled
from keras_prune.mapping.sensitivity import Sensitivity
from keras_prune.mapping.solver import solve
from keras_prune.mapping.table import LatencyTable, Point
from keras_prune.mapping.workload import parse_scheme
from keras_prune.tflite.layer import DENSE

FORMAT_VERSION = 1
METHODS = ("rules", "search")


@dataclasses.dataclass(frozen=True)
class PlannedLayer:
    """What a plan says of one layer.

    Attributes:
        path: of the layer in the model.
        sizes: of its calls, as in the latency table.
        entries: of its weight.
        scheme: structure and block, or ``"dense"``.
        zeros: fraction of zeros.
        dense_ms, ms: latency without zeros, and with these.
        loss: predicted loss: part of the weights' energy, or accuracy where the sensitivity was measured.
        reasons: why.
    """

    path: str
    sizes: tuple[str, ...]
    entries: int
    scheme: str
    zeros: float
    dense_ms: float
    ms: float
    loss: float
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A structure and a fraction of zeros for each layer; made by :func:`plan`.

    Attributes:
        target: what was asked for.
        cpu, version, threads: of the latency table.
        layers: all with weights whose latency is known, in the order of the model.
        other_ms: latency of all else, such as pooling.
        uncounted: layers whose latency is not counted, because the table has nothing like them.
    """

    target: str
    cpu: str
    version: str
    threads: int
    layers: tuple[PlannedLayer, ...]
    other_ms: float
    uncounted: tuple[str, ...] = ()

    @property
    def dense_ms(self) -> float:
        """Predicted latency of the network without zeros, on the delegate's dense kernels."""
        return self.other_ms + sum(layer.dense_ms for layer in self.layers)

    @property
    def predicted_ms(self) -> float:
        """Predicted latency of the network by this plan."""
        return self.other_ms + sum(layer.ms for layer in self.layers)

    @property
    def pruned(self) -> list[PlannedLayer]:
        """Layers that get zeros."""
        return [layer for layer in self.layers if layer.scheme != DENSE]

    @property
    def zeros(self) -> float:
        """Fraction of zeros over the layers that get any."""
        entries = sum(layer.entries for layer in self.pruned)
        return sum(layer.zeros * layer.entries for layer in self.pruned) / entries if entries else 0.0

    def structures(self) -> dict[str, Scaled]:
        """Map each pruned layer's path to its structure, whose zeros are its share of :attr:`zeros`."""
        return {layer.path: Scaled(layer.scheme, layer.zeros / self.zeros) for layer in self.pruned}

    def callback(
        self, end_step: int, *, begin_step: int = 0, frequency: int = 100, method: Any = None, **options: Any
    ) -> Any:
        """Make the callback that prunes by this plan in ``fit``.

        All layers follow one schedule, each towards its own fraction of zeros.

        Args:
            end_step: training step at which all zeros are to be there.
            begin_step: training step at which pruning begins.
            frequency: steps between two choices of masks.
            method: ``Magnitude()``, the default, or another.
            options: further arguments of :class:`keras_prune.Prune`.

        Raises:
            ValueError: the plan leaves all layers dense, or an argument is out of range.
        """
        from keras_prune.callbacks import Prune
        from keras_prune.methods import Magnitude
        from keras_prune.schedules import ConstantSparsity, PolynomialDecay

        if not self.pruned:
            raise ValueError("the plan leaves all layers dense: there is nothing to prune")
        schedule: Any
        if method is None or isinstance(method, Magnitude):
            schedule = PolynomialDecay(0.0, self.zeros, begin_step, end_step, frequency=frequency)
        else:
            schedule = ConstantSparsity(self.zeros, begin_step, end_step, frequency)
        return Prune(self.structures(), schedule, method, layers=[layer.path for layer in self.pruned], **options)

    def sparsify(self, model: Any) -> Any:
        """Prune a model by this plan at once, without training; see :func:`keras_prune.sparsify`."""
        from keras_prune.pruning import sparsify

        return sparsify(model, self.structures(), self.zeros, layers=[layer.path for layer in self.pruned])

    def report(self) -> str:
        """Say in a table what each layer gets, and why."""
        rows = [("layer", "structure", "zeros", "dense ms", "ms", "loss", "why")]
        for layer in self.layers:
            zeros = f"{layer.zeros:.0%}" if layer.zeros else "-"
            times = (f"{layer.dense_ms:.3f}", f"{layer.ms:.3f}")
            rows.append((layer.path, layer.scheme, zeros, *times, f"{layer.loss:.3f}", "; ".join(layer.reasons)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        lines.append(f"everything else: {self.other_ms:.3f} ms")
        if self.uncounted:
            lines.append(f"not counted, as the latency table has nothing like them: {', '.join(self.uncounted)}")
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        lines.append(
            f"target {self.target}: {self.predicted_ms:.3f} ms predicted, {self.dense_ms:.3f} ms dense "
            f"({self.dense_ms / self.predicted_ms:.2f}x), {self.zeros:.1%} zeros in {len(self.pruned)} layers; "
            f"{self.cpu}, {threads}"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({"format": FORMAT_VERSION, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` returned.

        Raises:
            ValueError: it is no plan.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT_VERSION:
                raise ValueError("the plan is of another format version; make it anew by keras-prune plan")
            layers = []
            for row in data.pop("layers"):
                lists = {key: tuple(row[key]) for key in ("sizes", "reasons")}
                layers.append(PlannedLayer(**{**row, **lists}))
                parse_scheme(row["scheme"])
            return cls(layers=tuple(layers), uncounted=tuple(data.pop("uncounted")), **data)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a plan: {error!r}; make one by keras-prune plan") from error


def plan(
    model: Any,
    target: str | float,
    table: LatencyTable | str | os.PathLike[str] | None = None,
    method: str = "rules",
    *,
    data: str = "hard",
    beta: float = 0.2,
    max_zeros: float = 0.95,
    sensitivity: Sensitivity | None = None,
    layers: Any = None,
    exclude: Any = None,
    force: bool = False,
    **search: Any,
) -> Plan:
    """Choose a structure, a block and a fraction of zeros for each layer of a model.

    By ``"rules"``, they choose structure and block (see :mod:`keras_prune.mapping.rules`), and the zeros are those that
    meet the target with the least predicted loss. By ``"search"``, plans that meet the target are tried one after the
    other, pruned at once and trained on for a moment with your data, and the best is returned (see
    :class:`keras_prune.mapping.Search`).

    Args:
        model: a built functional or sequential Keras model with its trained weights, for inputs of a fixed size.
        target: a speed-up over the dense model (``"2.0x"``), a latency (``"3.5ms"``), or a fraction of zeros over all
            layers that can be pruned (``0.8`` or ``"80%"``): the best accuracy within it. For a search also points of
            accuracy (``"1.5 points"``): the least latency that costs no more than these.
        table: latencies, or the file that keeps them; by default those that ``keras-prune latency-table`` measured on
            this machine.
        method: ``"rules"`` or ``"search"``; the latter needs KerasTuner.
        data: ``"hard"`` or ``"easy"``: what the rules make of 3x3 convolutions.
        beta: by how much a block may be slower than the coarsest to be preferred for its accuracy.
        max_zeros: the most zeros that a layer may get.
        sensitivity: loss of accuracy of each layer by its zeros, from :func:`scan`; by default the loss of the weights'
            energy stands for it.
        layers: which layers to prune, see :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave dense.
        force: take a table of another CPU or library version.
        search: for a search, arguments of :class:`keras_prune.mapping.Search`, such as ``train=(images, labels)``,
            ``validation=(images, labels)``, ``trials=50`` and ``directory="plan-search"``.

    Raises:
        ValueError: the target is not understood or cannot be met (the message says how far one gets), the table is of
            another CPU or version or lacks layers (they are named), or the model does not know its layers' sizes.
        FileNotFoundError: no table was measured on this machine.
        ImportError: a search without KerasTuner installed.

    Example:
        >>> import keras
        >>> from keras_prune import mapping
        >>> layers = keras.layers
        >>> model = keras.Sequential([keras.Input([8, 8, 16]), *(layers.Conv2D(16, 1) for _ in range(4))])
        >>> layer = mapping.Layer("conv", 8, 8, 16, 16)
        >>> entries = {mapping.Point(layer): 10.0, mapping.Point(layer, "unaligned_block:4", 0.8): 3.0}
        >>> table = mapping.LatencyTable(entries, mapping.cpu_name(), "0.1.0")
        >>> made = mapping.plan(model, "1.3x", table, force=True)
        >>> made.dense_ms / made.predicted_ms >= 1.3
        True
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but is {method!r}")
    if data not in rules.DATA:
        raise ValueError(f"data must be one of {', '.join(rules.DATA)}, but is {data!r}")
    if not beta >= 0.0:
        raise ValueError(f"beta must not be negative, but is {beta}")
    if not 0.0 < max_zeros < 1.0:
        raise ValueError(f"max_zeros must be between 0 and 1, but is {max_zeros}")
    wanted = Target.parse(target)
    if method != "search" and (search or wanted.kind == "points"):
        told = ", ".join(search) or f"the target {target!r}"
        raise ValueError(f"{told} is for a search only: give method='search'")
    table = checked_table(table, force)
    workload = Workload.of(model, table, find_weights(model, layers, exclude))
    given = rules.Given(table, data, beta)
    if method == "search":
        from keras_prune.mapping.search import Problem, Search, run

        problem = Problem(model, target, wanted, workload, given, max_zeros, sensitivity)
        return run(problem, Search(**search))
    options = [rule_options(candidate, calls, given, max_zeros, sensitivity) for candidate, calls in workload.layers]
    costs, budget = wanted.costs(options, workload.other_ms)
    chosen = solve(costs, [[option.loss for option in own] for own in options], budget)
    if chosen is None:
        fastest = [own[c.index(min(c))] for own, c in zip(options, costs, strict=True)]
        raise ValueError(wanted.failure(assemble(target, table, workload, fastest), options, max_zeros))
    return assemble(target, table, workload, [own[i] for own, i in zip(options, chosen, strict=True)])


@dataclasses.dataclass(frozen=True)
class Target:
    """What a plan is to reach: ``kind`` is ``"speedup"``, ``"ms"``, ``"zeros"`` or ``"points"`` of accuracy lost."""

    kind: str
    value: float

    @classmethod
    def parse(cls, target: str | float) -> Target:
        """Understand a target.

        Raises:
            ValueError: it is none.

        Example:
            >>> Target.parse("3.5 ms")
            Target(kind='ms', value=3.5)
        """
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(x|ms|%|points?|)\s*", str(target))
        kinds = {"x": "speedup", "ms": "ms", "%": "zeros", "": "zeros", "point": "points", "points": "points"}
        if match is not None:
            value = float(match[1]) / (100.0 if match[2] == "%" else 1.0)
            kind = kinds[match[2]]
            least, below = {"speedup": (1.0, math.inf), "zeros": (0.0, 1.0), "points": (0.0, 100.0)}.get(
                kind, (1e-9, math.inf)
            )
            if least <= value < below:
                return cls(kind, value)
        raise ValueError(
            f"target {target!r} is not understood: give a speed-up of at least '1x' ('2.0x'), a latency ('3.5ms'), "
            "a fraction of zeros in [0, 1) (0.8 or '80%'), or, for a search, points of accuracy ('1.5 points')"
        )

    def costs(self, options: list[list[Option]], other_ms: float) -> tuple[list[list[float]], float]:
        """Return what each option costs, and the budget."""
        if self.kind == "zeros":
            prunable = [own for own in options if own[0].entries and len(own) > 1]
            entries = sum(own[0].entries for own in prunable)
            costs = [[o.entries * (1.0 - o.zeros) if len(own) > 1 else 0.0 for o in own] for own in options]
            return costs, (1.0 - self.value + 1e-9) * entries
        costs = [[option.ms for option in own] for own in options]
        dense = sum(own[0].ms for own in options) + other_ms
        return costs, (dense / self.value if self.kind == "speedup" else self.value) - other_ms

    def failure(self, fastest: Plan, options: list[list[Option]], max_zeros: float) -> str:
        """Say that the target cannot be met, and how far one gets."""
        if self.kind == "zeros":
            prunable = [own for own in options if len(own) > 1]
            entries = sum(own[0].entries for own in prunable)
            most = sum(max(o.zeros for o in own) * own[0].entries for own in prunable) / max(entries, 1)
            reach = f"{most:.1%} zeros over the layers that can be pruned"
        else:
            speedup = fastest.dense_ms / fastest.predicted_ms
            reach = f"{speedup:.2f}x, {fastest.predicted_ms:.3f} ms of {fastest.dense_ms:.3f} ms dense"
        return (
            f"the target {fastest.target} cannot be met: with at most {max_zeros:.0%} zeros in a layer one gets "
            f"{reach}. Ask for less, prune more layers, or allow more zeros by max_zeros"
        )


def assemble(target: Any, table: LatencyTable, workload: Workload, chosen: Sequence[Option]) -> Plan:
    """Make a plan of one option for each layer."""
    layers = []
    for (weight, calls), option in zip(workload.layers, chosen, strict=True):
        dense_ms = sum(table.predict(Point(layer)) for layer in calls) / 1e3
        sizes = tuple(str(layer) for layer in calls)
        layers.append(
            PlannedLayer(
                path=weight.path,
                sizes=sizes,
                entries=option.entries,
                scheme=option.scheme,
                zeros=option.zeros,
                dense_ms=dense_ms,
                ms=option.ms,
                loss=option.loss,
                reasons=option.reasons,
            )
        )
    return Plan(
        str(target), table.cpu, table.version, table.threads, tuple(layers), workload.other_ms, workload.uncounted
    )
