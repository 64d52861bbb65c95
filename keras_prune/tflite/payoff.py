"""What a layer's latency depends on, so that measured latencies can tell whether zeros make it faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.custom_options import CustomOptions
from keras_prune.tflite.encodings import Shape
from keras_prune.tflite.layer import DENSE, Layer
from keras_prune.tflite.operators import CONV_2D, INPUT, MAX_EXTENT


class UnknownLatencyWarning(UserWarning):
    """Latencies decide which layers become block-sparse, but those of some are not known."""


Latency = Callable[[Layer, str, float], "float | None"]
"""Tells the microseconds that the delegate needs for a call, for a scheme (`"dense"`, or structure and block such as
`"unaligned_block:4"`) and its share of weights that are not stored; None where nothing like it was measured."""


@dataclass(frozen=True)
class Payoff:
    """Microseconds of a layer in the delegate, dense and block-sparse."""

    dense: float
    sparse: float

    @property
    def pays(self) -> bool:
        """Whether the layer is the faster for its zeros."""
        return self.sparse < self.dense

    def __str__(self) -> str:
        return f"dense {self.dense / 1e3:.3g} ms, sparse {self.sparse / 1e3:.3g} ms"


def read_call(subgraph: Any, operator: Any, custom_code: str, shape: Shape, options: CustomOptions) -> Layer | None:
    """Read how an operator calls its layer.

    Args:
        subgraph: that holds it.
        operator: a convolution or fully connected layer, dense or block-sparse.
        custom_code: of the block-sparse operator, also where the layer is dense.
        shape: of the matrix.
        options: the custom options that do not depend on the structure.

    Returns:
        The call, or None for one that latencies are not measured of: dilated, with two different strides, or a matrix
        that many rows are multiplied by.
    """
    source, output = (
        flatbuffer.ints(subgraph.tensors[flatbuffer.ints(tensors)[INPUT]].shape)
        for tensors in (operator.inputs, operator.outputs)
    )
    if custom_code != CONV_2D:
        if math.prod(source) != shape.columns:
            return None
        return Layer("dense", 1, 1, shape.columns, shape.rows)
    names = ("stride_height", "stride_width", "dilation_height", "dilation_width")
    stride, stride_width, *dilation = (options.integer(name, 1, MAX_EXTENT) for name in names)
    if stride != stride_width or dilation != [1, 1] or len(source) != 4 or len(output) != 4:
        return None
    if min(*source[1:3], *output[1:3]) < 1:
        return None
    height, width = source[1:3]
    if options.string("padding") == "valid":
        height, width = output[1] * stride, output[2] * stride
    return Layer("conv", height, width, shape.channels, shape.rows, shape.kernel, stride)


def payoff(latency: Latency, call: Layer | None, scheme: str, zeros: float) -> Payoff | None:
    """Return a call's latencies, or None where one of them is not known."""
    if call is None:
        return None
    dense, sparse = latency(call, DENSE, 0.0), latency(call, scheme, zeros)
    return None if dense is None or sparse is None else Payoff(dense, sparse)


def total(payoffs: Iterable[Payoff | None]) -> Payoff | None:
    """Add up the latencies of several calls; None where one is."""
    dense = sparse = 0.0
    for each in payoffs:
        if each is None:
            return None
        dense, sparse = dense + each.dense, sparse + each.sparse
    return Payoff(dense, sparse)
