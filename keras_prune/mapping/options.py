"""What each layer of a model could get: the options that a plan is chosen from."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from keras_prune.layers import Candidate
from keras_prune.mapping import rules
from keras_prune.mapping.sensitivity import Sensitivity, interpolate, lost_energy
from keras_prune.mapping.table import LatencyTable, Point
from keras_prune.mapping.workload import Use, parse_scheme, uses
from keras_prune.tflite.layer import DENSE, Layer

RATES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Fractions of zeros that a layer can get."""
# Of two plans with like loss by measured sensitivity the one that keeps more energy is better.
_TIE = 1e-4


@dataclasses.dataclass(frozen=True)
class Option:
    """What one layer could get."""

    scheme: str
    zeros: float
    ms: float
    loss: float
    entries: int
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model's layers with weights, with the sizes of their calls, and what else takes time."""

    layers: list[tuple[Weight, tuple[Layer, ...]]]
    other_ms: float
    uncounted: tuple[str, ...]

    @classmethod
    def of(cls, model: Any, table: LatencyTable, candidates: list[Candidate]) -> Workload:
        calls: dict[tuple[int, str], list[Use]] = collections.OrderedDict()
        other_ms, uncounted = 0.0, []
        for use in uses(model):
            if use.weight:
                calls.setdefault((id(use.source), use.weight), []).append(use)
            elif table.missing([Point(use.layer)]):
                uncounted.append(use.path)
            else:
                other_ms += table.predict(Point(use.layer)) / 1e3
        unknown = sorted({use.path for own in calls.values() for use in own if table.missing([Point(use.layer)])})
        if unknown:
            raise ValueError(
                f"the latency table has no entry like {', '.join(unknown)}: measure them by keras-prune latency-table "
                "--model with this model"
            )
        by_weight = {(id(c.layer), c.weight_name): c for c in candidates}
        layers = []
        for key, own in calls.items():
            candidate = by_weight.pop(key, None)
            layers.append((Weight(own[0].path, candidate), tuple(use.layer for use in own)))
        # What is left has weights that no latency is known of, such as recurrent layers.
        uncounted += [c.path for c in by_weight.values() if c.variable is not None]
        return cls(layers, other_ms, tuple(dict.fromkeys(uncounted)))


@dataclasses.dataclass(frozen=True)
class Weight:
    """A weight, by the path of its layer, and what is known of it if it can be pruned at all."""

    path: str
    candidate: Candidate | None

    @property
    def skipped(self) -> str | None:
        """Why it stays dense, or None."""
        if self.candidate is None:
            return "its weights cannot be pruned"
        return self.candidate.skipped


Calls = tuple[Layer, ...]
"""The sizes with which a network calls a layer."""


def rule_options(
    weight: Weight, calls: Calls, given: rules.Given, max_zeros: float, sensitivity: Sensitivity | None
) -> list[Option]:
    """List what the rules would give a layer at each fraction of zeros: dense first."""
    if weight.skipped is not None:
        return [_dense(weight, calls, given, weight.skipped)]
    choices = [(zeros, rules.choose(calls[0], zeros, given)) for zeros in RATES if zeros <= max_zeros]
    if all(choice.scheme == DENSE for _, choice in choices):
        reasons = choices[-1][1].reasons if choices else ("max_zeros is below all rates",)
        return [_dense(weight, calls, given, *reasons)]
    pruned = [(zeros, choice.scheme, choice.reasons) for zeros, choice in choices if choice.scheme != DENSE]
    dense = _dense(weight, calls, given, "the target is met with the zeros of others")
    return [dense, *_pruned(weight, calls, given, sensitivity, pruned)]


def every_option(
    weight: Weight, calls: Calls, given: rules.Given, max_zeros: float, sensitivity: Sensitivity | None
) -> list[Option]:
    """List all that a layer can have and the table knows: dense first, then each structure and block by rising zeros.

    Of each block only such zeros are listed as make the layer faster than fewer do.
    """
    dense = _dense(weight, calls, given, weight.skipped or "no zeros")
    if weight.skipped is not None:
        return [dense]
    schemes = [scheme for structure in rules.BLOCKS for scheme in given.blocks(calls[0], structure)]
    options = [dense]
    for scheme in schemes:
        rates = [(zeros, scheme, ()) for zeros in RATES if zeros <= max_zeros]
        fastest = dense.ms
        for option in _pruned(weight, calls, given, sensitivity, rates):
            if option.ms < fastest:
                options.append(option)
                fastest = option.ms
    return options


def _dense(weight: Weight, calls: Calls, given: rules.Given, *reasons: str) -> Option:
    ms = sum(given.microseconds(layer, DENSE, 0.0) for layer in calls) / 1e3
    prunable = weight.skipped is None and weight.candidate is not None
    entries = math.prod(int(n) for n in weight.candidate.variable.shape) if prunable and weight.candidate else 0
    return Option(DENSE, 0.0, ms, 0.0, entries, reasons)


def _pruned(
    weight: Weight,
    calls: Calls,
    given: rules.Given,
    sensitivity: Sensitivity | None,
    choices: Iterable[tuple[float, str, tuple[str, ...]]],
) -> list[Option]:
    """Give choices of zeros, scheme and reasons their latency and predicted loss."""
    candidate = weight.candidate
    assert candidate is not None and candidate.view is not None
    shape = tuple(int(n) for n in candidate.variable.shape)
    matrix = candidate.view.to_matrix(candidate.variable.numpy())
    kernel = candidate.view.kernel_size(shape)
    options = []
    for zeros, scheme, reasons in choices:
        structure = parse_scheme(scheme)
        assert structure is not None
        loss = lost_energy(matrix, kernel, structure, zeros)
        if sensitivity is not None and weight.path in sensitivity:
            loss = interpolate(sensitivity[weight.path], zeros) + _TIE * loss
        ms = sum(given.microseconds(layer, scheme, zeros) for layer in calls) / 1e3
        options.append(Option(scheme, zeros, ms, loss, math.prod(shape), reasons))
    return options
