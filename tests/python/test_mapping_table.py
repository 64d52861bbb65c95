"""Latency tables: what they hold, what follows for other sizes, and their files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from latency_tables import analytic_table, microseconds

from keras_prune import cli
from keras_prune.mapping import LatencyTable, Layer, Point
from keras_prune.mapping.measure import usual_points
from keras_prune.mapping.table import _non_negative


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return analytic_table()


@pytest.mark.parametrize("point", [usual_points()[i] for i in range(0, len(usual_points()), 13)], ids=str)
def test_points_are_read_as_they_are_written(point):
    assert Point.parse(str(point)) == point


@pytest.mark.parametrize(
    "text",
    ["conv 1x1x1 1 1x1 1", "conv 1x1x1 1 dense 0", "dense 4 dense 0", "pool 2x2x2", "conv 1x1x8 8 1x1 1 block:4 0.5",
     "conv 1x1x8 8 1x1 1 block_punched:4 0.5", "conv 1x1x8 8 1x1 1 unaligned_block:4 most"],
)  # fmt: skip
def test_other_texts_are_no_points(text):
    with pytest.raises(ValueError, match=r"is no|sizes"):
        Point.parse(text)


def test_sizes_that_were_not_measured_follow_the_law(table):
    for layer in (
        Layer("conv", 20, 20, 96, 200),
        Layer("dense", 1, 1, 700, 300),
        Layer("conv", 30, 30, 48, 80, (3, 3)),
    ):
        for scheme, zeros in (("dense", 0.0), ("unaligned_block:4", 0.7), ("unaligned_block:8", 0.88)):
            point = Point(layer, scheme, zeros)
            assert table.predict(point) == pytest.approx(microseconds(point), rel=0.03)
    measured = next(iter(table.entries))
    assert table.predict(measured) == table.entries[measured]


def test_error_is_of_points_left_out():
    families = (("conv1x1", "dense"), ("conv1x1", "block_punched"), ("depthwise", "dense"))
    table = analytic_table([point for point in usual_points() if point.family in families])
    errors = table.errors()
    assert set(errors) == set(families) and errors["conv1x1", "block_punched"].points > 20
    assert all(error.median < 0.02 and error.median <= error.worst_tenth for error in errors.values())
    # A point that is off shows, and the measurement itself is believed.
    odd = Point(Layer("conv", 14, 14, 256, 256))
    spoiled = LatencyTable({**table.entries, odd: 3 * table.entries[odd]}, "a CPU", "0.1.0")
    assert spoiled.errors()["conv1x1", "dense"].worst_tenth > errors["conv1x1", "dense"].worst_tenth
    assert spoiled.predict(odd) == 3 * table.entries[odd]


@pytest.mark.parametrize("seed", range(10))
def test_fit_meets_the_conditions_of_an_optimum(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(0, 1, (30, 5)) * np.array([1e-3, 1, 1e4, 1, 10])
    x = _non_negative(matrix, np.ones(30))
    gradient = (matrix.T @ (matrix @ x - 1)) / np.abs(matrix).max(axis=0)
    assert (x >= 0).all() and (gradient > -1e-4).all()
    assert np.abs(gradient[x > 0]).max() < 1e-4


def test_table_file(tmp_path, table):
    table.save(tmp_path / "deep" / "table.json")
    back = LatencyTable.load(tmp_path / "deep" / "table.json")
    assert back.entries == table.entries
    assert (back.cpu, back.version, back.threads) == (table.cpu, table.version, table.threads)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table.json"]


def test_yardsticks_are_kept_and_two_or_none(tmp_path, table):
    assert not table.yardsticks and "yardsticks" not in json.loads(table.to_json())
    yardsticks = {"conv 28x28x32 32 3x3 1 dense 0": 160.5, "add 56x56x64": 440.25}
    LatencyTable(table.entries, "a CPU", "0.1.0", yardsticks=yardsticks).save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json").yardsticks == yardsticks
    with pytest.raises(ValueError, match="two yardsticks or none, but this has 1"):
        LatencyTable(table.entries, "a CPU", "0.1.0", yardsticks={"add 56x56x64": 1.0})
    with pytest.raises(ValueError, match="positive microseconds, but are not for 'add 56x56x64'"):
        LatencyTable(table.entries, "a CPU", "0.1.0", yardsticks={**yardsticks, "add 56x56x64": 0.0})
    for bad in ("3", "[1]", '{"add 4x4x4": null, "add 8x8x8": 1}', '{"a": 1, "b": 2}'):
        with pytest.raises(ValueError, match=r"not a latency table|is no layer"):
            LatencyTable.from_json(table.to_json().replace('"threads"', f'"yardsticks": {bad}, "threads"'))


def test_table_of_the_tool_on_a_phone():
    text = """{"version": 1, "library": "0.1.0+89abcdef", "cpu": "neon", "threads": 2, "layers": [
      {"layer": "conv 5x4x6 10 1x1 1 unaligned_block:4 0.8", "zeros": 0.8, "median_us": 1.5, "min_us": 1.4, "runs": 9},
      {"layer": "depthwise 6x5x8 3x3 2", "zeros": 0.0, "median_us": 2.5, "min_us": 1.4, "runs": 9}]}"""
    table = LatencyTable.from_json(text, cpu="a phone")
    assert (table.cpu, table.version, table.threads) == ("a phone", "0.1.0+89abcdef", 2)
    assert LatencyTable.from_json(text.replace('"library": "0.1.0+89abcdef", ', "")).version == "unknown"
    assert table.entries == {
        Point(Layer("conv", 5, 4, 6, 10), "unaligned_block:4", 0.8): 1.5,
        Point(Layer("depthwise", 6, 5, 8, 8, (3, 3), 2)): 2.5,
    }


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": [], "threads": null}', '{"layers": 3}'])
def test_other_json_is_no_table(text):
    with pytest.raises(ValueError, match="not a latency table"):
        LatencyTable.from_json(text)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_latencies_are_positive(bad):
    with pytest.raises(ValueError, match="must be positive microseconds, but are not for 'dense 8 8 dense 0'"):
        LatencyTable({Point(Layer("dense", 1, 1, 8, 8)): bad}, "a CPU", "0.1.0")


def test_phone_table_on_the_command_line(tmp_path, capsys):
    assert cli.main(["latency-table", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "conv 14x14x256 256 1x1 1 dense 0" in lines and not any(line.startswith(("add", "mean")) for line in lines)
    rows = [{"layer": line, "median_us": microseconds(Point.parse(line)) if line[0] != "d" else 9.0} for line in lines]
    phone, out = tmp_path / "phone.json", tmp_path / "table.json"
    phone.write_text(json.dumps({"version": 1, "cpu": "neon", "threads": 4, "layers": rows}))
    assert cli.main(["latency-table", "--from", str(phone), "--cpu", "a phone", "-o", str(out)]) == 0
    table = LatencyTable.load(out)
    assert (table.cpu, table.threads, len(table.entries)) == ("a phone", 4, len(lines))
