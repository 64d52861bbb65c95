"""What a `.tflite` file holds, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer, recurrent
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.operators import SparseLayer, custom_code, layer_name, read_sparse
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

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON."""
        return asdict(self)


def inspect(data: bytes) -> list[LayerInfo]:
    """List the layers of a `.tflite` file, block-sparse and dense ones.

    Args:
        data: the file's bytes.

    Returns:
        One entry for each operator with weights, in the file's order. Dense layers have the reason, by the default
        settings of `convert`.

    Raises:
        ValueError: the file is damaged or a block-sparse operator is not as specified.

    Example:
        >>> import keras, keras_prune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> keras_prune.tflite.inspect(keras_prune.convert(model))[0].kind
        'FULLY_CONNECTED'
    """
    model = flatbuffer.read_model(data)
    plan = make_plan(model, MIN_ZEROS, list(ENCODINGS))
    layers = [*_sparse_layers(model), *_dense_layers(model, plan)]
    return sorted(layers, key=lambda layer: (layer.subgraph, layer.operator))


def _sparse_layers(model: Any) -> Iterator[LayerInfo]:
    for s, subgraph in enumerate(model.subgraphs):
        for i, operator in enumerate(subgraph.operators or []):
            kind = custom_code(model, operator)
            if kind is None:
                continue
            name = layer_name(subgraph, operator)
            if recurrent.is_recurrent(model, operator):
                for part, tensor, matrix in recurrent.matrices(model, subgraph, operator):
                    if matrix is not None:
                        yield _sparse_layer(s, i, f"{name}/{part}", kind, matrix, matrix.options.size)
                        continue
                    rows, columns = flatbuffer.ints(subgraph.tensors[tensor].shape)
                    yield LayerInfo(s, i, f"{name}/{part}", kind, rows=rows, columns=columns, reason="dense matrix")
                continue
            layer = read_sparse(model, subgraph, operator, list(ENCODINGS))
            yield _sparse_layer(s, i, name, kind, layer, len(operator.customOptions))


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
        for site, layer in group.sites:
            size = 4 * layer.shape.rows * layer.shape.columns
            yield LayerInfo(
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
    for site, reason in plan.others:
        yield LayerInfo(site.subgraph, site.index, site.name, kind(site), reason=reason)
