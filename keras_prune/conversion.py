"""Conversion that knows how long layers take on a device."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from keras_prune import tflite

if TYPE_CHECKING:
    from keras_prune.mapping import LatencyTable
    from keras_prune.tflite.layer import Layer
    from keras_prune.tflite.payoff import Latency


# How far below the least share of zeros that a block was measured with its latency is still extrapolated.
_BEYOND = 0.05


def convert(
    model: Any, *, table: LatencyTable | str | os.PathLike[str] | None = None, force: bool = False, **options: Any
) -> bytes:
    """Convert a model to a `.tflite` file whose pruned layers are block-sparse where that makes them faster.

    As :func:`keras_prune.tflite.convert`, which lists all arguments. With a latency table, a layer becomes block-sparse
    if the table predicts it to be faster so, at its zeros and in its structure, than dense in the delegate. Layers of
    sizes that were not measured (``keras-prune latency-table --model`` measures a model's own) are named in a warning;
    they become block-sparse, as all do without a table, by their share of zeros.

    Args:
        model: a built Keras 3 or tf_keras model, or the bytes of a dense `.tflite` file.
        table: latencies measured on the device that the file is for, or the file that keeps them.
        force: take a table of another CPU or library version.
        options: ``sparse``, ``batch_size``, ``min_zeros``, ``structures``, ``input_signature`` and ``configure`` of
            :func:`keras_prune.tflite.convert`.

    Returns:
        The `.tflite` file.

    Raises:
        ValueError: the table is of another CPU or version, or what :func:`keras_prune.tflite.convert` says.
        TypeError: the model is neither a Keras model nor bytes.

    Example:
        >>> import keras, keras_prune
        >>> from keras_prune import mapping
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> _ = keras_prune.sparsify(model, keras_prune.UnalignedBlock(4), 0.5, layers="*")
        >>> layer = mapping.Layer("dense", 1, 1, 64, 32)
        >>> entries = {mapping.Point(layer): 1.0, mapping.Point(layer, "unaligned_block:4", 0.5): 1.2}
        >>> table = mapping.LatencyTable(entries, "another CPU", "0.1.0")
        >>> keras_prune.convert(model, table=table, force=True) == keras_prune.convert(model, sparse=False)
        True
    """
    return tflite.convert(model, latency=None if table is None else measured_latency(table, force), **options)


def measured_latency(table: LatencyTable | str | os.PathLike[str], force: bool = False) -> Latency:
    """Make of a latency table what :func:`keras_prune.tflite.convert` and ``inspect`` ask.

    Raises:
        ValueError: the table is of another CPU or version and ``force`` is not given, or the file is no table.
        OSError: the file cannot be read.
    """
    from keras_prune.mapping.measure import checked_table
    from keras_prune.mapping.table import Point

    known = checked_table(table, force)
    least: dict[tuple[str, str], float] = {}
    for point in known.entries:
        key = (point.layer.family, _block(point.scheme))
        least[key] = min(point.zeros, least.get(key, 1.0))

    def latency(layer: Layer, scheme: str, zeros: float) -> float | None:
        # Two predictions, each off by its own tenths, would say little about which of the two is less.
        if Point(layer) not in known.entries:
            return None
        # Tables need not have aligned blocks: to the kernels they are unaligned ones.
        for name in (scheme, f"un{scheme}") if scheme.startswith("aligned_block") else (scheme,):
            if zeros >= least.get((layer.family, _block(name)), math.inf) - _BEYOND:
                return known.predict(Point(layer, name, zeros))
        return None

    return latency


def _block(scheme: str) -> str:
    """Return what latencies are not carried over between: blocks of one size, or patterns of any number."""
    return "pattern" if scheme.startswith("pattern") else scheme
