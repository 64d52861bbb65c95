"""How each structure is found in a matrix, stored and read back: one file a structure, one line here to register it."""

from keras_prune.tflite.encodings.aligned_block import AlignedBlockEncoding
from keras_prune.tflite.encodings.base import (
    DENSE_COST,
    FULLY_CONNECTED_DENSE_COST,
    Candidate,
    Encoding,
    Shape,
    Weights,
    scheme,
)
from keras_prune.tflite.encodings.block_punched import BlockPunchedEncoding
from keras_prune.tflite.encodings.block_row_column import BlockRowColumnEncoding
from keras_prune.tflite.encodings.pattern import PatternEncoding
from keras_prune.tflite.encodings.unaligned_block import UnalignedBlockEncoding

# Where two structures are equally good for a matrix, the earlier one is taken.
_REGISTERED: tuple[Encoding, ...] = (
    AlignedBlockEncoding(),
    UnalignedBlockEncoding(),
    BlockPunchedEncoding(),
    PatternEncoding(),
    BlockRowColumnEncoding(),
)

ENCODINGS: dict[str, Encoding] = {encoding.name: encoding for encoding in _REGISTERED}

__all__ = [
    "DENSE_COST",
    "ENCODINGS",
    "FULLY_CONNECTED_DENSE_COST",
    "Candidate",
    "Encoding",
    "Shape",
    "Weights",
    "scheme",
]
