"""Latencies of single layers, measured once for a CPU, and what follows from them for layers of other sizes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_prune import files
from keras_prune.mapping.workload import parse_scheme
from keras_prune.tflite.layer import DENSE, Layer

FORMAT_VERSION = 1

# Rows of a block that the dense kernels work on.
_DENSE_ROWS = 16
# Points as near as this, in factors of e of their sizes, share their deviation from the common law fully.
_NEAR = 0.5
# Deviations from the law, in factors of e, beyond which a point counts less; rounds of fitting with such weights.
_USUAL = 0.3
_ROUNDS = 6


@dataclasses.dataclass(frozen=True)
class Point:
    """A layer with its zeros.

    Args:
        layer: its size.
        scheme: ``"dense"``, or structure and block such as ``"unaligned_block:4"``.
        zeros: fraction of zeros, in [0, 1).
    """

    layer: Layer
    scheme: str = DENSE
    zeros: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Point:
        """Read a point as the delegate's tool writes it, ``"conv 14x14x256 512 1x1 1 unaligned_block:4 0.8"``.

        Raises:
            ValueError: it is none.
        """
        words = text.split()
        if words[0] not in ("conv", "dense"):
            return cls(Layer.parse(text))
        try:
            layer, scheme, zeros = Layer.parse(" ".join(words[:-2])), words[-2], float(words[-1])
        except (ValueError, IndexError) as error:
            raise ValueError(f"{text!r} is no layer with a structure and its zeros") from error
        parse_scheme(scheme)
        return cls(layer, scheme, zeros)

    def __str__(self) -> str:
        if self.layer.kind not in ("conv", "dense"):
            return str(self.layer)
        return f"{self.layer} {self.scheme} {self.zeros:g}"

    @property
    def family(self) -> tuple[str, str]:
        """Points whose latencies follow one law."""
        return self.layer.family, self.scheme.split(":")[0]

    @property
    def rows(self) -> int:
        """Output channels that share an address."""
        sizes = self.scheme.partition(":")[2]
        if not sizes:
            return _DENSE_ROWS
        return 1 if self.scheme.startswith("pattern") else int(sizes.split("x")[0])

    def costs(self) -> list[float]:
        """Count a call, multiply-adds, addresses, values read and written, weights, and values read with a stride."""
        layer = self.layer
        kept = 1.0 - self.zeros
        macs = kept * layer.macs
        source = layer.height * layer.width * layer.channels
        # A convolution with a stride reads a copy that is made first.
        strided = source if layer.stride > 1 else 0
        return [1.0, macs, macs / self.rows, source, layer.pixels * layer.filters, kept * layer.weights, strided]

    def place(self) -> list[float]:
        """Coordinates in which near points have like latencies."""
        layer = self.layer
        sizes = (layer.pixels, layer.channels, layer.filters, self.rows, 1.0 - self.zeros, layer.stride**2)
        return [math.log(size) for size in (*sizes, math.prod(layer.kernel))]


@dataclasses.dataclass(frozen=True)
class Error:
    """How far predictions are from measurements that they were not made from.

    Attributes:
        points: measurements.
        median: relative error that half of them stay below.
        worst_tenth: relative error that nine tenths stay below.
    """

    points: int
    median: float
    worst_tenth: float


class LatencyTable:
    """Measured latencies of layers, and predictions for others.

    The latency of a layer that was measured is what was measured. Others follow the law ``sum_i c_i * n_i``, whose
    ``n_i`` count multiply-adds, addresses, values read, written and read with a stride, and weights, with one set of
    ``c_i >= 0`` for each type of layer and structure (least squares of the relative errors), times the deviation that
    measured layers of nearly the same size have from it.

    Args:
        entries: microseconds of each point.
        cpu: name of the CPU.
        version: of the delegate's library and its kernels, as :func:`keras_prune.mapping.measure.library_version` says.
        threads: that it computed with.
        yardsticks: microseconds of the layers that tell the machine's speed, by their texts, at the speed that the
            latencies are for (:mod:`keras_prune.mapping.yardstick`); two of them, or none where it was not told.

    Example:
        >>> from keras_prune.mapping import Layer, LatencyTable, Point
        >>> sizes = [16, 32, 64, 128, 256]
        >>> entries = {Point(Layer("dense", 1, 1, n, n)): 1.0 + n * n / 1e3 for n in sizes}
        >>> table = LatencyTable(entries, cpu="a CPU", version="0.1.0")
        >>> round(table.predict(Point(Layer("dense", 1, 1, 100, 100))), 1)
        11.0
    """

    def __init__(
        self,
        entries: Mapping[Point, float],
        cpu: str,
        version: str,
        threads: int = 1,
        yardsticks: Mapping[str, float] | None = None,
    ) -> None:
        self.yardsticks = dict(yardsticks or {})
        if len(self.yardsticks) not in (0, 2):
            raise ValueError(f"a latency table has two yardsticks or none, but this has {len(self.yardsticks)}")
        both = itertools.chain(entries.items(), self.yardsticks.items())
        bad = [str(point) for point, us in both if not (math.isfinite(us) and us > 0.0)]
        if bad:
            raise ValueError(f"latencies must be positive microseconds, but are not for {bad[0]!r}; measure it anew")
        self.entries = dict(entries)
        self.cpu = cpu
        self.version = version
        self.threads = threads
        self._laws: dict[tuple[str, str], _Law] = {}
        self._predicted: dict[Point, float] = {}

    def predict(self, point: Point) -> float:
        """Return a layer's latency in microseconds.

        Raises:
            ValueError: nothing like it has been measured.
        """
        known = self.entries.get(point) or self._predicted.get(point)
        if known is not None:
            return known
        law = self._law(point.family)
        if law is None:
            raise ValueError(
                f"the latency table has no entry like {point}: measure some with keras-prune latency-table"
            )
        return self._predicted.setdefault(point, law.predict(point))

    def missing(self, points: Iterable[Point]) -> list[Point]:
        """List the points that nothing measured is like."""
        return [point for point in points if point not in self.entries and self._law(point.family) is None]

    def errors(self) -> dict[tuple[str, str], Error]:
        """Predict each measured point from all others, by type of layer and structure."""
        found = {}
        for family in sorted({point.family for point in self.entries}):
            law = self._law(family)
            if law is not None and len(law.points) > 1:
                relative = law.left_out()
                found[family] = Error(len(relative), float(np.median(relative)), float(np.quantile(relative, 0.9)))
        return found

    def check(self, cpu: str | None, version: str | None) -> None:
        """Raise ValueError if the table was measured on another CPU or with another version of the library."""
        for what, own, wanted in (("CPU", self.cpu, cpu), ("library version", self.version, version)):
            if wanted is not None and own != wanted:
                raise ValueError(
                    f"the latency table is for the {what} {own!r}, not {wanted!r}: measure one by keras-prune "
                    "latency-table, or use it all the same with force"
                )

    def to_json(self) -> str:
        """Return the table as JSON."""
        rows = [{"layer": str(point), "median_us": us} for point, us in self.entries.items()]
        head: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "cpu": self.cpu,
            "version": self.version,
            "threads": self.threads,
        }
        if self.yardsticks:
            head["yardsticks"] = self.yardsticks
        lines = ",\n".join(json.dumps(row) for row in rows)
        return json.dumps(head)[:-1] + f', "layers": [\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str, cpu: str | None = None, version: str | None = None) -> LatencyTable:
        """Read a table, or the output of the delegate's tool `latency_table`.

        Args:
            text: JSON.
            cpu: name of the device's CPU, which the tool's output does not give.
            version: of the library, where the tool's output does not give it.

        Raises:
            ValueError: it is neither.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            rows = [(Point.parse(row["layer"]), float(row["median_us"])) for row in data["layers"]]
            threads = int(data["threads"])
            yardsticks = {str(Point.parse(text)): float(us) for text, us in data.get("yardsticks", {}).items()}
            own = data.get("format") == FORMAT_VERSION
            of_tool = (cpu or data["cpu"], version or data.get("library", "unknown"))
            found = (data["cpu"], data["version"]) if own else of_tool
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a latency table: {error!r}; make one by keras-prune latency-table") from error
        return cls(dict(rows), str(found[0]), str(found[1]), threads, yardsticks)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table, whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write(target, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Read a file that :meth:`save` wrote.

        Raises:
            ValueError: it is no table.
            OSError: it cannot be read.
        """
        return cls.from_json(Path(path).read_text())

    def _law(self, family: tuple[str, str]) -> _Law | None:
        if family not in self._laws:
            points = [point for point in self.entries if point.family == family]
            if not points:
                return None
            self._laws[family] = _Law(points, [self.entries[point] for point in points])
        return self._laws[family]


def default_path(cpu: str) -> Path:
    """Return where the table of a CPU is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = "".join(c if c.isalnum() else "-" for c in cpu.lower()).strip("-")
    return cache / "keras_prune" / f"latency-{name}.json"


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Time of each cost, the points' deviations in factors of e, and what each point counted."""

    factors: npt.NDArray[np.float64]
    deviations: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


class _Law:
    """What the points of one family have in common, and each one's deviation from it."""

    def __init__(self, points: list[Point], microseconds: list[float]) -> None:
        self.points = points
        self._us = np.array(microseconds)
        self._costs = np.array([point.costs() for point in points])
        self._places = np.array([point.place() for point in points])

    @functools.cached_property
    def _fit(self) -> _Fit:
        every = np.ones(len(self.points), bool)
        weights = np.ones(len(self.points))
        fit = self._fitted(every, np.ones(self._costs.shape[1], bool), weights)
        for _ in range(_ROUNDS):
            # One measurement that something disturbed would otherwise bend the law for all.
            away = np.abs(fit.deviations - np.median(fit.deviations))
            weights = 1.0 / np.maximum(1.0, away / _USUAL)
            fit = self._fitted(every, np.ones(self._costs.shape[1], bool), weights)
        return fit

    def _fitted(
        self,
        chosen: npt.NDArray[np.bool_],
        used: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64],
    ) -> _Fit:
        """Fit the law to the points chosen, with the costs used."""
        costs, us = self._costs[chosen], self._us[chosen]
        factors = np.zeros(costs.shape[1])
        factors[used] = _non_negative(weights[:, None] * costs[:, used] / us[:, None], weights)
        return _Fit(factors, np.log(us / (costs @ factors)), weights)

    def predict(self, point: Point) -> float:
        return self._predict(np.array(point.costs()), np.array(point.place()), self._fit, self._places)

    def left_out(self) -> npt.NDArray[np.float64]:
        """Relative error of each point's prediction from the others."""
        errors = np.empty(len(self.points))
        used = self._fit.factors > 0  # what plays no part with all points plays none without one
        for i in range(len(self.points)):
            others = np.arange(len(self.points)) != i
            fit = self._fitted(others, used, self._fit.weights[others])
            predicted = self._predict(self._costs[i], self._places[i], fit, self._places[others])
            errors[i] = abs(predicted / self._us[i] - 1.0)
        return errors

    @staticmethod
    def _predict(
        costs: npt.NDArray[np.float64],
        place: npt.NDArray[np.float64],
        fit: _Fit,
        places: npt.NDArray[np.float64],
    ) -> float:
        squares = np.square(places - place).sum(axis=1)
        weights = 1.0 / (squares + 1e-3) ** 2
        # Far from every point the law alone counts.
        deviation = (weights @ fit.deviations) / (weights.sum() + 1.0 / (_NEAR**2) ** 2 * 0.25)
        return float(costs @ fit.factors * math.exp(deviation))


def _non_negative(matrix: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Solve ``min |matrix @ x - wanted|`` for x >= 0, by trying which of its few entries are zero."""
    count = matrix.shape[1]
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    scaled = matrix / scale
    gram, right = scaled.T @ scaled, scaled.T @ wanted
    best, best_loss = np.zeros(count), 0.0
    for size in range(1, count + 1):
        subsets = np.array(list(itertools.combinations(range(count), size)))
        blocks = gram[subsets[:, :, None], subsets[:, None, :]]
        wants = right[subsets]
        solutions = np.linalg.solve(blocks + 1e-9 * np.eye(size), wants[:, :, None])[:, :, 0]
        losses = np.einsum("si,sij,sj->s", solutions, blocks, solutions) - 2 * (wants * solutions).sum(axis=1)
        losses[(solutions < 0).any(axis=1)] = np.inf
        least = int(losses.argmin())
        if losses[least] < best_loss:
            best_loss, best = float(losses[least]), np.zeros(count)
            best[subsets[least]] = solutions[least]
    return best / scale
