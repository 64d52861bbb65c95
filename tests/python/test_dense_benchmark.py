"""The benchmark of layers that stay dense: its networks, its page, and that it runs; no test measures time."""

import json

import numpy as np
import pytest

from benchmarks import dense
from keras_prune.mapping import Layer


@pytest.mark.parametrize("text", dense.LAYERS)
def test_layers_can_stand_in_a_row(text):
    layer = Layer.parse(text)
    assert layer.filters == layer.channels and layer.stride == 1


@pytest.mark.parametrize(("text", "weights"), [("conv 5x5x8 8 3x3 1", 8 * 8 * 9), ("dense 16 16", 16 * 16)])
def test_only_the_last_layer_is_pruned(text, weights):
    model = dense.build(Layer.parse(text), repeats=3)
    kernels = [layer.get_weights()[0] for layer in model.layers]
    assert [kernel.size for kernel in kernels[1:-1]] == [weights] * 3
    assert all(np.all(kernel != 0) for kernel in kernels[:-1])
    assert np.mean(kernels[-1] == 0) == pytest.approx(0.75)


@pytest.mark.parametrize("text", ["conv 28x28x64 64 3x3 1", "dense 1024 1024"])  # such that take some time
def test_layers_are_timed(library, text):
    row = dense.measure(Layer.parse(text), seconds=0.0)
    assert row["layer"] == text and row["runs"] > 0
    assert row["ratio"] == pytest.approx(row["xnnpack_us"] / row["delegate_us"], abs=0.01, rel=0.01)
    json.dumps(row)


def test_page(tmp_path):
    row = {"threads": 1, "xnnpack_us": 9.0, "delegate_us": 10.0, "target": 0.9, "runs": 1}
    rows = [{**row, "layer": "a", "ratio": 0.9}, {**row, "layer": "b", "ratio": 0.8999}]
    (tmp_path / "dense.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- dense: begin (python -m benchmarks.dense --table) -->\nold\n<!-- dense: end -->\nb\n")
    dense.write_page(tmp_path, page)
    text = page.read_text()
    assert "| a | 9.0 | 10.0 | 0.900 | 0.9 met |\n" in text and "0.9 missed |\n" in text and "old" not in text
