"""Block-sparse training and conversion for Keras and TensorFlow Lite.

Prune inside ``fit`` with the :class:`Prune` callback, make a ``.tflite`` with :func:`convert`, and run it with the
delegate that :func:`load_delegate` loads.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_prune.schedules import ConstantSparsity, PolynomialDecay
from keras_prune.structures import (
    AlignedBlock,
    BlockPunched,
    BlockRowColumn,
    Pattern,
    PerGate,
    Structure,
    UnalignedBlock,
    Unstructured,
)

if TYPE_CHECKING:
    from keras_prune import mapping
    from keras_prune.callbacks import Prune
    from keras_prune.conversion import convert
    from keras_prune.methods import Admm, Magnitude, Reweighted
    from keras_prune.pruning import sparsify
    from keras_prune.tflite import densify, load_delegate

__version__ = "0.1.0"

# What needs TensorFlow is imported when it is first used: that takes seconds.
_LAZY = {
    "Admm": "keras_prune.methods",
    "Magnitude": "keras_prune.methods",
    "Reweighted": "keras_prune.methods",
    "Prune": "keras_prune.callbacks",
    "sparsify": "keras_prune.pruning",
    "convert": "keras_prune.conversion",
    "densify": "keras_prune.tflite",
    "load_delegate": "keras_prune.tflite",
}
_MODULES = ("mapping",)

__all__ = [
    "Admm",
    "AlignedBlock",
    "BlockPunched",
    "BlockRowColumn",
    "ConstantSparsity",
    "Magnitude",
    "Pattern",
    "PerGate",
    "PolynomialDecay",
    "Prune",
    "Reweighted",
    "Structure",
    "UnalignedBlock",
    "Unstructured",
    "convert",
    "densify",
    "load_delegate",
    "mapping",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_MODULES])
