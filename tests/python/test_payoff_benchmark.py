"""The benchmark of where zeros pay: its arithmetic, its page, and that its layers run; no test measures time."""

import json

import pytest

from benchmarks import payoff
from keras_prune.mapping import Layer
from keras_prune.mapping.workload import parse_scheme
from keras_prune.tflite import MIN_ZEROS


@pytest.mark.parametrize(
    ("sparse", "dense", "expected"),
    [
        ([9.0, 8.0, 7.0], 8.5, 0.15),
        ([9.0, 8.2, 7.0], 8.4, 0.1 + (9.0667 - 8.4) / 10),  # a line through what is not quite one
        ([9.0, 8.0, 7.0], 10.0, 0.0),
        ([9.0, 8.0, 7.0], 10.5, 0.0),
        ([9.0, 8.0, 7.0], 0.9, 0.91),
        ([9.0, 8.9, 8.8], 1.0, None),
        ([9.0, 9.5, 10.0], 8.0, None),
    ],
)
def test_break_even(sparse, dense, expected):
    found = payoff.break_even([0.1, 0.2, 0.3], sparse, dense)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-3)


def test_every_layer_can_have_its_blocks():
    for text in payoff.LAYERS:
        layer = Layer.parse(text)
        assert layer.family in payoff.KINDS
        for scheme in payoff.schemes(layer):
            columns = layer.channels * layer.kernel[0] * layer.kernel[1]
            assert parse_scheme(scheme).obstacle(layer.filters, columns, layer.kernel) is None
            assert MIN_ZEROS <= payoff.assumed(layer, scheme) < 1


@pytest.mark.parametrize("case", ["conv 4x4x16 16 1x1 1, unaligned_block:2", "conv 5x4x8 8 3x3 1, pattern:8"])
def test_layers_are_timed(library, case):
    layer, scheme = case.split(", ")
    row = payoff.measure(Layer.parse(layer), scheme, seconds=0.0)
    assert (row["layer"], row["scheme"], row["rows"]) == (layer, scheme, 2 if "block" in scheme else 1)
    assert len(row["sparse_us"]) == len(row["zeros"]) and min(row["dense_us"], *row["sparse_us"]) > 0
    json.dumps(row)


def test_page(tmp_path):
    case = {"kind": "conv1x1", "scheme": "unaligned_block:4", "rows": 4, "assumed": 0.28}
    rows = [{**case, "layer": f"conv {i}", "break_even": share} for i, share in enumerate((0.2, None, 0.0, 0.3, 0.1))]
    rows.append({**case, "kind": "dense", "layer": "dense 8 8", "break_even": 0.4})  # is no convolution
    rows.append({**case, "kind": "conv3x3", "scheme": "pattern:8", "rows": 1, "layer": "conv", "break_even": 0.5})
    (tmp_path / "payoff.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- payoff: begin (python -m benchmarks.payoff --table) -->\nold\n<!-- payoff: end -->\nb\n")
    payoff.write_page(tmp_path, page)
    text = page.read_text()
    assert "| 1x1 convolution | unaligned_block:4 | 20% | 0% to never | 28% |\n" in text and "old" not in text
    assert "| fully connected | unaligned_block:4 | 40% | 40% to 40% | 28% |\n" in text
    assert "| 3x3 convolution | pattern:8 | 50% | 50% to 50% | 28% |\n" in text
    # Of 0, 0.1, 0.2, 0.3 and never, nine tenths lie below 0.3 + 0.6 * 0.7.
    assert "the faster from 72% zeros on, half of them from 20% on" in text
    assert payoff.threshold(rows[-1:]) == "No convolution with blocks of 4 rows and more."
