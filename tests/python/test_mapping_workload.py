"""What a network computes, in the terms of latency tables."""

from __future__ import annotations

import pytest
from latency_tables import mapped_network

from keras_prune.mapping.workload import parse_scheme, scheme_text, uses
from keras_prune.structures import STRUCTURES


@pytest.fixture
def network():
    return mapped_network()


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


@pytest.mark.parametrize("name", sorted(set(STRUCTURES) - {"unstructured"}))
def test_every_structure_has_a_scheme(name):
    structure = STRUCTURES[name]()
    assert parse_scheme(scheme_text(structure)) == structure
    assert scheme_text(None) == "dense" and parse_scheme("dense") is None
