"""What a network computes, layer by layer, in the terms that a latency table knows."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

from keras_prune import structures
from keras_prune.layers import rule_for
from keras_prune.structures import Structure
from keras_prune.tflite.encodings import scheme
from keras_prune.tflite.layer import DENSE, Layer


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
    return scheme(structure.name, tuple(getattr(structure, name) for name in _PARAMETERS[structure.name]))


@functools.cache
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
