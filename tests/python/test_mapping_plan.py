"""Plans by an analytic latency table: no test measures time."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from latency_tables import analytic_table, library_version, mapped_network

from keras_prune import cli, mapping
from keras_prune.mapping import LatencyTable, Layer, Point
from keras_prune.mapping.measure import usual_points
from keras_prune.mapping.plan import Plan, Target, plan
from keras_prune.mapping.scaled import Scaled
from keras_prune.mapping.workload import parse_scheme, uses
from keras_prune.methods import Admm


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return analytic_table()


@pytest.fixture
def network():
    return mapped_network()


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
    version = library_version()
    monkeypatch.setattr(mapping.measure, "library_version", lambda: version)
    with pytest.raises(ValueError, match=rf"for the library version '9.9', not '{re.escape(version)}'"):
        plan(network, "2x", analytic_table(version="9.9"))
    with pytest.warns(UserWarning, match=r"library version '9.9', not"):
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
