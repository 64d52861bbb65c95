"""How much a layer suffers from zeros: by its weights' magnitudes, or measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_prune import files
from keras_prune.pruning import Pruner
from keras_prune.structures import Structure, UnalignedBlock
from keras_prune.structures.base import Kernel, per_kernel

Sensitivity = Mapping[str, Mapping[float, float]]
"""Of each layer, by its path: the loss of accuracy at each fraction of zeros."""

_SAMPLE_ROWS, _SAMPLE_COLUMNS = 64, 64
RATES = (0.5, 0.8, 0.9)


def lost_energy(matrix: npt.NDArray[np.float32], kernel: Kernel, structure: Structure, zeros: float) -> float:
    """Return the part of a layer's energy (sum of squares) that is lost with the smallest weights.

    For inputs of no particular direction it is the relative error of the layer's output. It is taken from the middle of
    the matrix, up to 64 rows and 64 columns, or eight channels where those are more.

    Args:
        matrix: weights ``[rows, columns]``.
        kernel: spatial size of the kernel.
        structure: where zeros may be.
        zeros: fraction of zeros, in [0, 1).
    """
    cube = per_kernel(matrix, kernel)
    channels = max(_SAMPLE_COLUMNS // cube.shape[1], 8)
    rows, columns = (_middle(n, most) for n, most in ((cube.shape[0], _SAMPLE_ROWS), (cube.shape[2], channels)))
    part = cube[rows, :, columns].reshape(rows.stop - rows.start, -1)
    if isinstance(structure, UnalignedBlock):
        structure = dataclasses.replace(structure, selection="greedy")  # nearly the same, and much quicker
    energy = np.square(part, dtype=np.float64)
    total = float(energy.sum())
    if total == 0.0:
        return 0.0
    return 1.0 - float(energy[structure.mask(part, zeros, kernel)].sum()) / total


def _middle(size: int, most: int) -> slice:
    most = min(size, most)
    start = (size - most) // 2 // 16 * 16
    return slice(start, start + most)


def scan(
    model: Any,
    evaluate: Callable[[Any], float],
    structure: Structure | None = None,
    rates: Sequence[float] = RATES,
    path: str | os.PathLike[str] | None = None,
    layers: Any = None,
    exclude: Any = None,
) -> dict[str, dict[float, float]]:
    """Measure how much accuracy each layer's zeros cost, one layer and rate at a time, without training.

    Args:
        model: a built Keras model; its weights are as before afterwards.
        evaluate: returns the accuracy of the model as it is; a few hundred samples do.
        structure: that the zeros have, ``UnalignedBlock(4)`` by default.
        rates: fractions of zeros.
        path: JSON file to keep the results in, written after each; what it has of the same weights is not done again.
        layers: which layers, see :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave out.

    Returns:
        The loss of accuracy of each layer at each rate, for ``plan(..., sensitivity=...)``.

    Raises:
        ValueError: no layer can be pruned.

    Example:
        >>> import keras, numpy as np
        >>> from keras_prune import mapping
        >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(2)])
        >>> x = np.random.default_rng(0).normal(size=[32, 8])
        >>> y = model.predict(x, verbose=0)
        >>> lost = mapping.scan(model, lambda model: -np.square(model.predict(x, verbose=0) - y).mean())
        >>> lost["hidden"][0.9] > lost["hidden"][0.5] > 0
        True
    """
    pruner = Pruner(model, structure or UnalignedBlock(4), layers, exclude)
    key = _digest(pruner, rates)
    found: dict[str, dict[float, float]] = {}
    if path is not None and Path(path).exists():
        kept = json.loads(Path(path).read_text())
        if kept.get("key") == key:
            found = {layer: {float(z): loss for z, loss in by.items()} for layer, by in kept["layers"].items()}
    missing = [(t, z) for t in pruner.targets for z in rates if z not in found.get(t.path, {})]
    dense = float(evaluate(model)) if missing else 0.0
    for target, zeros in missing:
        weights = target.values()
        try:
            matrix = target.view.to_matrix(weights)
            mask = target.view.from_matrix(target.structure.mask(matrix, zeros, target.kernel), target.shape)
            target.variable.assign(np.where(mask, weights, 0))
            found.setdefault(target.path, {})[zeros] = dense - float(evaluate(model))
        finally:
            target.variable.assign(weights)
        if path is not None:
            files.write(path, json.dumps({"key": key, "layers": found}, indent=1))
    return found


def interpolate(by_rate: Mapping[float, float], zeros: float) -> float:
    """Loss at a fraction of zeros: linear between those measured, never falling, and none without zeros."""
    rates = sorted(by_rate)
    losses = np.maximum.accumulate([0.0, *(by_rate[rate] for rate in rates)])
    if rates and zeros > rates[-1]:
        # Beyond the last, as far towards 1 as the last is; no accuracy is left at all there.
        last = float(losses[-1])
        return last + (1.0 - last) * (zeros - rates[-1]) / (1.0 - rates[-1])
    return float(np.interp(zeros, [0.0, *rates], losses))


def _digest(pruner: Pruner, rates: Sequence[float]) -> str:
    digest = hashlib.sha256(repr([t.structure for t in pruner.targets]).encode() + repr(list(rates)).encode())
    for target in pruner.targets:
        digest.update(target.path.encode())
        digest.update(np.ascontiguousarray(target.values()).tobytes())
    return digest.hexdigest()
