"""Plans by an analytic latency table: no test measures time."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from latency_tables import analytic_table, microseconds

from keras_prune import cli, mapping
from keras_prune.mapping import LatencyTable, Layer, Point, rules
from keras_prune.mapping.measure import measure, one_layer, points_of, usual_points
from keras_prune.mapping.options import RATES
from keras_prune.mapping.plan import Plan, Target, plan
from keras_prune.mapping.scaled import Scaled
from keras_prune.mapping.sensitivity import interpolate, lost_energy
from keras_prune.mapping.solver import solve
from keras_prune.mapping.table import _non_negative
from keras_prune.mapping.workload import parse_scheme, scheme_text, uses
from keras_prune.methods import Admm
from keras_prune.structures import STRUCTURES, AlignedBlock, UnalignedBlock
from keras_prune.tflite import inspect


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return analytic_table()


@pytest.fixture
def network():
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


# Solver


def brute_force(costs, losses, budget):
    best = None
    for choice in itertools.product(*(range(len(own)) for own in costs)):
        cost = sum(own[i] for own, i in zip(costs, choice, strict=True))
        loss = sum(own[i] for own, i in zip(losses, choice, strict=True))
        if cost <= budget and (best is None or loss < best):
            best = loss
    return best


@pytest.mark.parametrize("seed", range(40))
def test_solver_finds_the_optimum(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, rng.integers(1, 6))
    costs = [rng.integers(1, 20, size).tolist() if seed % 2 else rng.uniform(0, 9, size).tolist() for size in sizes]
    losses = [rng.uniform(0, 1, size).tolist() for size in sizes]
    budget = float(rng.uniform(0.6, 1.2) * sum(np.mean(own) for own in costs))
    wanted, found = brute_force(costs, losses, budget), solve(costs, losses, budget)
    if wanted is None:
        assert found is None
        return
    assert sum(own[i] for own, i in zip(costs, found, strict=True)) <= budget * (1 + 1e-9)
    assert sum(own[i] for own, i in zip(losses, found, strict=True)) == pytest.approx(wanted, abs=1e-12)


def test_solver_on_many_layers_stays_near_the_bound():
    rng = np.random.default_rng(0)
    zeros = np.array([0.0, *RATES])
    sizes = rng.uniform(0.1, 3.0, 80)
    costs = (sizes[:, None] * (1 - zeros)).tolist()
    losses = (rng.uniform(0.1, 1, 80)[:, None] * zeros**3).tolist()
    budget = 0.3 * sizes.sum()
    found = solve(costs, losses, budget)
    assert sum(own[i] for own, i in zip(costs, found, strict=True)) <= budget
    # The Lagrangian dual bounds the least loss from below.
    bound = max(
        sum(
            min(loss + price * cost for cost, loss in zip(*own, strict=True)) for own in zip(costs, losses, strict=True)
        )
        - price * budget
        for price in np.geomspace(1e-3, 10, 400)
    )
    assert sum(own[i] for own, i in zip(losses, found, strict=True)) <= 1.01 * bound


def test_solver_with_layers_that_have_no_choice():
    assert solve([[2.0], [3.0]], [[0.0], [0.0]], 5.0) == [0, 0]
    assert solve([[2.0], [3.0]], [[0.0], [0.0]], 4.9) is None


# Table


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


@pytest.mark.parametrize("name", sorted(set(STRUCTURES) - {"unstructured"}))
def test_every_structure_has_a_scheme(name):
    structure = STRUCTURES[name]()
    assert parse_scheme(scheme_text(structure)) == structure
    assert scheme_text(None) == "dense" and parse_scheme("dense") is None


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


def test_table_of_the_tool_on_a_phone():
    text = """{"version": 1, "cpu": "neon", "threads": 2, "layers": [
      {"layer": "conv 5x4x6 10 1x1 1 unaligned_block:4 0.8", "zeros": 0.8, "median_us": 1.5, "min_us": 1.4, "runs": 9},
      {"layer": "depthwise 6x5x8 3x3 2", "zeros": 0.0, "median_us": 2.5, "min_us": 1.4, "runs": 9}]}"""
    table = LatencyTable.from_json(text, cpu="a phone")
    assert (table.cpu, table.threads) == ("a phone", 2)
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


# Rules


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


# Sensitivity


def test_lost_energy():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(32, 48)).astype(np.float32)
    mask = AlignedBlock(4).mask(matrix, 0.75)
    assert lost_energy(matrix, (1, 1), AlignedBlock(4), 0.75) == pytest.approx(
        1 - (matrix[mask] ** 2).sum() / (matrix**2).sum(), rel=1e-5
    )
    by_rate = [lost_energy(matrix, (1, 1), UnalignedBlock(4), zeros) for zeros in RATES]
    assert by_rate == sorted(by_rate) and 0 < by_rate[0] < by_rate[-1] < 1
    assert lost_energy(np.zeros((8, 8), np.float32), (1, 1), UnalignedBlock(4), 0.5) == 0.0
    # Of a large matrix a part stands for the whole.
    large = rng.normal(size=(300, 9 * 70)).astype(np.float32)
    energy = np.square(large)[AlignedBlock(4).mask(large, 0.8)].sum() / np.square(large).sum()
    assert lost_energy(large, (3, 3), AlignedBlock(4), 0.8) == pytest.approx(1 - energy, abs=0.05)


def test_measured_losses_are_interpolated():
    by_rate = {0.5: 0.01, 0.8: 0.0, 0.9: 0.2}
    assert [interpolate(by_rate, z) for z in (0.0, 0.25, 0.5, 0.8, 0.85, 0.9)] == pytest.approx(
        [0.0, 0.005, 0.01, 0.01, 0.105, 0.2]
    )
    assert interpolate(by_rate, 0.95) == pytest.approx(0.6)


def test_scan_restores_the_weights_and_keeps_results(network, tmp_path):
    before = network.get_weights()
    asked = []

    def evaluate(model):
        asked.append(model)
        return float(np.mean(model.get_layer("one").get_weights()[0] != 0))

    lost = mapping.scan(network, evaluate, rates=(0.5, 0.75), path=tmp_path / "scan.json", layers=["one", "hidden"])
    assert lost == {"one": {0.5: pytest.approx(0.5), 0.75: pytest.approx(0.75)}, "hidden": {0.5: 0.0, 0.75: 0.0}}
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    count = len(asked)
    assert mapping.scan(network, evaluate, None, (0.5, 0.75), tmp_path / "scan.json", ["one", "hidden"]) == lost
    assert len(asked) == count
    network.get_layer("one").kernel.assign(2 * network.get_layer("one").kernel)
    mapping.scan(network, evaluate, None, (0.5, 0.75), tmp_path / "scan.json", ["one", "hidden"])
    assert len(asked) > count


# Plan


def test_what_a_network_computes(network):
    assert [(use.path, str(use.layer)) for use in uses(network)] == [
        ("stem", "conv 16x16x3 16 3x3 1"),
        ("depthwise", "depthwise 16x16x16 3x3 1"),
        ("one", "conv 16x16x16 32 1x1 1"),
        ("three", "conv 16x16x32 32 3x3 2"),
        ("wide", "conv 8x8x32 48 1x1 1"),
        ("mean", "mean 8x8x48"),
        ("hidden", "dense 48 64"),
        ("classifier", "dense 64 4"),
    ]


def test_multiply_adds_of_mobilenet():
    import keras

    model = keras.applications.MobileNet(weights=None)
    # Howard et al., arXiv:1704.04861, table 4: 569 million.
    assert sum(use.layer.macs for use in uses(model) if use.weight) / 1e6 == pytest.approx(569, abs=1)


def test_nested_models_and_separable_layers():
    import keras

    inner = keras.Sequential(
        [keras.Input([8, 8, 4]), keras.layers.SeparableConv2D(8, 3, padding="same", name="s")], name="in"
    )
    image = keras.Input([8, 8, 4])
    x = inner(image)
    model = keras.Model(image, keras.layers.Add()([x, x]))
    found = [(use.path, use.weight, str(use.layer)) for use in uses(model)]
    assert found[:2] == [
        ("in/s", "", "depthwise 8x8x4 3x3 1"),
        ("in/s", "pointwise_kernel", "conv 8x8x4 8 1x1 1"),
    ]
    assert found[2][2] == "add 8x8x8"


@pytest.mark.parametrize("target", ["1.0x", "1.5x", "2.0x", "2.5x"])
def test_speed_up_is_met_with_the_least_loss(network, table, target):
    made = plan(network, target, table)
    assert made.dense_ms / made.predicted_ms >= float(target[:-1]) * (1 - 1e-9)
    dense = {use.path: table.predict(Point(use.layer)) / 1e3 for use in uses(network)}
    assert made.dense_ms == pytest.approx(sum(dense.values()))
    for layer in made.layers:
        point = Point(Layer.parse(layer.sizes[0]), layer.scheme, layer.zeros)
        assert layer.ms == pytest.approx(table.predict(point) / 1e3)
        assert (layer.zeros == 0) == (layer.scheme == "dense")
    assert {"stem", "depthwise", "classifier"}.isdisjoint(layer.path for layer in made.pruned)
    if target == "1.0x":
        assert not made.pruned and sum(layer.loss for layer in made.layers) == 0
    # More is asked, more is lost.
    assert sum(layer.loss for layer in made.layers) <= sum(layer.loss for layer in plan(network, "2.6x", table).layers)


def test_latency_and_zeros_as_targets(network, table):
    dense = plan(network, "1x", table).dense_ms
    made = plan(network, f"{dense / 2:.6f}ms", table)
    assert made.predicted_ms <= dense / 2
    for target in (0.8, "80%", "0.8"):
        made = plan(network, target, table)
        prunable = [layer for layer in made.layers if layer.path in ("one", "three", "wide", "hidden")]
        entries = sum(layer.entries for layer in prunable)
        assert sum(layer.zeros * layer.entries for layer in prunable) / entries >= 0.8 - 1e-6


def test_target_that_cannot_be_met_says_how_far_one_gets(network, table):
    with pytest.raises(
        ValueError, match=r"the target 50x cannot be met: with at most 95% zeros in a layer one gets"
    ) as e:
        plan(network, "50x", table)
    reach = str(e.value).split("one gets ")[1].split("x")[0]
    assert plan(network, f"{float(reach) - 0.01}x", table).pruned
    with pytest.raises(ValueError, match=r"with at most 60% zeros in a layer one gets 60.0% zeros"):
        plan(network, 0.9, table, max_zeros=0.6)


@pytest.mark.parametrize("target", ["fast", "0.5x", "-1ms", "0ms", 1.0, 2.0, "120%", None, "", "nanms"])
def test_target_that_is_none(target):
    with pytest.raises(ValueError, match="is not understood: give a speed-up"):
        Target.parse(target)


@pytest.mark.parametrize(
    "arguments", [{"method": "luck"}, {"data": "big"}, {"beta": -1.0}, {"beta": math.nan}, {"max_zeros": 1.0}]
)
def test_arguments_are_checked(network, table, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        plan(network, "2x", table, **arguments)


def test_tables_of_other_devices_are_refused(network, monkeypatch):
    with pytest.raises(ValueError, match=r"for the CPU 'a phone', not '.*with force"):
        plan(network, "2x", analytic_table(cpu="a phone"))
    monkeypatch.setattr(mapping.measure, "library_version", lambda: "0.1.0")
    with pytest.raises(ValueError, match=r"for the library version '9.9', not '0.1.0'"):
        plan(network, "2x", analytic_table(version="9.9"))
    assert plan(network, "2x", analytic_table(cpu="a phone", version="9.9"), force=True).cpu == "a phone"


def test_layers_without_entries_are_named(network):
    points = [point for point in usual_points() if point.layer.kind != "dense" and point.layer.kind != "mean"]
    with pytest.raises(ValueError, match="no entry like classifier, hidden: measure them"):
        plan(network, "2x", analytic_table(points))
    points = [point for point in usual_points() if point.layer.kind != "mean"]
    made = plan(network, "1.5x", analytic_table(points))
    assert made.uncounted == ("mean",) and "nothing like them: mean" in made.report()


def test_no_table_yet(network, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="measure one by keras-prune latency-table"):
        plan(network, "2x")


def test_measured_sensitivity_decides(network, table):
    paths = ("one", "three", "wide", "hidden")
    for spared in ("one", "three"):
        lost = {path: {0.5: 0.5 if path == spared else 0.0, 0.95: 0.9 if path == spared else 0.0} for path in paths}
        made = {layer.path: layer for layer in plan(network, "1.1x", table, sensitivity=lost).layers}
        assert made[spared].zeros == 0


def test_plan_is_deterministic_and_kept(network, table):
    made = plan(network, "2x", table)
    assert plan(network, "2x", analytic_table()) == made
    back = Plan.from_json(made.to_json())
    assert back == made and back.report() == made.report()
    report = made.report()
    assert all(layer.path in report and layer.reasons[0] in report for layer in made.layers)
    for text in ("", "[]", "{}", '{"format": 1, "layers": [{}]}'):
        with pytest.raises(ValueError, match="not a plan"):
            Plan.from_json(text)
    with pytest.raises(ValueError, match="another format version"):
        Plan.from_json(json.dumps({**json.loads(made.to_json()), "format": 99}))


@pytest.mark.parametrize("method", [None, Admm()], ids=["magnitude", "admm"])
def test_callback_prunes_each_layer_to_its_own_zeros(network, table, method):
    made = Plan.from_json(plan(network, "2x", table).to_json())
    assert len({layer.zeros for layer in made.pruned}) > 1
    network.compile("sgd", "mse")
    prune = made.callback(end_step=4, frequency=2, method=method)
    rng = np.random.default_rng(0)
    network.fit(rng.normal(size=(12, 16, 16, 3)), rng.normal(size=(12, 4)), 2, callbacks=[prune], verbose=0)
    for layer in made.layers:
        kernel = network.get_layer(layer.path).get_weights()[0]
        found = float(np.mean(kernel == 0))
        assert found == pytest.approx(layer.zeros, abs=64 / kernel.size) and found >= layer.zeros - 1e-6


def test_sparsify_by_a_plan(network, table):
    made = plan(network, 0.7, table)
    assert made.sparsify(network).zeros == pytest.approx(made.zeros, abs=0.02)


def test_dense_plans_prune_nothing(network, table):
    with pytest.raises(ValueError, match="leaves all layers dense"):
        plan(network, "1x", table).callback(10)


def test_scaled_structure():
    matrix = np.random.default_rng(0).normal(size=(16, 9 * 8)).astype(np.float32)
    for scheme in ("unaligned_block:4", "block_punched:8x4", "pattern:8"):
        inner, scaled = parse_scheme(scheme), Scaled(scheme, 1.25)
        assert np.array_equal(scaled.mask(matrix, 0.64, (3, 3)), inner.mask(matrix, 0.8, (3, 3)))
        assert scaled.mask(matrix, 0.9, (3, 3)).sum() <= 0.01 * matrix.size + 8  # never all of it at once
        prepared = scaled.prepare([matrix], [(3, 3)])
        assert np.array_equal(prepared.mask(matrix, 0.64, (3, 3)), inner.mask(matrix, 0.8, (3, 3)))
        for part, own in zip(prepared.parts((3, 3)), inner.parts((3, 3)), strict=True):
            assert np.array_equal(part.mask(matrix, 0.64, (3, 3)), own.mask(matrix, 0.8, (3, 3)))
        assert scaled.groups((3, 3)) == inner.groups((3, 3))
        assert scaled.obstacle(3, 8, (1, 1)) == inner.obstacle(3, 8, (1, 1))
    for arguments in (("dense", 1.0), ("unaligned_block:4", 0.0), ("unaligned_block:4", math.nan)):
        with pytest.raises(ValueError, match=r"scale|share"):
            Scaled(*arguments)


# Measuring: that it runs, not how long it takes


def test_usual_points_are_all_different_and_can_be_made():
    points = usual_points()
    assert len(set(points)) == len(points)
    for point in points_of(Layer("conv", 4, 4, 16, 32, (3, 3), 2), 1) + points_of(Layer("dense", 1, 1, 64, 32)):
        measured, *_ = [info for info in inspect(one_layer(point)) if info.rows == 32]
        if point.scheme == "dense":
            assert measured.structure is None
        else:
            assert measured.structure == point.scheme.split(":")[0]
            assert measured.zeros == pytest.approx(point.zeros, abs=0.03)


@pytest.mark.parametrize(
    "text",
    ["conv 6x5x8 16 3x3 2 unaligned_block:4 0.8", "conv 6x6x3 16 3x3 2 dense 0", "conv 6x6x16 16 1x1 1 dense 0",
     "dense 32 16 block_row_column:8x32 0.5", "depthwise 6x5x8 3x3 2", "add 4x4x8", "max_pool 6x6x8 3x3 2",
     "mean 4x4x8"],
)  # fmt: skip
def test_delegate_runs_each_kind_of_layer(text):
    assert 0 < measure(Point.parse(text), seconds=0.0) < 1e6


def test_measuring_goes_on_where_it_was(tmp_path):
    points = points_of(Layer("conv", 4, 4, 8, 8))
    path, asked = tmp_path / "table.json", []

    def interrupt(done, wanted, point):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapping.measure_table(points, path, seconds=0.0, progress=interrupt)
    first = LatencyTable.load(path)
    assert list(first.entries) == points[:2] and first.cpu == mapping.cpu_name()
    table = mapping.measure_table(points, path, seconds=0.0, progress=lambda *args: asked.append(args))
    assert list(table.entries) == points and [args[:2] for args in asked] == [
        (i, len(points)) for i in range(len(points))
    ]
    assert {point: table.entries[point] for point in points[:2]} == first.entries
    with pytest.raises(ValueError, match="with 1 threads, not 2"):
        mapping.measure_table(points, path, threads=2, seconds=0.0)


# Command line


def test_plan_on_the_command_line(network, tmp_path, capsys):
    table, model, out = tmp_path / "table.json", tmp_path / "model.keras", tmp_path / "plan.json"
    analytic_table().save(table)
    network.save(model)
    words = ["plan", str(model), "--target", "2x", "--table", str(table), "--force", "-o", str(out)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert Plan.from_json(out.read_text()) == plan(network, "2x", LatencyTable.load(table), force=True)
    assert cli.main(["plan", "--explain", str(out)]) == 0
    assert capsys.readouterr().out == said
    assert cli.main([*words[:3], "99x", *words[4:]]) == 1
    assert "cannot be met" in capsys.readouterr().err
    assert cli.main(["plan"]) == 2
    assert cli.main(["plan", str(tmp_path / "none.keras"), "--target", "2x"]) == 1
    assert cli.main(["plan", "--explain", str(model)]) == 1


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
