"""How each structure is found in a matrix, stored and read back: one file a structure, one line here to register it."""

from keras_prune.tflite.encodings.aligned_block import AlignedBlockEncoding
from keras_prune.tflite.encodings.base import Candidate, Encoding, Shape, Weights
from keras_prune.tflite.encodings.unaligned_block import UnalignedBlockEncoding

# Where two structures are equally good for a matrix, the earlier one is taken.
_REGISTERED: tuple[Encoding, ...] = (
    AlignedBlockEncoding(),
    UnalignedBlockEncoding(),
)

ENCODINGS: dict[str, Encoding] = {encoding.name: encoding for encoding in _REGISTERED}

__all__ = ["ENCODINGS", "Candidate", "Encoding", "Shape", "Weights"]
