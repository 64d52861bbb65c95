"""The device and the network that tests of plans have: latencies by a formula, so that no test measures time."""

import functools

from keras_prune import mapping
from keras_prune.mapping import LatencyTable, Point, measure
from keras_prune.mapping.measure import usual_points


def microseconds(point: Point) -> float:
    """Addresses cost as much as three multiply-adds, patterns and rows are slow."""
    layer = point.layer
    rows = {"dense": 16, "pattern:8": 1}.get(point.scheme) or int(point.scheme.split(":")[1].split("x")[0])
    kept = (1 - point.zeros) * layer.macs
    moved = layer.height * layer.width * layer.channels + layer.pixels * layer.filters
    slow = 1.5 if point.scheme.startswith("block_row_column") else 1.0
    return slow * (0.5 + kept / 4e4 + 3 * kept / rows / 4e4 + moved / 1e5)


@functools.cache
def library_version() -> str:
    try:
        return measure.library_version()
    except FileNotFoundError:
        return "unknown"


def analytic_table(points=None, **arguments) -> LatencyTable:
    points = usual_points() if points is None else points
    arguments = {"cpu": mapping.cpu_name(), "version": library_version(), **arguments}
    return LatencyTable({point: microseconds(point) for point in points}, **arguments)


def mapped_network():
    """A small network with a layer of each type."""
    import keras

    keras.utils.set_random_seed(5)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([16, 16, 3]),
            layers.Conv2D(16, 3, padding="same", name="stem"),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.Conv2D(32, 1, name="one"),
            layers.Conv2D(32, 3, padding="same", strides=2, name="three"),
            layers.Conv2D(48, 1, name="wide"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(64, name="hidden"),
            layers.Dense(4, name="classifier"),
        ],
        name="network",
    )
