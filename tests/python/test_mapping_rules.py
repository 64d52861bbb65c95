"""Which structure and block the rules give a layer."""

from __future__ import annotations

import pytest
from latency_tables import analytic_table, microseconds

from keras_prune.mapping import LatencyTable, Layer, Point, rules
from keras_prune.mapping.measure import usual_points


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return analytic_table()


@pytest.mark.parametrize(
    ("layer", "data", "structure"),
    [
        (Layer("depthwise", 14, 14, 64, 64, (3, 3)), "hard", "dense"),
        (Layer("conv", 14, 14, 64, 64), "hard", "unaligned_block"),
        (Layer("conv", 14, 14, 64, 64, (5, 5)), "hard", "unaligned_block"),
        # Here patterns and rows are slower, and punched blocks of 8 or 16 filters faster, than unaligned blocks of 4.
        (Layer("conv", 14, 14, 64, 64, (3, 3)), "hard", "unaligned_block"),
        (Layer("conv", 14, 14, 64, 64, (3, 3)), "easy", "block_punched"),
        (Layer("dense", 1, 1, 512, 512), "hard", "unaligned_block"),
    ],
)
def test_structures_by_rule(table, layer, data, structure):
    choice = rules.choose(layer, 0.8, rules.Given(table, data))
    assert choice.scheme.split(":")[0] == structure
    assert all(choice.reasons)


def test_pattern_where_it_is_faster():
    points = [p for p in usual_points() if p.family in (("conv3x3", "dense"), ("conv3x3", "unaligned_block"))]
    quick = {
        Point(p.layer, "pattern:8", 0.8): 0.5 * microseconds(Point(p.layer, "unaligned_block:16", 0.8)) for p in points
    }
    table = LatencyTable({**{p: microseconds(p) for p in points}, **quick}, "a CPU", "0.1.0")
    choice = rules.choose(Layer("conv", 28, 28, 64, 64, (3, 3)), 0.8, rules.Given(table))
    assert choice.scheme == "pattern:8"


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.2, 0.5, 3.0])
@pytest.mark.parametrize("zeros", [0.5, 0.8, 0.95])
def test_block_is_the_smallest_near_the_coarsest(table, beta, zeros):
    layer = Layer("conv", 14, 14, 256, 256)
    latencies = {s: table.predict(Point(layer, s, zeros)) for s in rules.BLOCKS["unaligned_block"]}
    limit = min((1 + beta) * latencies["unaligned_block:16"], table.predict(Point(layer)))
    fitting = [s for s, us in latencies.items() if us <= limit]
    choice = rules.choose(layer, zeros, rules.Given(table, beta=beta))
    assert choice.scheme == min(fitting, key=lambda s: int(s.split(":")[1]))


def test_blocks_fit_into_the_layer(table):
    choice = rules.choose(Layer("conv", 14, 14, 64, 6), 0.8, rules.Given(table, beta=0.0))
    assert choice.scheme == "unaligned_block:4"


def test_dense_where_zeros_do_not_pay():
    layer = Layer("conv", 14, 14, 64, 64)
    table = LatencyTable({Point(layer): 1.0, Point(layer, "unaligned_block:4", 0.5): 1.1}, "a CPU", "0.1.0")
    choice = rules.choose(layer, 0.5, rules.Given(table))
    assert choice.scheme == "dense" and "no faster than dense" in choice.reasons[-1]
