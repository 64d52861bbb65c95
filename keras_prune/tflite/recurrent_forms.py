"""The forms in which a dense `.tflite` file holds recurrent layers."""

from __future__ import annotations

from typing import Any

from keras_prune.tflite import flatbuffer, fused_lstm, loops, unrolled
from keras_prune.tflite.recurrent_layer import RecurrentLayer, UnknownLayerError

# By the operator that stands for the whole layer. A form has `read(model, subgraph, index)`, which returns the
# `RecurrentLayer` or raises `UnknownLayerError`, `holds_matrices(model, subgraph, operator)` and `PROBLEM`, what to say
# before the error's message.
_FORMS = {"WHILE": loops, fused_lstm.NAME: fused_lstm, unrolled.NAME: unrolled}


def find_recurrent(model: Any) -> tuple[list[RecurrentLayer], list[tuple[int, int, str]]]:
    """Find the operators that compute a GRU or an LSTM.

    Args:
        model: a schema `ModelT`; not changed.

    Returns:
        The layers, and `(subgraph, operator, why not)` of operators of the same kinds that hold matrices but are no
        such layer.
    """
    layers: list[RecurrentLayer] = []
    others: list[tuple[int, int, str]] = []
    for s, subgraph in enumerate(model.subgraphs):
        for i, operator in enumerate(subgraph.operators or []):
            form = _FORMS.get(flatbuffer.operator_name(model, operator))
            if form is None:
                continue
            try:
                layers.append(form.read(model, s, i))
            except (UnknownLayerError, RecursionError) as error:
                if form.holds_matrices(model, subgraph, operator):
                    others.append((s, i, f"{form.PROBLEM}: {error}"))
    return layers, others
