"""The body of a loop in a dense `.tflite` file, read as expressions: what each of its tensors is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.recurrent_layer import UnknownLayerError, require

# A WHILE's inputs and outputs, as Keras's layers have them: two counters, the outputs so far, a masked layer's last
# output, the states, the mask, the input.
FIRST_STATE = 3
SEQUENCE = 2


# --- Expressions: what a tensor of the body is ---
# A node is a tuple with its kind first:
#   ("input", i)            the body's input i
#   ("counter", n)          one of the loop's counters, increased n times
#   ("step",)               the step's input
#   ("mask",)               whether the step counts
#   ("matrix", operator, x) the product of a FULLY_CONNECTED operator's weights and x
#   ("constant", tensor)    a constant vector
#   ("logistic", x), ("tanh", x), ("product", x, y), ("complement", x)   elementwise; the last is 1 - x
#   ("select", x, y)        x where the step counts, or else y
# An atom is a slice of a node along the last axis, (node, begin, end); x, y and every tensor are sums of atoms, as a
# sorted tuple; the empty sum is zero.
Sum = tuple[Any, ...]
# A tensor that is read twice counts twice, so that no chain of operators grows without bounds.
_MAX_EXPRESSION = 1000


def atom_sum(atoms: Any) -> Sum:
    """Bring a sum's atoms into the one order by which sums are compared."""
    return tuple(sorted(atoms, key=repr))


class Body:
    """Reads a body's tensors as expressions.

    Attributes:
        first_state: place of the first state among the body's inputs and outputs.
        input_tensor, mask_tensor: place of the layer's input and mask; -1 where it has none.
    """

    def __init__(self, model: Any, index: int) -> None:
        self.model = model
        self.subgraph = model.subgraphs[index]
        self.inputs = flatbuffer.ints(self.subgraph.inputs)
        self.outputs = flatbuffer.ints(self.subgraph.outputs)
        self.first_state = FIRST_STATE
        self.input_tensor = self.mask_tensor = -1
        self._producer = {
            tensor: (i, operator)
            for i, operator in enumerate(self.subgraph.operators or [])
            for tensor in flatbuffer.ints(operator.outputs)
        }
        self._one_step = False
        self._read: dict[int, Sum] = {}
        self._size: dict[int, int] = {}

    def step(self, inputs: list[int], outputs: list[int]) -> Body:
        """Return a reader of one step of a chain: as of a body with these tensors, whose last input is the step's."""
        body = copy.copy(self)
        body.inputs, body.outputs, body.input_tensor = inputs, outputs, len(inputs) - 1
        body._one_step, body._read, body._size = True, {}, {}
        return body

    def width(self, tensor: int) -> int:
        shape = flatbuffer.ints(self.subgraph.tensors[tensor].shape)
        return shape[-1] if shape else 1

    def shape(self, tensor: int) -> list[int]:
        return flatbuffer.ints(self.subgraph.tensors[tensor].shape)

    def constant(self, tensor: int, dtype: str) -> np.ndarray | None:
        """Return a constant's values, flat."""
        data = flatbuffer.constant_data(self.model, self.subgraph.tensors[tensor]) if tensor >= 0 else None
        return None if data is None or len(data) % 4 else np.frombuffer(data.tobytes(), dtype)

    def producer(self, tensor: int, kind: str) -> tuple[list[int], Any] | None:
        """Return inputs and options of the operator that computes a tensor, if it is of a kind."""
        if tensor not in self._producer:
            return None
        operator = self._producer[tensor][1]
        if flatbuffer.operator_name(self.model, operator) != kind:
            return None
        return flatbuffer.ints(operator.inputs), flatbuffer.options(self.model, operator)

    def whole(self, tensor: int) -> Sum:
        """Read a tensor; the recursion ends at the body's inputs and constants."""
        if tensor not in self._read:
            self._read[tensor], self._size[tensor] = (), 1  # a damaged file may have a cycle
            self._read[tensor] = self._expression(tensor)
            inputs = flatbuffer.ints(self._producer[tensor][1].inputs) if tensor in self._producer else []
            self._size[tensor] = 1 + sum(self._size.get(i, 0) for i in inputs)
            require(self._size[tensor] <= _MAX_EXPRESSION, "its body is too large")
        return self._read[tensor]

    def next_state(self, number: int) -> Sum:
        """Read what a state becomes in a step that counts; in all others it stays."""
        position = self.first_state + number
        state = self.whole(self.outputs[position])
        if self.mask_tensor < 0:
            return state
        node, old = only_node(state), self._atom(("input", position), self.inputs[position])
        require(node and node[0] == "select" and node[2] == old, "masked steps change the state")
        masked: Sum = node[1]
        return masked

    def _atom(self, node: Any, tensor: int) -> Sum:
        return ((node, 0, self.width(tensor)),)

    def _expression(self, tensor: int) -> Sum:
        if tensor in self.inputs:
            position = self.inputs.index(tensor)
            if self._one_step and position == self.input_tensor:
                return self._atom(("step",), tensor)
            return self._atom(("counter", 0) if position < SEQUENCE else ("input", position), tensor)
        if flatbuffer.constant_data(self.model, self.subgraph.tensors[tensor]) is not None:
            return self._atom(("constant", tensor), tensor)
        require(tensor in self._producer, "a tensor that nothing computes")
        index, operator = self._producer[tensor]
        kind = flatbuffer.operator_name(self.model, operator)
        read = getattr(self, f"_read_{kind.lower()}", None)
        if read is None:
            raise UnknownLayerError(f"its body has {kind}")
        inputs, options = flatbuffer.ints(operator.inputs), flatbuffer.options(self.model, operator)
        least = 1 if kind in ("LOGISTIC", "TANH", "RESHAPE") else 2
        require(len(inputs) >= least and min(inputs[:2]) >= 0, f"{kind} without inputs")
        require(not getattr(options, "fusedActivationFunction", 0), f"{kind} with a fused activation")
        return atom_sum(read(index, tensor, inputs, options))

    def _read_add(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        a, b = self.whole(inputs[0]), self.whole(inputs[1])
        for first, second in ((a, inputs[1]), (b, inputs[0])):
            if len(first) == 1 and first[0][0][0] == "counter":
                step = self.constant(second, "<i4")
                require(step is not None and step.tolist() == [1], "a counter that does not go up by 1")
                return self._atom(("counter", first[0][0][1] + 1), tensor)
        self._same_width(tensor, inputs)
        return a + b

    def _read_mul(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        self._same_width(tensor, inputs)
        factors = sorted((self.whole(inputs[0]), self.whole(inputs[1])), key=repr)
        return self._atom(("product", *factors), tensor)

    def _read_sub(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        one = self.constant(inputs[0], "<f4")
        require(one is not None and one.size > 0 and np.all(one == 1.0), "SUB that is not 1 - x")
        require(self.width(inputs[1]) == self.width(tensor), "operands of different widths")
        return self._atom(("complement", self.whole(inputs[1])), tensor)

    def _read_logistic(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        return self._atom(("logistic", self.whole(inputs[0])), tensor)

    def _read_tanh(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        return self._atom(("tanh", self.whole(inputs[0])), tensor)

    def _read_fully_connected(self, index: int, tensor: int, inputs: list[int], options: Any) -> Sum:
        require(self.constant(inputs[1], "<f4") is not None, "FULLY_CONNECTED without constant weights")
        require(options is not None and not options.weightsFormat, "FULLY_CONNECTED with shuffled weights")
        require(self.width(inputs[0]) == self.width(inputs[1]), "FULLY_CONNECTED whose input is of another width")
        return self._read_blocksparsefullyconnected(index, tensor, inputs, options)

    def _read_blocksparsefullyconnected(self, index: int, tensor: int, inputs: list[int], _: Any) -> Sum:
        atoms = self._atom(("matrix", index, self.whole(inputs[0])), tensor)
        if len(inputs) > 2 and inputs[2] >= 0:
            require(self.width(inputs[2]) == self.width(tensor), "a bias of another width")
            atoms += self.whole(inputs[2])
        return atoms

    def _read_reshape(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        integers = flatbuffer.schema().TensorType.INT32
        require(all(self.subgraph.tensors[i].type == integers for i in inputs[1:]), "RESHAPE to an unusual shape")
        require(self.width(tensor) == self.width(inputs[0]), "RESHAPE of the last axis")
        return self.whole(inputs[0])

    def _read_gather(self, _: int, tensor: int, inputs: list[int], options: Any) -> Sum:
        require(
            options is not None and options.axis == 0 and options.batchDims == 0, "GATHER along another axis than time"
        )
        source, place = self.whole(inputs[0]), self.whole(inputs[1])
        require(only_node(place) == ("counter", 0), "GATHER at another place than the step's")
        for position, node in ((self.input_tensor, ("step",)), (self.mask_tensor, ("mask",))):
            if source == self._atom(("input", position), inputs[0]):
                return self._atom(node, tensor)
        raise UnknownLayerError("GATHER from something else")

    def _read_select_v2(self, _: int, tensor: int, inputs: list[int], __: Any) -> Sum:
        require(len(inputs) == 3 and inputs[2] >= 0, "SELECT_V2 without inputs")
        require(only_node(self.whole(inputs[0])) == ("mask",), "SELECT_V2 by something else than the step's mask")
        zero = self.constant(inputs[2], "<f4")
        other: Sum = ()
        if zero is None or zero.any():
            other = self.whole(inputs[2])
            self._same_width(tensor, inputs[1:])
        require(self.width(inputs[1]) == self.width(tensor), "operands of different widths")
        return self._atom(("select", self.whole(inputs[1]), other), tensor)

    def _read_split(self, index: int, tensor: int, inputs: list[int], _: Any) -> Sum:
        parts = len(flatbuffer.ints(self.subgraph.operators[index].outputs))
        return self._part(index, tensor, inputs[1], inputs[0], [self.width(inputs[1]) // parts] * parts)

    def _read_split_v(self, index: int, tensor: int, inputs: list[int], _: Any) -> Sum:
        widths = self.constant(inputs[1], "<i4") if len(inputs) == 3 else None
        require(widths is not None, "SPLIT_V into parts whose sizes are computed")
        sizes = np.asarray(widths).tolist()
        rest = self.width(inputs[0]) - sum(size for size in sizes if size != -1)
        return self._part(index, tensor, inputs[0], inputs[2], [rest if size == -1 else size for size in sizes])

    def _part(self, index: int, tensor: int, source: int, along: int, widths: list[int]) -> Sum:
        axis = self.constant(along, "<i4")
        rank = len(self.shape(source))
        require(axis is not None and axis.size == 1 and int(axis[0]) in (-1, rank - 1), "SPLIT along another axis")
        outputs = flatbuffer.ints(self.subgraph.operators[index].outputs)
        fits = widths == [self.width(output) for output in outputs] and sum(widths) == self.width(source)
        require(fits, "SPLIT into parts of other sizes")
        begin = sum(widths[: outputs.index(tensor)])
        return _slice(self.whole(source), begin, begin + self.width(tensor))

    def _read_strided_slice(self, _: int, tensor: int, inputs: list[int], options: Any) -> Sum:
        source = self.shape(inputs[0])
        read = [self.constant(i, "<i4") for i in inputs[1:4]]
        require(len(read) == 3 and all(r is not None and r.size == len(source) for r in read), "an unusual slice")
        begins, ends, strides = (np.asarray(r).tolist() for r in read)
        unusual = options is None or options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask
        require(not unusual and not getattr(options, "offset", False), "an unusual slice")
        require(all(stride == 1 for stride in strides), "a slice with strides")
        bounds = []
        for axis, size in enumerate(source):
            begin = 0 if options.beginMask >> axis & 1 else begins[axis]
            end = size if options.endMask >> axis & 1 else ends[axis]
            begin, end = (x + size if x < 0 else x for x in (begin, end))
            require(0 <= begin < end <= size, "an empty slice")
            bounds.append((begin, end))
        require(
            all(bound == (0, size) for bound, size in zip(bounds[:-1], source[:-1], strict=True)), "a slice of a batch"
        )
        return _slice(self.whole(inputs[0]), *bounds[-1])

    def _same_width(self, tensor: int, inputs: list[int]) -> None:
        require(all(self.width(i) == self.width(tensor) for i in inputs), "operands of different widths")


def _slice(atoms: Sum, begin: int, end: int) -> Sum:
    return atom_sum((node, first + begin, first + end) for node, first, _ in atoms)


def only_node(atoms: Sum) -> Any:
    """Return the only node of a sum, or None."""
    return atoms[0][0] if len(atoms) == 1 else None
