"""The best-suited structure, block and zeros for each layer, by latencies measured on the device."""

from keras_prune.mapping.measure import cpu_name, measure_table, points_for
from keras_prune.mapping.plan import Plan, PlannedLayer, plan
from keras_prune.mapping.quick import QuickAccuracy
from keras_prune.mapping.search import Search
from keras_prune.mapping.sensitivity import scan
from keras_prune.mapping.table import Error, LatencyTable, Point
from keras_prune.tflite.layer import Layer

__all__ = [
    "Error",
    "LatencyTable",
    "Layer",
    "Plan",
    "PlannedLayer",
    "Point",
    "QuickAccuracy",
    "Search",
    "cpu_name",
    "measure_table",
    "plan",
    "points_for",
    "scan",
]
