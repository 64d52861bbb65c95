"""Structures: where zeros may be. One file each; a new one is added by naming it here."""

from __future__ import annotations

from keras_prune.structures.aligned_block import AlignedBlock
from keras_prune.structures.base import Structure
from keras_prune.structures.unaligned_block import UnalignedBlock

STRUCTURES: dict[str, type[Structure]] = {s.name: s for s in (UnalignedBlock, AlignedBlock)}

__all__ = ["STRUCTURES", "AlignedBlock", "Structure", "UnalignedBlock"]
