"""Gathers what the app ships: both models of the demo, and an image of each class as PNG.

python -m android_demo.make_assets FOLDER [--models FOLDER] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo.files import CLASSES, DEBIAN_FOLDER, Images, read_images


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """A grey image ``[height, width]`` as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_assets(folder: Path, models: Path, images: Images) -> None:
    """Writes dense.tflite, sparse.tflite, classes.txt and samples/NUMBER_CLASS.png.

    Raises:
        FileNotFoundError: a model is missing.
    """
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for name in ("dense.tflite", "sparse.tflite"):
        if not (models / name).is_file():
            raise FileNotFoundError(f"{models / name} is missing: make demo")
        (folder / name).write_bytes((models / name).read_bytes())
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for label, name in enumerate(CLASSES):
        first = int(np.flatnonzero(images.labels == label)[0])
        pixels = np.rint(images.pixels[first, :, :, 0] * 255).astype(np.uint8)
        (folder / "samples" / f"{label}_{name}.png").write_bytes(png(pixels))


def main() -> int:
    """The command; 1 with a message where a file is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, default=Path("build/demo"), help="build/demo")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help=str(DEBIAN_FOLDER))
    arguments = parser.parse_args()
    try:
        write_assets(arguments.folder, arguments.models, read_images(arguments.data, "t10k"))
    except (FileNotFoundError, ValueError) as error:
        print(f"make_assets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
