"""The size of one layer, in the terms that latency tables know."""

from __future__ import annotations

import dataclasses
import math
import re

DENSE = "dense"
"""The scheme of a layer without zeros."""

_IMAGE, _WINDOW = r"(?P<h>\d+)x(?P<w>\d+)x(?P<c>\d+)", r"(?P<kh>\d+)x(?P<kw>\d+) (?P<s>\d+)"
_LINES = [
    re.compile(line)
    for line in (
        rf"(?P<kind>conv) {_IMAGE} (?P<f>\d+) {_WINDOW}",
        rf"(?P<kind>depthwise|max_pool) {_IMAGE} {_WINDOW}",
        rf"(?P<kind>add|mean) {_IMAGE}",
        r"(?P<kind>dense) (?P<c>\d+) (?P<f>\d+)",
    )
]


@dataclasses.dataclass(frozen=True)
class Layer:
    """The size of one layer; its text is the line by which the delegate's tool `latency_table` names it.

    Args:
        kind: ``"conv"``, ``"depthwise"``, ``"dense"``, ``"max_pool"``, ``"add"`` or ``"mean"``.
        height, width: of the input image; 1 for a dense layer.
        channels: input channels.
        filters: output channels.
        kernel: its height and width.
        stride: in both directions.

    Example:
        >>> from keras_prune.tflite.layer import Layer
        >>> print(Layer("conv", 14, 14, 256, 512, (1, 1), 1))
        conv 14x14x256 512 1x1 1
        >>> Layer.parse("dense 1024 1000").macs
        1024000
    """

    kind: str
    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1

    @classmethod
    def parse(cls, text: str) -> Layer:
        """Read a layer's text.

        Raises:
            ValueError: it is none.
        """
        match = next(filter(None, (line.fullmatch(text) for line in _LINES)), None)
        if match is None:
            raise ValueError(f"{text!r} is no layer; expected for example 'conv 14x14x256 512 1x1 1'")
        size = {name: int(value) for name, value in match.groupdict().items() if name != "kind"}
        kernel = (size.get("kh", 1), size.get("kw", 1))
        channels = size["c"]
        filters = size.get("f", channels)
        return cls(match["kind"], size.get("h", 1), size.get("w", 1), channels, filters, kernel, size.get("s", 1))

    def __str__(self) -> str:
        image = f"{self.height}x{self.width}x{self.channels}"
        window = f"{self.kernel[0]}x{self.kernel[1]} {self.stride}"
        if self.kind == "dense":
            return f"dense {self.channels} {self.filters}"
        if self.kind == "conv":
            return f"conv {image} {self.filters} {window}"
        return f"{self.kind} {image}" + (f" {window}" if self.kind in ("depthwise", "max_pool") else "")

    @property
    def pixels(self) -> int:
        """Pixels of the output image."""
        if self.kind == "mean":
            return 1
        return math.ceil(self.height / self.stride) * math.ceil(self.width / self.stride)

    @property
    def weights(self) -> int:
        """Entries of the weight matrix; for layers without any, operations a pixel."""
        across = self.channels if self.kind in ("conv", "dense") else 1
        return self.filters * self.kernel[0] * self.kernel[1] * across

    @property
    def macs(self) -> int:
        """Multiply-adds without zeros."""
        return self.weights * (self.height * self.width if self.kind == "mean" else self.pixels)

    @property
    def family(self) -> str:
        """Layers whose times follow one law: ``"conv1x1"``, ``"conv3x3"``, or the kind."""
        if self.kind != "conv":
            return self.kind
        return "conv1x1" if self.kernel == (1, 1) else "conv3x3"
