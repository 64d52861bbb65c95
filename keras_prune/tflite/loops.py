"""GRU and LSTM layers in a dense `.tflite` file: the loops that they become, read as what they compute.

A Keras 3 recurrent layer is a WHILE operator whose body holds FULLY_CONNECTED operators. Rather than compare its
operators one by one with a list, the body is read as an expression: what the next state is, in terms of the state
and of the step's input. Whatever order the converter puts the operators in, the expression is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.operators import FULLY_CONNECTED, GRU, LSTM

# A WHILE's inputs and outputs, as Keras's layers have them: two counters, the outputs so far, the states, the input.
_FIRST_STATE = 3
_SEQUENCE = 2


@dataclass(frozen=True)
class Loop:
    """A WHILE operator that computes a GRU or an LSTM.

    Attributes:
        custom_code: the operator that may replace it.
        subgraph, index: where the WHILE stands.
        operator: the WHILE.
        condition, body: its subgraphs.
        units: of the layer.
        reset_after: whether a GRU's reset gate multiplies the recurrent kernel's product.
        return_sequences: whether all steps' states are kept.
        matrices: the FULLY_CONNECTED operators in the body, by what they hold: `kernel`, `recurrent_kernel` and, in a
            GRU without `reset_after`, `candidate_kernel`.
        bias, recurrent_bias: the body's tensors, where the layer has them.
    """

    custom_code: str
    subgraph: int
    index: int
    operator: Any = field(repr=False)
    condition: int
    body: int
    units: int
    reset_after: bool
    return_sequences: bool
    matrices: dict[str, int]
    bias: int | None
    recurrent_bias: int | None

    @property
    def gates(self) -> int:
        return 3 if self.custom_code == GRU else 4


def find_loops(model: Any) -> tuple[list[Loop], list[tuple[int, int, str]]]:
    """Find the WHILE operators that compute a GRU or an LSTM.

    Args:
        model: a schema `ModelT`; not changed.

    Returns:
        Those that do, and `(subgraph, operator, why not)` of those that do not but hold matrices.
    """
    builtin = flatbuffer.schema().BuiltinOperator
    loops: list[Loop] = []
    others: list[tuple[int, int, str]] = []
    for s, subgraph in enumerate(model.subgraphs):
        for i, operator in enumerate(subgraph.operators or []):
            if flatbuffer.builtin_code(model.operatorCodes[operator.opcodeIndex]) != builtin.WHILE:
                continue
            try:
                loops.append(_read_loop(model, s, i))
            except (_UnknownError, RecursionError) as error:
                if _holds_matrices(model, operator):
                    others.append((s, i, f"loop is not recognised as a GRU or LSTM: {error}"))
    return loops, others


class _UnknownError(Exception):
    """The loop is not what it would have to be."""


def _require(condition: Any, problem: str) -> None:
    if not condition:
        raise _UnknownError(problem)


def _holds_matrices(model: Any, operator: Any) -> bool:
    body = getattr(operator.builtinOptions, "bodySubgraphIndex", -1)
    if not 0 <= body < len(model.subgraphs):
        return False
    names = {flatbuffer.operator_name(model, inner) for inner in model.subgraphs[body].operators or []}
    return bool(names & {"FULLY_CONNECTED", FULLY_CONNECTED})


# --- Expressions: what a tensor of the body is ---
# A node is a tuple with its kind first:
#   ("input", i)            the body's input i
#   ("counter", n)          one of the loop's counters, increased n times
#   ("step",)               the step's input
#   ("matrix", operator, x) the product of a FULLY_CONNECTED operator's weights and x
#   ("constant", tensor)    a constant vector
#   ("logistic", x), ("tanh", x), ("product", x, y), ("complement", x)   elementwise; the last is 1 - x
# An atom is a slice of a node along the last axis, (node, begin, end); x, y and every tensor are sums of atoms, as a
# sorted tuple.
_Sum = tuple[Any, ...]
# A tensor that is read twice counts twice, so that no chain of operators grows without bounds.
_MAX_EXPRESSION = 1000


def _sum(atoms: Any) -> _Sum:
    return tuple(sorted(atoms, key=repr))


class _Body:
    """Reads a body's tensors as expressions."""

    def __init__(self, model: Any, index: int, states: int) -> None:
        self.model = model
        self.subgraph = model.subgraphs[index]
        self.inputs = flatbuffer.ints(self.subgraph.inputs)
        self.outputs = flatbuffer.ints(self.subgraph.outputs)
        self.input_tensor = _FIRST_STATE + states
        self._producer = {
            tensor: (i, operator)
            for i, operator in enumerate(self.subgraph.operators or [])
            for tensor in flatbuffer.ints(operator.outputs)
        }
        self._read: dict[int, _Sum] = {}
        self._size: dict[int, int] = {}

    def width(self, tensor: int) -> int:
        shape = flatbuffer.ints(self.subgraph.tensors[tensor].shape)
        return shape[-1] if shape else 1

    def shape(self, tensor: int) -> list[int]:
        return flatbuffer.ints(self.subgraph.tensors[tensor].shape)

    def constant(self, tensor: int, dtype: str) -> np.ndarray | None:
        """Return a constant's values, flat."""
        data = flatbuffer.constant_data(self.model, self.subgraph.tensors[tensor])
        return None if data is None else np.frombuffer(data.tobytes(), dtype)

    def producer(self, tensor: int, kind: str) -> tuple[list[int], Any] | None:
        """Return inputs and options of the operator that computes a tensor, if it is of a kind."""
        if tensor not in self._producer:
            return None
        operator = self._producer[tensor][1]
        if flatbuffer.operator_name(self.model, operator) != kind:
            return None
        return flatbuffer.ints(operator.inputs), operator.builtinOptions

    def whole(self, tensor: int) -> _Sum:
        """Read a tensor; the recursion ends at the body's inputs and constants."""
        if tensor not in self._read:
            self._read[tensor], self._size[tensor] = (), 1  # a damaged file may have a cycle
            self._read[tensor] = self._expression(tensor)
            inputs = flatbuffer.ints(self._producer[tensor][1].inputs) if tensor in self._producer else []
            self._size[tensor] = 1 + sum(self._size.get(i, 0) for i in inputs)
            _require(self._size[tensor] <= _MAX_EXPRESSION, "its body is too large")
        return self._read[tensor]

    def _atom(self, node: Any, tensor: int) -> _Sum:
        return ((node, 0, self.width(tensor)),)

    def _expression(self, tensor: int) -> _Sum:
        if tensor in self.inputs:
            position = self.inputs.index(tensor)
            return self._atom(("counter", 0) if position < _SEQUENCE else ("input", position), tensor)
        if flatbuffer.constant_data(self.model, self.subgraph.tensors[tensor]) is not None:
            return self._atom(("constant", tensor), tensor)
        _require(tensor in self._producer, "a tensor that nothing computes")
        index, operator = self._producer[tensor]
        kind = flatbuffer.operator_name(self.model, operator)
        read = getattr(self, f"_read_{kind.lower()}", None)
        if read is None:
            raise _UnknownError(f"its body has {kind}")
        inputs, options = flatbuffer.ints(operator.inputs), operator.builtinOptions
        _require(inputs and min(inputs[:2]) >= 0, f"{kind} without inputs")
        _require(not getattr(options, "fusedActivationFunction", 0), f"{kind} with a fused activation")
        return _sum(read(index, tensor, inputs, options))

    def _read_add(self, _: int, tensor: int, inputs: list[int], __: Any) -> _Sum:
        a, b = self.whole(inputs[0]), self.whole(inputs[1])
        for first, second in ((a, inputs[1]), (b, inputs[0])):
            if len(first) == 1 and first[0][0][0] == "counter":
                step = self.constant(second, "<i4")
                _require(step is not None and step.tolist() == [1], "a counter that does not go up by 1")
                return self._atom(("counter", first[0][0][1] + 1), tensor)
        self._same_width(tensor, inputs)
        return a + b

    def _read_mul(self, _: int, tensor: int, inputs: list[int], __: Any) -> _Sum:
        self._same_width(tensor, inputs)
        factors = sorted((self.whole(inputs[0]), self.whole(inputs[1])), key=repr)
        return self._atom(("product", *factors), tensor)

    def _read_sub(self, _: int, tensor: int, inputs: list[int], __: Any) -> _Sum:
        one = self.constant(inputs[0], "<f4")
        _require(one is not None and one.size > 0 and np.all(one == 1.0), "SUB that is not 1 - x")
        _require(self.width(inputs[1]) == self.width(tensor), "operands of different widths")
        return self._atom(("complement", self.whole(inputs[1])), tensor)

    def _read_logistic(self, _: int, tensor: int, inputs: list[int], __: Any) -> _Sum:
        return self._atom(("logistic", self.whole(inputs[0])), tensor)

    def _read_tanh(self, _: int, tensor: int, inputs: list[int], __: Any) -> _Sum:
        return self._atom(("tanh", self.whole(inputs[0])), tensor)

    def _read_fully_connected(self, index: int, tensor: int, inputs: list[int], options: Any) -> _Sum:
        _require(self.constant(inputs[1], "<f4") is not None, "FULLY_CONNECTED without constant weights")
        _require(options is not None and not options.weightsFormat, "FULLY_CONNECTED with shuffled weights")
        _require(self.width(inputs[0]) == self.width(inputs[1]), "FULLY_CONNECTED whose input is of another width")
        atoms = self._atom(("matrix", index, self.whole(inputs[0])), tensor)
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = self.whole(inputs[2])
            _require(self.width(inputs[2]) == self.width(tensor), "a bias of another width")
            atoms += bias
        return atoms

    def _read_blocksparsefullyconnected(self, index: int, tensor: int, inputs: list[int], _: Any) -> _Sum:
        return self._atom(("matrix", index, self.whole(inputs[0])), tensor)

    def _read_reshape(self, _: int, tensor: int, inputs: list[int], __: Any) -> _Sum:
        _require(self.width(tensor) == self.width(inputs[0]), "RESHAPE of the last axis")
        return self.whole(inputs[0])

    def _read_gather(self, _: int, tensor: int, inputs: list[int], options: Any) -> _Sum:
        _require(
            options is not None and options.axis == 0 and options.batchDims == 0, "GATHER along another axis than time"
        )
        source, place = self.whole(inputs[0]), self.whole(inputs[1])
        _require(source == self._atom(("input", self.input_tensor), inputs[0]), "GATHER from something else")
        _require(_node(place) == ("counter", 0), "GATHER at another place than the step's")
        return self._atom(("step",), tensor)

    def _read_split(self, index: int, tensor: int, inputs: list[int], _: Any) -> _Sum:
        axis = self.constant(inputs[0], "<i4")
        rank = len(self.shape(inputs[1]))
        _require(axis is not None and axis.size == 1 and int(axis[0]) in (-1, rank - 1), "SPLIT along another axis")
        outputs = flatbuffer.ints(self.subgraph.operators[index].outputs)
        width = self.width(tensor)
        _require(width * len(outputs) == self.width(inputs[1]), "SPLIT into unequal parts")
        begin = outputs.index(tensor) * width
        return _slice(self.whole(inputs[1]), begin, begin + width)

    def _read_strided_slice(self, _: int, tensor: int, inputs: list[int], options: Any) -> _Sum:
        source = self.shape(inputs[0])
        read = [self.constant(i, "<i4") for i in inputs[1:4]]
        _require(len(read) == 3 and all(r is not None and r.size == len(source) for r in read), "an unusual slice")
        begins, ends, strides = (np.asarray(r).tolist() for r in read)
        unusual = options is None or options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask
        _require(not unusual and not getattr(options, "offset", False), "an unusual slice")
        _require(all(stride == 1 for stride in strides), "a slice with strides")
        bounds = []
        for axis, size in enumerate(source):
            begin = 0 if options.beginMask >> axis & 1 else begins[axis]
            end = size if options.endMask >> axis & 1 else ends[axis]
            begin, end = (x + size if x < 0 else x for x in (begin, end))
            _require(0 <= begin < end <= size, "an empty slice")
            bounds.append((begin, end))
        _require(
            all(bound == (0, size) for bound, size in zip(bounds[:-1], source[:-1], strict=True)), "a slice of a batch"
        )
        return _slice(self.whole(inputs[0]), *bounds[-1])

    def _same_width(self, tensor: int, inputs: list[int]) -> None:
        _require(all(self.width(i) == self.width(tensor) for i in inputs), "operands of different widths")


def _slice(atoms: _Sum, begin: int, end: int) -> _Sum:
    return _sum((node, first + begin, first + end) for node, first, _ in atoms)


def _node(atoms: _Sum) -> Any:
    """Return the only node of a sum, or None."""
    return atoms[0][0] if len(atoms) == 1 else None


# --- What the loop is, from the expressions ---


def _read_loop(model: Any, s: int, i: int) -> Loop:
    subgraph = model.subgraphs[s]
    operator = subgraph.operators[i]
    options = operator.builtinOptions
    condition, body = (getattr(options, f"{name}SubgraphIndex", -1) for name in ("cond", "body"))
    _require(all(0 < index < len(model.subgraphs) for index in (condition, body)), "it names a missing subgraph")
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    states = len(inputs) - 4
    _require(states in (1, 2) and len(outputs) == len(inputs), "it carries other values than a state")
    _require(min([*inputs, *outputs]) >= 0, "it lacks an input")
    reader = _Body(model, body, states)
    _require(len(reader.inputs) == len(reader.outputs) == len(inputs), "its body carries other values")
    for counter in (0, 1):
        start = flatbuffer.constant_data(model, subgraph.tensors[inputs[counter]])
        _require(start is not None and not start.any(), "its counters do not begin at 0")
        _require(_node(reader.whole(reader.outputs[counter])) == ("counter", 1), "its counters do not go up by 1")
    _require(reader.outputs[reader.input_tensor] == reader.inputs[reader.input_tensor], "it changes its input")
    for unused in (0, 1, reader.input_tensor):
        _require(not _is_read(subgraph, outputs[unused]), "its counters or its input are read behind it")
    step_shape = flatbuffer.ints(subgraph.tensors[inputs[reader.input_tensor]].shape)
    _require(len(step_shape) == 3, "its input is not [steps, batch, features]")
    _check_condition(model, condition, len(inputs), step_shape[0])
    _require(len({*_references(model)} & {condition, body}) == 2, "its subgraphs are missing")
    _require(all(_references(model).count(index) == 1 for index in (condition, body)), "its subgraphs are shared")

    layer = _Lstm(reader) if states == 2 else _Gru(reader)
    for tensor in (*inputs[_FIRST_STATE:], outputs[_SEQUENCE]):
        _require(subgraph.tensors[tensor].type == flatbuffer.schema().TensorType.FLOAT32, "it is not FLOAT32")
    return Loop(
        custom_code=LSTM if states == 2 else GRU,
        subgraph=s,
        index=i,
        operator=operator,
        condition=condition,
        body=body,
        units=layer.units,
        reset_after=layer.reset_after,
        return_sequences=_keeps_sequence(reader, step_shape[0]),
        matrices=layer.matrices,
        bias=layer.bias,
        recurrent_bias=layer.recurrent_bias,
    )


def _is_read(subgraph: Any, tensor: int) -> bool:
    if tensor in flatbuffer.ints(subgraph.outputs):
        return True
    return any(tensor in flatbuffer.ints(operator.inputs) for operator in subgraph.operators)


def _references(model: Any) -> list[int]:
    """Every mention of a subgraph by an operator."""
    found = []
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            for name, value in vars(operator.builtinOptions).items() if operator.builtinOptions is not None else ():
                if name.lower().endswith("subgraphindex"):
                    found.append(int(value))
    return found


def _check_condition(model: Any, index: int, carried: int, steps: int) -> None:
    """The loop goes on while both counters are below the number of steps."""
    reader = _Body(model, index, carried - 4)
    _require(len(reader.inputs) == carried and len(reader.outputs) == 1, "its condition is unusual")
    both = reader.producer(reader.outputs[0], "LOGICAL_AND")
    compared = []
    for tensor in both[0] if both else []:
        less = reader.producer(tensor, "LESS")
        limit = reader.constant(less[0][1], "<i4") if less and len(less[0]) == 2 else None
        if less and limit is not None and limit.tolist() == [steps] and less[0][0] in reader.inputs[:2]:
            compared.append(less[0][0])
    _require(sorted(compared) == sorted(reader.inputs[:2]), "it does not end after the input's last step")


def _keeps_sequence(reader: _Body, steps: int) -> bool:
    """Whether the outputs are the state after each step (True) or after the last one alone."""
    state = reader.outputs[_FIRST_STATE]
    kept = reader.outputs[_SEQUENCE]

    def is_state(tensor: int) -> bool:
        reshape = reader.producer(tensor, "RESHAPE")
        return reshape is not None and reshape[0][0] == state and reader.shape(tensor) == [1, *reader.shape(state)]

    before_shape = reader.shape(reader.inputs[_SEQUENCE])
    if is_state(kept):
        _require(before_shape == [1, *reader.shape(state)], "its outputs have another shape than its state")
        return False
    joined = reader.producer(kept, "CONCATENATION")
    _require(
        joined is not None and len(joined[0]) == 3 and joined[1].axis == 0 and not joined[1].fusedActivationFunction,
        "it does not keep its state after every step",
    )
    assert joined is not None
    before, now, after = joined[0]
    _require(before_shape == [steps, *reader.shape(state)], "it keeps another number of steps than its input has")
    head, tail = reader.producer(before, "SLICE"), reader.producer(after, "SLICE")
    _require(is_state(now) and head is not None and tail is not None, "it does not keep its state after every step")
    assert head is not None
    assert tail is not None
    sequence = reader.inputs[_SEQUENCE]
    begin, rest = reader.constant(head[0][1], "<i4"), reader.constant(tail[0][2], "<i4")
    _require(
        head[0][0] == tail[0][0] == sequence
        and begin is not None
        and begin.tolist() == [0, 0, 0]
        and rest is not None
        and rest.tolist() == [-1, -1, -1]
        and _counts(reader, head[0][2], 0, -1)
        and _counts(reader, tail[0][1], 1, 0),
        "it keeps its state at another place than the step's",
    )
    return True


def _counts(reader: _Body, tensor: int, ahead: int, others: int) -> bool:
    """Whether a vector is (counter + ahead, others, others)."""
    joined = reader.producer(tensor, "CONCATENATION")
    if joined is None or len(joined[0]) != 2:
        return False
    reshape = reader.producer(joined[0][0], "RESHAPE")
    if reshape is None or _node(reader.whole(reshape[0][0])) != ("counter", ahead):
        return False
    values = reader.constant(joined[0][1], "<i4")
    return values is not None and values.tolist() == [others, others]


class _Layer:
    """What the two kinds of layers have in common: gates that sum a slice of each matrix and of each bias."""

    gates: int
    reset_after = True

    def __init__(self, reader: _Body) -> None:
        self.reader = reader
        state = reader.inputs[_FIRST_STATE]
        self.units = reader.width(state)
        self.state = (("input", _FIRST_STATE), 0, self.units)
        self.matrices: dict[str, int] = {}
        self._biases: dict[str, int] = {}
        self._match(reader.whole(reader.outputs[_FIRST_STATE]))

    @property
    def bias(self) -> int | None:
        return self._biases.get("bias")

    @property
    def recurrent_bias(self) -> int | None:
        return self._biases.get("recurrent_bias")

    def _match(self, state: _Sum) -> None:
        raise NotImplementedError

    def gate(self, atoms: _Sum, number: int, sources: dict[str, _Sum], biases: tuple[str, ...]) -> None:
        """Check that a sum is the gate's slice of one matrix for each of the sources, and of biases at most."""
        begin, end = number * self.units, (number + 1) * self.units
        missing = dict(sources)
        constants = []
        for node, first, last in atoms:
            if node[0] == "constant":
                constants.append((node[1], first, last))
                continue
            names = [name for name, source in missing.items() if node[0] == "matrix" and node[2] == source]
            _require(names, "a gate sums something else than products with its input and its state")
            name = names[0]
            del missing[name]
            offset = 0 if name == "candidate_kernel" else begin
            _require((first, last) == (offset, offset + self.units), "gates in another order")
            _require(self.matrices.setdefault(name, node[1]) == node[1], "gates with matrices of their own")
        _require(not missing, "a gate without its input or its state")
        # Which of two vectors is which does not matter to a sum, but it must be the same in all gates.
        for tensor, first, last in sorted(constants):
            _require((first, last) == (begin, end), "biases in another order")
            known = [name for name in biases if self._biases.get(name) == tensor]
            free = [name for name in biases if name not in self._biases]
            _require(known or free, "more biases than a layer has")
            self._biases[known[0] if known else free[0]] = tensor

    def check(self) -> None:
        """Hold matrices and biases against the number of gates."""
        tensors = self.reader.subgraph.tensors
        for name, index in self.matrices.items():
            weights = tensors[flatbuffer.ints(self.reader.subgraph.operators[index].inputs)[1]]
            rows, columns = ([*flatbuffer.ints(weights.shape), 0, 0])[:2]
            stored = 1 if name == "candidate_kernel" else self.gates
            if name == "recurrent_kernel" and not self.reset_after:
                stored = self.gates - 1
            _require(rows == stored * self.units, f"the {name.replace('_', ' ')} has {rows} rows")
            _require(name == "kernel" or columns == self.units, f"the {name.replace('_', ' ')} has {columns} columns")
        for name, tensor in self._biases.items():
            stored = self.gates - 1 if name == "recurrent_bias" and not self.reset_after else self.gates
            _require(self.reader.width(tensor) == stored * self.units, "a bias of another length")

    @property
    def step(self) -> _Sum:
        x = self.reader.inputs[self.reader.input_tensor]
        return ((("step",), 0, self.reader.width(x)),)


class _Gru(_Layer):
    """next = z * h + (1 - z) * candidate, as `keras.layers.GRU`: gates z, r, candidate."""

    gates = 3

    def _match(self, state: _Sum) -> None:
        h: _Sum = (self.state,)
        products = [node for node, *_ in state if node[0] == "product"]
        _require(len(state) == len(products) == 2, "the next state is not z * h + (1 - z) * candidate")
        kept = next((p for p in products if h in p[1:]), None)
        _require(kept is not None, "the next state is not z * h + (1 - z) * candidate")
        assert kept is not None
        new = products[1 - products.index(kept)]
        update = _other(kept, h)
        complement: Any = (("complement", update), 0, self.units)
        _require((complement,) in new[1:], "the next state is not z * h + (1 - z) * candidate")
        z = _node(update)
        candidate = _node(_other(new, (complement,)))
        _require(z and z[0] == "logistic", "the update gate is not logistic")
        _require(candidate and candidate[0] == "tanh", "the activation is not tanh")

        after = [node for node, *_ in candidate[1] if node[0] == "product"]
        sources = {"kernel": self.step, "recurrent_kernel": h}
        if after:
            _require(len(after) == 1, "the candidate has more than one product")
            reset, inner = _reset_and(after[0], h)
            rest = _sum(atom for atom in candidate[1] if atom[0] != after[0])
            # What the reset gate multiplies tells the two biases apart.
            self.gate(inner, 2, {"recurrent_kernel": h}, ("recurrent_bias",))
            self.gate(rest, 2, {"kernel": self.step}, ("bias",))
        else:
            self.reset_after = False
            products = [
                node for node, *_ in candidate[1] if node[0] == "matrix" and (_node(node[2]) or ("",))[0] == "product"
            ]
            _require(len(products) == 1, "the candidate has no reset state")
            reset_state = _node(products[0][2])
            _require(h in reset_state[1:], "the reset gate multiplies something else than the state")
            reset = _node(_other(reset_state, h))
            self.gate(candidate[1], 2, {"kernel": self.step, "candidate_kernel": products[0][2]}, ("bias",))
        _require(reset and reset[0] == "logistic", "the reset gate is not logistic")
        biases = ("bias", "recurrent_bias") if self.reset_after else ("bias",)
        self.gate(z[1], 0, sources, biases)
        self.gate(reset[1], 1, sources, biases)
        self.check()


def _other(product: Any, factor: _Sum) -> _Sum:
    a, b = product[1:]
    return b if a == factor else a


def _reset_and(product: Any, h: _Sum) -> tuple[Any, _Sum]:
    """Return the reset gate and what it multiplies."""
    for gate, inner in (product[1:], product[:0:-1]):
        node = _node(gate)
        if node and node[0] == "logistic" and any(n[0] == "matrix" and n[2] == h for n, *_ in inner):
            return node, inner
    raise _UnknownError("the reset gate multiplies something else than the recurrent product")


class _Lstm(_Layer):
    """cell = f * cell + i * g, next = o * tanh(cell), as `keras.layers.LSTM`: gates i, f, g, o."""

    gates = 4

    def _match(self, state: _Sum) -> None:
        reader = self.reader
        problem = "the next state is not o * tanh(f * cell + i * g)"
        old: _Sum = ((("input", _FIRST_STATE + 1), 0, self.units),)
        cell = reader.whole(reader.outputs[_FIRST_STATE + 1])
        shown: _Sum = ((("tanh", cell), 0, self.units),)
        product = _node(state)
        _require(product and product[0] == "product" and shown in product[1:], problem)
        products = [node for node, *_ in cell if node[0] == "product"]
        _require(len(cell) == len(products) == 2, problem)
        kept = next((p for p in products if old in p[1:]), None)
        _require(kept is not None, problem)
        assert kept is not None
        new = products[1 - products.index(kept)]
        g = next((_node(x) for x in new[1:] if (_node(x) or ("",))[0] == "tanh"), None)
        _require(g, "the activation is not tanh")
        assert g is not None
        i = _node(_other(new, ((g, 0, self.units),)))
        f, o = _node(_other(kept, old)), _node(_other(product, shown))
        sources = {"kernel": self.step, "recurrent_kernel": (self.state,)}
        for number, gate in enumerate((i, f, g, o)):
            _require(gate and gate[0] == ("tanh" if number == 2 else "logistic"), "the gates are not logistic")
            self.gate(gate[1], number, sources, ("bias", "recurrent_bias"))
        self.check()
