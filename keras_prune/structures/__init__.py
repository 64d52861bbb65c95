"""Structures: where zeros may be. One file each; a new one is added by naming it here."""

from __future__ import annotations

from keras_prune.structures.aligned_block import AlignedBlock
from keras_prune.structures.base import Structure, Tiling
from keras_prune.structures.block_punched import BlockPunched
from keras_prune.structures.block_row_column import BlockRowColumn
from keras_prune.structures.pattern import Pattern
from keras_prune.structures.per_gate import PerGate
from keras_prune.structures.unaligned_block import UnalignedBlock
from keras_prune.structures.unstructured import Unstructured

STRUCTURES: dict[str, type[Structure]] = {
    s.name: s for s in (UnalignedBlock, AlignedBlock, Pattern, BlockPunched, BlockRowColumn, Unstructured)
}

__all__ = [
    "STRUCTURES",
    "AlignedBlock",
    "BlockPunched",
    "BlockRowColumn",
    "Pattern",
    "PerGate",
    "Structure",
    "Tiling",
    "UnalignedBlock",
    "Unstructured",
]
