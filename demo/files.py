"""Reading the images."""

from __future__ import annotations

import dataclasses
import gzip
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclasses.dataclass(frozen=True)
class Images:
    """Grey images ``[count, 28, 28, 1]`` float32 in [0, 1], and their classes ``[count]`` int32."""

    pixels: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)


def read_images(folder: Path, part: str) -> Images:
    """Read Fashion-MNIST's images.

    Args:
        folder: where the four files are.
        part: ``"train"`` or ``"t10k"``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not in the IDX format, or images and labels differ in number.
    """
    pixels = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if len(pixels) != len(labels):
        raise ValueError(f"{folder}: {len(pixels)} images, but {len(labels)} labels for {part}")
    return Images(pixels[..., None].astype(np.float32) / np.float32(255), labels.astype(np.int32))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a compressed IDX file of bytes: a magic number with the rank, big-endian sizes, the entries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: install Debian's package dataset-fashion-mnist, or give --data")
    with gzip.open(path) as file:
        data = file.read()
    unsigned_bytes, rank = 8, data[3] if len(data) > 3 else 0
    header = 4 + 4 * rank
    if data[:3] != bytes([0, 0, unsigned_bytes]) or rank == 0 or len(data) < header:
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = np.frombuffer(data, ">i4", rank, 4).tolist()
    if len(data) != header + math.prod(shape):
        raise ValueError(
            f"{path} should hold {math.prod(shape)} bytes after its header, but holds {len(data) - header}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
