"""The papers' recipes, each in a short training, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import keras_prune
from keras_prune import (
    Admm,
    BlockPunched,
    BlockRowColumn,
    Magnitude,
    Pattern,
    Prune,
    Reweighted,
    UnalignedBlock,
    presets,
)

RECIPES: list[tuple[Callable[..., Prune], Any, type, float]] = [
    (presets.bed, UnalignedBlock(4, "bed"), Magnitude, 0.8),
    (presets.patdnn, Pattern(8), Admm, 0.875),
    (presets.block_punched, BlockPunched(8, 4), Reweighted, 0.8),
    (presets.blk_rew, BlockRowColumn(8, 32), Reweighted, 0.0),
]


def test_every_preset_is_tested() -> None:
    assert sorted(recipe[0].__name__ for recipe in RECIPES) == presets.__all__


@pytest.mark.parametrize(
    ("preset", "structure", "method", "zeros"), RECIPES, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_a_preset_is_made_of(preset: Callable[..., Prune], structure: Any, method: type, zeros: float) -> None:
    prune = preset(1000)
    assert prune.structure == structure
    assert isinstance(prune.method, method)
    assert prune.schedule.end_step == 1000
    assert prune.schedule.sparsity(1000) == zeros
    other = preset(500, 0.5, begin_step=100, frequency=7, layers="conv*", scope="global")
    assert (other.schedule.begin_step, other.schedule.frequency, other.schedule.sparsity(500)) == (100, 7, 0.5)
    assert (other.layers, other.scope) == ("conv*", "global")


OTHERS = ("keras_prune.tflite", "keras_prune.cli", "keras_prune.__main__")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(keras_prune.__path__, "keras_prune.")
    if not module.name.startswith(OTHERS)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
