"""Unrolled layers in a dense `.tflite` file: chains that hold a GRU or an LSTM step after step.

The chain begins at the UNPACK that takes the input apart. Every step but the first is read as a loop's body is. The
first starts from zeros, and TensorFlow's converter leaves out what these make zero; so must its expression be that of
the second step, with the same left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer, loops
from keras_prune.tflite.loop_body import FIRST_STATE, Body, Sum, atom_sum
from keras_prune.tflite.operators import FULLY_CONNECTED, GRU, LSTM, WEIGHTS
from keras_prune.tflite.recurrent_layer import Matrix, RecurrentLayer, require

NAME = "UNPACK"
PROBLEM = "unrolled chain is not recognised as a GRU or LSTM"

# What a step has: matrices, which `inspect` finds block-sparse too, and what is between them.
_PRODUCTS = ("FULLY_CONNECTED", FULLY_CONNECTED)
_PARTS = ("RESHAPE", "SPLIT", "SPLIT_V", "STRIDED_SLICE")
_ELEMENTWISE = ("ADD", "MUL", "SUB", "LOGISTIC", "TANH", *_PARTS)


def holds_matrices(model: Any, subgraph: Any, operator: Any) -> bool:
    """Whether all that an UNPACK gives is multiplied by one matrix."""
    parts = flatbuffer.ints(operator.outputs)
    weights = set()
    for other in subgraph.operators:
        inputs = flatbuffer.ints(other.inputs)
        if inputs and inputs[0] in parts:
            if flatbuffer.operator_name(model, other) not in _PRODUCTS or len(inputs) <= WEIGHTS:
                return False
            weights.add(inputs[WEIGHTS])
    return len(parts) > 1 and len(weights) == 1


def read(model: Any, s: int, i: int) -> RecurrentLayer:
    """Read the chain behind an UNPACK.

    Raises:
        UnknownLayerError: it computes something else than a GRU or an LSTM, or more.
    """
    chain = _Chain(model, s, i)
    lstm = chain.cells is not None
    states, cells = chain.states, chain.cells or []
    readers = [chain.step(t) for t in range(1, len(states))]
    kind = loops.LstmStep if lstm else loops.GruStep
    layers = [kind(reader) for reader in readers]
    layer = layers[0]
    weights = [chain.weights(other.matrices) for other in layers]
    order = [weights[0][name] for name in ("kernel", "recurrent_kernel", "candidate_kernel") if name in weights[0]]
    require(all(other == weights[0] for other in weights), "its steps have matrices of their own")
    require(all(other.biases == layer.biases for other in layers), "its steps have biases of their own")
    require(all(other.reset_after == layer.reset_after for other in layers), "its steps differ")
    first = chain.step(0)
    for before, after in ((states[0], states[1]), *([(cells[0], cells[1])] if lstm else [])):
        actual, wanted = chain.known(first.whole(before)), chain.known(readers[0].whole(after), from_zero=True)
        require(actual == wanted, "its first step is not what the others are, from a state of zeros")
    removed, sequence = chain.extent()
    steps, batch, _ = chain.shape(chain.source)
    for tensor in (states[-1], *cells[-1:]):
        require(chain.shape(tensor) == [batch, layer.units], "a state of another shape")
    require(sequence is None or chain.shape(sequence) == [steps, batch, layer.units], "states of another shape")
    return RecurrentLayer(
        custom_code=LSTM if lstm else GRU,
        subgraph=s,
        operator=flatbuffer.schema().OperatorT(),
        units=layer.units,
        return_sequences=sequence is not None,
        reset_after=layer.reset_after,
        matrices={name: Matrix(s, number, (WEIGHTS,)) for name, number in layer.matrices.items()},
        home=s,
        biases={name: (tensor,) for name, tensor in layer.biases.items()},
        source=chain.source,
        states=(),
        sequence=sequence,
        last_states=(states[-1], *cells[-1:]),
        removed=removed,
        dense={
            "dense_operator": NAME,
            "loop_inputs": np.array(order, "<i4").tobytes(),
            "positions": np.array(removed, "<i4").tobytes(),
        },
    )


class _Chain:
    """The states of all steps, and the operators between them."""

    def __init__(self, model: Any, s: int, i: int) -> None:
        self.model, self.subgraph = model, model.subgraphs[s]
        self.body = Body(model, s)
        unpack = self.subgraph.operators[i]
        self.unpack = i
        self.parts = flatbuffer.ints(unpack.outputs)
        inputs = flatbuffer.ints(unpack.inputs)
        require(len(inputs) == 1 and inputs[0] >= 0 and len(self.parts) > 1, "it has one step")
        self.source = inputs[0]
        shape = self.shape(self.source)
        options = flatbuffer.options(model, unpack)
        along = options is not None and options.axis == 0 and len(shape) == 3 and shape[0] == len(self.parts)
        require(along and not flatbuffer.ints(self.subgraph.tensors[self.source].shapeSignature), "unusual steps")
        self.names = [flatbuffer.operator_name(model, operator) for operator in self.subgraph.operators]
        self.inputs = [flatbuffer.ints(operator.inputs) for operator in self.subgraph.operators]
        self.outputs = [flatbuffer.ints(operator.outputs) for operator in self.subgraph.operators]
        self.producer = {tensor: n for n, tensors in enumerate(self.outputs) for tensor in tensors if tensor >= 0}
        self.readers: dict[int, list[int]] = {}
        for n, tensors in enumerate(self.inputs):
            for tensor in tensors:
                self.readers.setdefault(tensor, []).append(n)
        self._find_operators()
        self._find_states()

    def shape(self, tensor: int) -> list[int]:
        """Return a float32 tensor's shape."""
        require(self.subgraph.tensors[tensor].type == flatbuffer.schema().TensorType.FLOAT32, "it is not FLOAT32")
        return flatbuffer.ints(self.subgraph.tensors[tensor].shape)

    def _find_operators(self) -> None:
        """Find what follows from the input elementwise, and the matrices whose products come in on the way."""
        products = []
        for part in self.parts:
            readers = self.readers.get(part, [])
            require(len(readers) == 1 and self._is_product(readers[0]), "its input is read by others")
            products.append(readers[0])
        self.members = set(products)
        elementwise: set[int] = set()
        reached = [tensor for n in products for tensor in self.outputs[n]]
        while reached:
            for n in self.readers.get(reached.pop(), []):
                if n not in elementwise and self.names[n] in _ELEMENTWISE:
                    elementwise.add(n)
                    reached += self.outputs[n]
        self.inner = {t for n in [*elementwise, *products] for t in self.outputs[n] if t >= 0}
        self.recurrent: list[int] = []
        for n in sorted(elementwise):
            for tensor in self.inputs[n]:
                self._find_product(tensor)
        self.members |= elementwise

    def _is_product(self, n: int) -> bool:
        return self.names[n] in _PRODUCTS and len(self.inputs[n]) > WEIGHTS

    def _find_product(self, tensor: int) -> None:
        """Find the matrix whose product, or a part of it, a tensor is, unless it follows from the input or is none."""
        while tensor not in self.inner and tensor in self.producer:
            n = self.producer[tensor]
            if n in self.members:
                return  # by another part of the same product
            self.members.add(n)
            if self._is_product(n):
                self.recurrent.append(n)
                return
            sources = [t for t in self.inputs[n] if t in self.producer]
            require(self.names[n] in _PARTS and len(sources) == 1, f"it has {self.names[n]}")
            (tensor,) = sources

    def _find_states(self) -> None:
        self.recurrent.sort()
        require(self.recurrent, "it has no recurrent kernel")
        kernel = self.inputs[self.recurrent[0]][WEIGHTS]
        self.states = [self.inputs[n][0] for n in self.recurrent if self.inputs[n][WEIGHTS] == kernel]
        # The last state is what is computed and nothing of the chain reads.
        ends = [
            tensor
            for tensor in sorted(self.inner)
            if self.names[self.producer[tensor]] in ("ADD", "MUL")
            and tensor not in self.states
            and not self.members.intersection(self.readers.get(tensor, []))
        ]
        require(
            len(ends) == 1 and len(self.states) == len(self.parts) - 1, "a state is not zero, or computed otherwise"
        )
        self.states += ends
        cells = [self._cell(state) for state in self.states]
        self.cells: list[int] | None = None
        if None not in cells:
            self.cells = [cell for cell in cells if cell is not None]

    def _cell(self, state: int) -> int | None:
        """Return the LSTM's cell that a state is computed from: state = o * tanh(cell)."""
        if state not in self.producer or self.names[self.producer[state]] != "MUL":
            return None
        factors = [self.producer.get(tensor, -1) for tensor in self.inputs[self.producer[state]]]
        shown = [self.inputs[n][0] for n in factors if n >= 0 and self.names[n] == "TANH" and self.inputs[n]]
        # A GRU's first state is a product too: (1 - z) * tanh(...).
        gated = any(n >= 0 and self.names[n] == "LOGISTIC" for n in factors)
        return shown[0] if len(shown) == 1 and gated else None

    def step(self, t: int) -> Body:
        """Return a reader of a step."""
        states, cells = self.states, self.cells
        carried = 1 if cells is None else 2
        none = [-1] * FIRST_STATE
        before = [] if t == 0 else [states[t - 1], *([] if cells is None else [cells[t - 1]])]
        after = [states[t], *([] if cells is None else [cells[t]])]
        return self.body.step([*none, *(before or [-1] * carried), self.parts[t]], [*none, *after, -1])

    def weights(self, matrices: dict[str, int]) -> dict[str, int]:
        """Return the matrices' tensors."""
        return {name: self.inputs[n][WEIGHTS] for name, n in matrices.items()}

    def known(self, atoms: Sum, from_zero: bool = False) -> Sum:
        """Write a sum so that those of several steps compare: tensors for matrices, values for constants.

        With `from_zero` the states are zero, and what they make zero is left out.
        """
        kept = []
        for node, begin, end in atoms:
            kind = node[0]
            require(kind != "counter", "a step without a state")
            if kind == "input":
                require(from_zero, "its first step reads a state")
                continue
            if kind == "constant":
                kept.append((("values", self._values(node[1], begin, end)), 0, end - begin))
                continue
            if kind == "matrix":
                operands: tuple[Any, ...] = (self.inputs[node[1]][WEIGHTS], self.known(node[2], from_zero))
            else:
                operands = tuple(self.known(operand, from_zero) for operand in node[1:])
            if () in operands:
                require(kind in ("matrix", "product"), "a gate that reads the state alone")
                continue
            if kind == "product":
                operands = tuple(sorted(operands, key=repr))
            kept.append(((kind, *operands), begin, end))
        return atom_sum(kept)

    def _values(self, tensor: int, begin: int, end: int) -> bytes:
        """Return a part of a constant vector; one that was repeated for a batch counts as one."""
        data = flatbuffer.constant_data(self.model, self.subgraph.tensors[tensor])
        width = (flatbuffer.ints(self.subgraph.tensors[tensor].shape) or [1])[-1]
        assert data is not None
        require(width > 0 and len(data) % (4 * width) == 0, "a constant of another size")
        rows = np.frombuffer(data.tobytes(), "<u4").reshape(-1, width)[:, begin:end]
        require(bool((rows == rows[0]).all()), "a constant that differs within the batch")
        return rows[0].tobytes()

    def extent(self) -> tuple[tuple[int, ...], int | None]:
        """Return the operators of the chain, in order, and the tensor of all its states if it has that.

        What is computed on the way must be of no use to others.
        """
        members = {*self.members, self.unpack}
        sequence = None
        for n in self.readers.get(self.states[0], []):
            if self.names[n] == "PACK" and n not in members:
                options, outputs = flatbuffer.options(self.model, self.subgraph.operators[n]), self.outputs[n]
                whole = options is not None and options.axis == 0 and self.inputs[n] == self.states
                require(whole and len(outputs) == 1 and sequence is None, "its states are put together in another way")
                members.add(n)
                sequence = outputs[0]
        visible = {self.states[-1], *(self.cells or [])[-1:], *([] if sequence is None else [sequence])}
        for tensor in {tensor for n in members for tensor in self.outputs[n]} - visible:
            others = set(self.readers.get(tensor, [])) - members
            unread = not others and tensor not in flatbuffer.ints(self.subgraph.outputs)
            require(unread, "what it computes on the way is read by others")
        return tuple(sorted(members)), sequence
