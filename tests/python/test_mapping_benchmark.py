"""The benchmark of predictions: what it writes, not how long anything takes."""

from __future__ import annotations

import pytest
from latency_tables import analytic_table, mapped_network

from benchmarks import mapping as benchmark
from keras_prune import mapping

ROW = {
    "model": "a_network",
    "predicted_ms": 1.0,
    "own_layers_ms": 1.2,
    "measured_ms": 1.05,
    "error": -0.0476,
    "own_layers_error": 0.1429,
    "raw_ms": 2.0,
    "speed": [0.5, 0.8],
    "zeros": 0.8,
}


def test_lines_of_the_page():
    *_, line = benchmark.markdown([ROW]).splitlines()
    assert line == "| a_network | 1.00 | 1.20 | 1.05 | -4.8% | +14.3% MISSED | 2.00 | 0.50 0.80 | 80.0% |"


def test_points_of_a_plan_are_all_that_is_counted():
    network, table = mapped_network(), analytic_table()
    plan = mapping.plan(network, "50%", table, force=True)
    points = benchmark.points_in(plan, network)
    assert sum(table.predict(point) for point in points) / 1e3 == pytest.approx(plan.predicted_ms)
