"""Measuring single layers: that it runs and what it runs, not how long it takes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from keras_prune import mapping
from keras_prune.mapping import LatencyTable, Layer, Point, measure
from keras_prune.mapping.measure import _batch, library_version, one_layer, points_of, usual_points
from keras_prune.tflite import inspect


def test_usual_points_are_all_different_and_can_be_made():
    points = usual_points()
    assert len(set(points)) == len(points)
    layers = (Layer("conv", 4, 4, 16, 32, (3, 3), 2), Layer("conv", 4, 4, 64, 32), Layer("dense", 1, 1, 64, 32))
    for point in (point for layer in layers for turn in range(4) for point in points_of(layer, turn)):
        measured, *_ = [info for info in inspect(one_layer(point)) if info.rows == 32]
        if point.scheme == "dense":
            assert measured.structure is None
            continue
        structure, block = point.scheme.split(":")
        assert measured.structure == structure
        assert structure == "pattern" or measured.block.replace(" ", "") == block
        assert measured.zeros == pytest.approx(point.zeros, abs=0.03)


def test_delegate_runs_each_kind_of_layer():
    points = [
        Point.parse(text)
        for text in (
            "conv 6x5x8 16 3x3 2 unaligned_block:4 0.8",
            "conv 6x6x3 16 3x3 2 dense 0",
            "conv 6x6x16 16 1x1 1 dense 0",
            "dense 32 16 block_row_column:8x32 0.5",
            "depthwise 6x5x8 3x3 2",
            "add 4x4x8",
            "max_pool 6x6x8 3x3 2",
            "mean 4x4x8",
        )
    ]
    table = mapping.measure_table(points, seconds=0.0)
    assert list(table.entries) == points and all(0 < us < 1e6 for us in table.entries.values())


def test_measuring_goes_on_where_it_was(tmp_path):
    points = points_of(Layer("conv", 4, 4, 8, 8)) + points_of(Layer("conv", 2, 4, 8, 8))
    path, asked = tmp_path / "table.json", []
    assert len(points) > 9

    def interrupt(done, wanted, point):
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapping.measure_table(points, path, seconds=0.0, progress=interrupt)
    first = LatencyTable.load(path)
    assert list(first.entries) == points[:8] and first.cpu == mapping.cpu_name()
    table = mapping.measure_table(points, path, seconds=0.0, progress=lambda *args: asked.append(args))
    assert list(table.entries) == points
    assert asked == [(i, len(points), points[i]) for i in range(8, len(points))]
    assert {point: table.entries[point] for point in points[:8]} == first.entries
    # Both times the same speed of the machine is meant.
    assert len(first.yardsticks) == 2 and table.yardsticks == first.yardsticks == LatencyTable.load(path).yardsticks
    with pytest.raises(ValueError, match="with 1 threads, not 2"):
        mapping.measure_table(points, path, threads=2, seconds=0.0)
    LatencyTable(first.entries, first.cpu, first.version).save(path)
    with pytest.raises(ValueError, match=r"table\.json was measured without yardsticks: .* remove it"):
        mapping.measure_table(points, path, seconds=0.0)


def test_large_layers_are_measured_a_few_at_a_time():
    large, small = Point(Layer("dense", 1, 1, 4096, 4096)), Point(Layer("dense", 1, 1, 64, 64))
    assert _batch([small] * 20) == ([small] * 8, [small] * 12)
    assert _batch([large, large, small]) == ([large], [large, small])
    assert _batch([large, small, small, large]) == ([large, small, small], [large])


def test_versions_tell_kernels_apart(tmp_path):
    version = library_version()
    assert re.fullmatch(r"\d+\.\d+\.\d+\+[0-9a-f]{8}", version)
    points, path = points_of(Layer("conv", 4, 4, 8, 8))[:2], tmp_path / "table.json"
    stale = LatencyTable({points[0]: 1.0}, mapping.cpu_name(), version[:-1] + "x")
    stale.save(path)
    with pytest.raises(ValueError, match=r"table\.json: the latency table is for .* remove it or give another file"):
        mapping.measure_table(points, path, seconds=0.0)
    assert LatencyTable.load(path).entries == stale.entries
    assert mapping.measure_table(points, tmp_path / "new.json", seconds=0.0).version == version


def test_the_call_of_a_model_is_not_its_layers(monkeypatch):
    class Known:  # 60 us a run, of which the layer takes 30, what follows it 10, and the call the rest
        def __init__(self, *arguments, **options):
            pass

        def profile(self):
            return [(30.0, "fully_connected"), (10.0, "fully_connected")]

    runs = (np.full(4, 60e-6), np.full((4, 2), 1e-4))
    monkeypatch.setattr(measure, "Timed", Known)
    monkeypatch.setattr(measure, "reference", lambda *arguments: np.array([1e-4, 1e-4]))
    monkeypatch.setattr(measure, "in_turns", lambda calls, *arguments, **options: [runs] * len(calls))
    points = [Point.parse(f"dense 32 {units} dense 0") for units in (8, 16, 24)]
    assert list(mapping.measure_table(points).entries.values()) == pytest.approx([30.0] * 3)
