"""What all forms of a recurrent layer in a dense `.tflite` file are read as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.custom_options import Value
from keras_prune.tflite.operators import first_opcode


class UnknownLayerError(Exception):
    """The operators are not the recurrent layer that they would have to be; the message says why."""


def require(condition: Any, problem: str) -> None:
    """Raise unless a condition of a known layer holds."""
    if not condition:
        raise UnknownLayerError(problem)


class Matrix(NamedTuple):
    """Where a matrix stands: an operator, and those of its inputs that hold it, one below another."""

    subgraph: int
    operator: int
    slots: tuple[int, ...]


@dataclass(frozen=True)
class RecurrentLayer:
    """Operators that compute a GRU or an LSTM, and what may take their place.

    Attributes:
        custom_code: the operator that may replace them.
        subgraph: where it will stand.
        operator: what becomes it.
        units: of the layer.
        return_sequences: whether all steps' states are kept.
        reset_after: whether a GRU's reset gate multiplies the recurrent kernel's product.
        matrices: by what they are: `kernel`, `recurrent_kernel` and, in a GRU without `reset_after`,
            `candidate_kernel`.
        home: the subgraph that has the matrices' and biases' tensors.
        biases: tensors of `bias` and `recurrent_bias`, one below another, where the layer has them.
        source, states: tensors of the steps' input and of the states before the first step; no states if they are
            zeros that no tensor holds.
        sequence, last_states: tensors of the output and of the states after the last step; none where nothing has
            them.
        mask: tensor `[steps, batch, 1]` bool that says which steps count, if the layer is masked.
        zero_output_for_mask: whether a masked step's output is zero, and not what it was a step before.
        batch_major: whether input and output are `[batch, steps, ...]`.
        zeros: a constant of zeros, as large as the output, that is of no use to the new operator.
        hidden: subgraphs that belong to the operator alone.
        removed: operators, in order, the first of which gives its place to `operator` and the others go.
        dense: options by which `densify` restores the operator.
    """

    custom_code: str
    subgraph: int
    operator: Any = field(repr=False)
    units: int
    return_sequences: bool
    matrices: dict[str, Matrix]
    home: int
    biases: dict[str, tuple[int, ...]]
    source: int
    states: tuple[int, ...]
    sequence: int | None
    dense: dict[str, Value]
    reset_after: bool = True
    last_states: tuple[int, ...] = ()
    mask: int | None = None
    zero_output_for_mask: bool = False
    batch_major: bool = False
    zeros: int | None = None
    hidden: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


def carried_options(model: Any, operator: Any) -> dict[str, Value]:
    """Return the options by which `densify` restores an operator's code, inputs and outputs."""
    options: dict[str, Value] = {
        "loop_inputs": np.array(operator.inputs, "<i4").tobytes(),
        "loop_outputs": np.array(operator.outputs, "<i4").tobytes(),
    }
    code = flatbuffer.builtin_code(model.operatorCodes[operator.opcodeIndex])
    if operator.opcodeIndex != first_opcode(model, code):
        options["dense_opcode"] = int(operator.opcodeIndex)
    return options
