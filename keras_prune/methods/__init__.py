"""Methods: how training gets to its masks. One file each; a new one is added by naming it here."""

from __future__ import annotations

from keras_prune.methods.admm import Admm
from keras_prune.methods.base import Method
from keras_prune.methods.magnitude import Magnitude
from keras_prune.methods.reweighted import Reweighted

METHODS: dict[str, type[Method]] = {m.name: m for m in (Magnitude, Admm, Reweighted)}

__all__ = ["METHODS", "Admm", "Magnitude", "Method", "Reweighted"]
