"""The examples in the docstrings of the conversion and of mapping run as they stand."""

import doctest
import importlib
import pkgutil

import pytest

import keras_prune.cli
import keras_prune.mapping
import keras_prune.tflite

MODULES = ["keras_prune.cli", "keras_prune.conversion", "keras_prune.files"] + [
    module.name
    for package in (keras_prune.tflite, keras_prune.mapping)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    assert doctest.testmod(importlib.import_module(name)).failed == 0
