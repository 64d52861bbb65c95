"""What a network computes, layer by layer, in the terms that a latency table knows."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from keras_prune import structures
from keras_prune.layers import rule_for
from keras_prune.structures import Structure

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
        >>> from keras_prune.mapping.workload import Layer
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


@dataclasses.dataclass(frozen=True)
class Use:
    """A layer where a network calls it.

    Attributes:
        path: of the Keras layer in the model.
        source: the Keras layer.
        weight: name of its weight; empty without any.
        layer: its size.
    """

    path: str
    source: Any
    weight: str
    layer: Layer


def scheme_text(structure: Structure | None) -> str:
    """Name a structure and its block as the delegate's tool does.

    Example:
        >>> from keras_prune import BlockPunched
        >>> scheme_text(BlockPunched(8, 4))
        'block_punched:8x4'
    """
    if structure is None:
        return DENSE
    sizes = [str(getattr(structure, name)) for name in _PARAMETERS[structure.name]]
    return f"{structure.name}:{'x'.join(sizes)}"


def parse_scheme(text: str) -> Structure | None:
    """Make the structure that a text names; None for ``"dense"``.

    Raises:
        ValueError: it names none.
    """
    if text == DENSE:
        return None
    name, _, sizes = text.partition(":")
    if name not in _PARAMETERS or not re.fullmatch(r"\d+(x\d+)*", sizes):
        raise ValueError(f"{text!r} is no structure; expected dense or {', '.join(f'{n}:SIZE' for n in _PARAMETERS)}")
    numbers = [int(size) for size in sizes.split("x")]
    if len(numbers) != len(_PARAMETERS[name]):
        raise ValueError(f"{text!r}: {name} has {len(_PARAMETERS[name])} sizes, not {len(numbers)}")
    return structures.STRUCTURES[name](*numbers)


_PARAMETERS: dict[str, tuple[str, ...]] = {
    "unaligned_block": ("size",),
    "aligned_block": ("size",),
    "block_punched": ("filters", "channels"),
    "block_row_column": ("rows", "columns"),
    "pattern": ("count",),
}


def uses(model: Any) -> list[Use]:
    """List what a functional or sequential model computes, in order, leaving out what is folded or takes no time.

    Args:
        model: a built Keras model whose inputs have a known size, apart from the batch.

    Raises:
        ValueError: the model does not know its layers' shapes, or an image has no fixed size.
    """
    found = list(_walk(model, ""))
    if not any(use.weight for use in found):
        raise ValueError(f"model {model.name!r} has no convolution or dense layer whose latency could be told")
    return found


def _walk(model: Any, prefix: str) -> Iterator[Use]:
    functional = getattr(model, "_functional", None) or model
    depths = getattr(functional, "_nodes_by_depth", None)
    if not depths:
        raise ValueError(
            f"model {model.name!r} does not know its layers' shapes: make it a functional or sequential model with "
            "keras.Input"
        )
    for depth in sorted(depths, reverse=True):
        for node in depths[depth]:
            layer = getattr(node, "operation", None) or getattr(node, "layer", None)
            if layer is None or not node.input_tensors:
                continue
            path = prefix + layer.name
            if hasattr(layer, "_nodes_by_depth") or hasattr(layer, "_functional"):
                yield from _walk(layer, path + "/")
                continue
            source, output = (tuple(tensors[0].shape) for tensors in (node.input_tensors, node.output_tensors))
            yield from _uses_of(path, layer, source, output)


def _uses_of(path: str, layer: Any, source: tuple[Any, ...], output: tuple[Any, ...]) -> Iterator[Use]:
    names = {cls.__name__ for cls in type(layer).__mro__}
    if "Dense" in names:
        yield Use(path, layer, "kernel", Layer("dense", 1, 1, int(source[-1]), int(output[-1])))
        return
    image = len(source) == 4
    if not image or not names & _IMAGE_LAYERS:
        return
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ValueError(f"layer {path!r} has channels first; mapping knows channels last only")
    if None in source[1:]:
        raise ValueError(f"layer {path!r} reads images of no fixed size: give keras.Input a height and a width")
    height, width, channels = (int(n) for n in source[1:])
    filters = int(output[-1])
    kernel = tuple(getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None) or (1, 1))
    stride = int((getattr(layer, "strides", None) or (1, 1))[0])
    if "SeparableConv2D" in names:
        # Its own halves, one after the other.
        yield Use(path, layer, "", Layer("depthwise", height, width, channels, channels, kernel, stride))
        pointwise = Layer("conv", int(output[1]), int(output[2]), channels, filters)
        yield Use(path, layer, "pointwise_kernel", pointwise)
    elif "DepthwiseConv2D" in names:
        rule = rule_for(layer)
        weight = next(iter(rule.weights(layer))) if rule is not None else ""
        yield Use(path, layer, weight, Layer("depthwise", height, width, channels, filters, kernel, stride))
    elif "Conv2D" in names and getattr(layer, "groups", 1) == 1:
        # Without padding the image shrinks; the table's layers are padded, so it is counted by its output.
        if getattr(layer, "padding", "same") == "valid":
            height, width = int(output[1]) * stride, int(output[2]) * stride
        yield Use(path, layer, "kernel", Layer("conv", height, width, channels, filters, kernel, stride))
    elif names & {"MaxPooling2D", "AveragePooling2D"}:
        yield Use(path, layer, "", Layer("max_pool", height, width, channels, channels, kernel, stride))
    elif "Add" in names:
        yield Use(path, layer, "", Layer("add", height, width, channels, channels))
    elif "GlobalAveragePooling2D" in names:
        yield Use(path, layer, "", Layer("mean", height, width, channels, channels))


_IMAGE_LAYERS = {
    "Conv2D",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "MaxPooling2D",
    "AveragePooling2D",
    "Add",
    "GlobalAveragePooling2D",
}
