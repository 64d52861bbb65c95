"""What a `.tflite` file holds, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer, recurrent_operators
from keras_prune.tflite.encodings import ENCODINGS, scheme
from keras_prune.tflite.operators import SparseLayer, custom_code, layer_name, read_sparse
from keras_prune.tflite.payoff import Latency, Payoff, payoff, read_call
from keras_prune.tflite.planning import MIN_ZEROS, Plan, Site, make_plan


@dataclass(frozen=True)
class LayerInfo:
    """One layer with weights.

    Attributes:
        subgraph, operator: where it stands in the file.
        name: its output tensor's name.
        kind: the operator.
        structure: `unaligned_block`, ...; None for a dense layer.
        block: the block's size in words; None for a dense layer.
        rows, columns: size of the weights' matrix; None where the weights could not be read.
        zeros: share of the weights that is zero, in [0, 1]; None where the weights could not be read.
        dense_bytes: bytes of the weights, stored dense.
        value_bytes: bytes of the values that are stored.
        metadata_bytes: bytes of `custom_options`.
        reason: why the layer is dense; None for a block-sparse one.
        dense_ms, sparse_ms: its latencies in the delegate without zeros and in its structure, as `latency` has them;
            None where it knows none.
    """

    subgraph: int
    operator: int
    name: str
    kind: str
    structure: str | None = None
    block: str | None = None
    rows: int | None = None
    columns: int | None = None
    zeros: float | None = None
    dense_bytes: int | None = None
    value_bytes: int | None = None
    metadata_bytes: int = 0
    reason: str | None = None
    dense_ms: float | None = None
    sparse_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON."""
        return asdict(self)


def inspect(
    data: bytes,
    *,
    min_zeros: float = MIN_ZEROS,
    structures: Sequence[str] | None = None,
    latency: Latency | None = None,
) -> list[LayerInfo]:
    """List the layers of a `.tflite` file, block-sparse and dense ones.

    Args:
        data: the file's bytes.
        min_zeros: as in `convert`, by which dense layers are judged.
        structures: likewise.
        latency: likewise.

    Returns:
        One entry for each operator with weights, in the file's order; dense layers have the reason.

    Raises:
        ValueError: the file is damaged or a block-sparse operator is not as specified.

    Example:
        >>> import keras, keras_prune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> keras_prune.tflite.inspect(keras_prune.convert(model))[0].kind
        'FULLY_CONNECTED'
    """
    model = flatbuffer.read_model(data)
    plan = make_plan(model, min_zeros, list(ENCODINGS) if structures is None else structures, latency)
    layers = [*_sparse_layers(model, latency), *_dense_layers(model, plan)]
    return sorted(layers, key=lambda layer: (layer.subgraph, layer.operator))


def _sparse_layers(model: Any, latency: Latency | None) -> Iterator[LayerInfo]:
    for s, subgraph in enumerate(model.subgraphs):
        for i, operator in enumerate(subgraph.operators or []):
            kind = custom_code(model, operator)
            if kind is None:
                continue
            name = layer_name(subgraph, operator)
            if recurrent_operators.is_recurrent(model, operator):
                for part, tensor, matrix in recurrent_operators.matrices(model, subgraph, operator):
                    if matrix is not None:
                        yield _sparse_layer(s, i, f"{name}/{part}", kind, matrix, matrix.options.size)
                        continue
                    rows, columns = flatbuffer.ints(subgraph.tensors[tensor].shape)
                    yield LayerInfo(s, i, f"{name}/{part}", kind, rows=rows, columns=columns, reason="dense matrix")
                continue
            layer = read_sparse(model, subgraph, operator, list(ENCODINGS))
            info = _sparse_layer(s, i, name, kind, layer, len(operator.customOptions))
            yield info if latency is None or s > 0 else _with_latencies(info, subgraph, operator, layer, latency)


def _with_latencies(info: LayerInfo, subgraph: Any, operator: Any, layer: SparseLayer, latency: Latency) -> LayerInfo:
    call = read_call(subgraph, operator, layer.custom_code, layer.shape, layer.options)
    structure = scheme(layer.structure, ENCODINGS[layer.structure].sizes(layer.options, layer.shape))
    share = max(0.0, 1.0 - layer.values.size / (layer.shape.rows * layer.shape.columns))
    return _with_payoff(info, payoff(latency, call, structure, share))


def _with_payoff(info: LayerInfo, known: Payoff | None) -> LayerInfo:
    return info if known is None else replace(info, dense_ms=known.dense / 1e3, sparse_ms=known.sparse / 1e3)


def _sparse_layer(subgraph: int, operator: int, name: str, kind: str, layer: SparseLayer, metadata: int) -> LayerInfo:
    encoding = ENCODINGS[layer.structure]
    matrix = encoding.decode(layer.options, layer.shape, layer.values)
    return LayerInfo(
        subgraph=subgraph,
        operator=operator,
        name=name,
        kind=kind,
        structure=layer.structure,
        block=encoding.block(layer.options, layer.shape),
        rows=layer.shape.rows,
        columns=layer.shape.columns,
        zeros=1.0 - int(np.count_nonzero(matrix)) / matrix.size,
        dense_bytes=4 * matrix.size,
        value_bytes=4 * layer.values.size,
        metadata_bytes=metadata,
    )


def _dense_layers(model: Any, plan: Plan) -> Iterator[LayerInfo]:
    def kind(site: Site) -> str:
        return flatbuffer.operator_name(model, site.operator)

    for group in plan.groups:
        for (site, layer), known in zip(group.sites, group.payoffs or [None] * len(group.sites), strict=True):
            size = 4 * layer.shape.rows * layer.shape.columns
            info = LayerInfo(
                subgraph=site.subgraph,
                operator=site.index,
                name=site.name,
                kind=kind(site),
                rows=layer.shape.rows,
                columns=layer.shape.columns,
                zeros=group.zeros,
                dense_bytes=size,
                value_bytes=size,
                reason=group.reason or "not converted yet",
            )
            yield _with_payoff(info, known)
    for site, reason in plan.others:
        yield LayerInfo(site.subgraph, site.index, site.name, kind(site), reason=reason)
